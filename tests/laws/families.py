"""The families over which laws run, and random attributions to fold. New members of the package are picked up by
themselves."""

from __future__ import annotations

import numpy as np
import torch

from igc_dist.statistics import STATISTICS, Agreement, Centre, State, Statistic
from igc_dist.tensors import Attribution

FAMILY: list[Statistic] = [*(kind() for kind in STATISTICS.values()), Agreement()]
SHAPES = ((3,), (2, 2))


def attribution(n: int, seed: int = 0, outputs: int = 2, offset: float = 0.0, masked: bool = False) -> Attribution:
    """n random samples of two inputs with deviation 1 about `offset`; `masked` gives some weight 0, and NaN to
    those."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n, outputs))

    def mixed(*shape: int) -> torch.Tensor:
        own = rng.standard_normal((n, outputs, *shape))
        return torch.from_numpy(offset + 0.6 * latent.reshape(n, outputs, *(1,) * len(shape)) + 0.8 * own)

    values, (y, r, b) = tuple(mixed(*shape) for shape in SHAPES), (mixed() for _ in range(3))
    weight = torch.ones(n, outputs, dtype=torch.float64)
    if masked:
        weight = torch.from_numpy((rng.random((n, outputs)) > 0.3).astype(np.float64))
        weight[0] = 1
        off = weight == 0
        values = tuple(torch.where(off.reshape(n, outputs, *(1,) * (v.ndim - 2)), torch.nan, v) for v in values)
        y, r, b = (
            torch.where(off, bad, v) for bad, v in zip((torch.nan, torch.inf, -torch.inf), (y, r, b), strict=True)
        )
    cell = torch.from_numpy(rng.integers(0, 4, (n, outputs)))
    # mean baselines that go with the attributions of the first output
    baseline = tuple(
        torch.nan_to_num(v[:, 0]) - offset + torch.from_numpy(rng.standard_normal(v[:, 0].shape)) for v in values
    )
    area = tuple(torch.from_numpy(rng.random(v[:, 0].shape)) for v in values)
    return Attribution(values, y, r, b, weight, cell=cell, baseline=baseline, area=area)


def part(whole: Attribution, rows: slice | list[int]) -> Attribution:
    """Some samples."""
    tables = whole.target, whole.prediction, whole.baseline_prediction, whole.weight
    own = tuple(v[rows] for v in whole.values), *(table[rows] for table in tables)
    more = {name: tuple(each[rows] for each in getattr(whole, name)) for name in ("baseline", "area")}
    return Attribution(*own, whole.share, whole.cell[rows], **more)


def centre(at: float = 0.0, outputs: int = 2, features: bool = False) -> Centre:
    """A centre with another number for every variable, output and feature."""
    y, r, b = (torch.arange(outputs, dtype=torch.float64) + at + shift for shift in (0.0, 0.25, 0.5))
    a = tuple(torch.full((outputs, *shape), at + 0.75, dtype=torch.float64) for shape in SHAPES) if features else None
    return Centre(y, r, b, a)


def host(state: State) -> State:
    """The state as numpy arrays, which is what `finalize` takes."""
    c = state.centre
    a = None if c.a is None else tuple(np.asarray(v) for v in c.a)
    arrays = state.map(np.asarray)
    return State(Centre(*(np.asarray(v) for v in (c.y, c.r, c.b)), a), arrays.scalars, arrays.features)


def sums(state: State) -> list[np.ndarray]:
    """All sums of a state, in a fixed order."""
    found = [np.asarray(state.scalars[term]) for term in sorted(state.scalars)]
    return found + [np.asarray(of_input[term]) for of_input in state.features for term in sorted(of_input)]


def final(statistic: Statistic, state: State) -> dict[str, np.ndarray]:
    """Everything that a statistic makes of a state, by name."""
    done = statistic.finalize(host(state))
    return done.outputs | {
        f"{name} of input {i}": array for i, maps in enumerate(done.features) for name, array in maps.items()
    }


def assert_same(one: dict[str, np.ndarray], two: dict[str, np.ndarray], tolerance: float = 1e-12) -> None:
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=tolerance, atol=tolerance, err_msg=name)
