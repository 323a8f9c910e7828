"""Sums in cells, however samples are cut, ordered, weighted, masked and centred: the moments of each union of cells are
numpy's."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from igc_dist.statistics import FEATURE_TERMS, Centre, State, empty, of
from igc_dist.tensors import Attribution
from tests.laws.families import host

SHAPES, J = ((3,), (2, 2)), 2
PAIRS = ("yy", "rr", "bb", "yr", "yb", "rb", "aa", "ay", "ar", "zz", "az", "zy")


def moments(values: dict[str, np.ndarray], weight: np.ndarray, pair: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the first and covariance of both, over samples of a weight above 0, in two passes; NaN where there are
    none."""
    u, v = (values[name] for name in pair)
    u, v = np.broadcast_arrays(u[:, None] if u.ndim < v.ndim else u, v[:, None] if v.ndim < u.ndim else v)
    w, kept = (weight[:, None] if u.ndim > 1 else weight), weight > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = lambda x: (w[kept] * x).sum(0) / w[kept].sum(0)  # noqa: E731
        return mean(u[kept]), mean((u[kept] - mean(u[kept])) * (v[kept] - mean(v[kept])))


def drawn(n: int, seed: int, offset: float, n_cells: int) -> Attribution:
    """Random samples about an offset; some of weight 0, with NaN or infinity, and a cell that may stay empty."""
    rng = np.random.default_rng(seed)
    weight = rng.choice([0.0, 0.5, 1.0, 3.0], (n, J))
    off = torch.from_numpy(weight == 0)

    def table(bad: float, *shape: int) -> torch.Tensor:
        values = torch.from_numpy(offset + rng.standard_normal((n, J, *shape)))
        return torch.where(off.reshape(n, J, *(1,) * len(shape)), bad, values)

    values = tuple(table(np.nan, *shape) for shape in SHAPES)
    baseline = tuple(torch.from_numpy(offset + rng.standard_normal((n, *shape))) for shape in SHAPES)
    area = tuple(torch.from_numpy(rng.random((n, *shape))) for shape in SHAPES)
    y, r, b = (table(bad) for bad in (np.nan, np.inf, -np.inf))
    cell = torch.from_numpy(rng.integers(0, max(1, n_cells - int(rng.integers(2))), (n, J)))
    return Attribution(values, y, r, b, torch.from_numpy(weight), cell=cell, baseline=baseline, area=area)


def rows(a: Attribution, chosen: np.ndarray) -> Attribution:
    tables = (table[chosen] for table in (a.target, a.prediction, a.baseline_prediction, a.weight))
    assert a.cell is not None
    assert a.baseline is not None
    assert a.area is not None
    baseline, area = (tuple(each[chosen] for each in those) for those in (a.baseline, a.area))
    return Attribution(tuple(v[chosen] for v in a.values), *tables, cell=a.cell[chosen], baseline=baseline, area=area)


def at(place: float) -> Centre:
    flat = torch.full((J,), place, dtype=torch.float64)
    return Centre(
        flat,
        flat + 0.25,
        flat - 0.25,
        tuple(torch.full((J, *shape), place + 0.5, dtype=torch.float64) for shape in SHAPES),
    )


def check(
    n: int, seed: int, offset: float, slices: int, groups: int, cuts: list[int], moved: float, order: int
) -> None:
    n_cells, whole = slices * groups, drawn(n, seed, offset, slices * groups)
    places = np.random.default_rng(order).permutation(n)
    edges = [0, *sorted(min(cut, n) for cut in cuts), n]
    total = empty(at(offset + moved), SHAPES, FEATURE_TERMS, n_cells=n_cells)
    for number, (first, last) in enumerate(
        pairwise(edges)
    ):  # micro-batches, empty ones too, about centres of their own
        total = total + of(rows(whole, places[first:last]), at(offset + moved * number), FEATURE_TERMS, n_cells)
    whole_cell = whole.cell.numpy()  # type: ignore[union-attr]
    for keep_slices in (False, True):
        for keep_groups in (False, True):
            merged = total.union(groups, slices=keep_slices, groups=keep_groups)
            for j in range(J):
                part = whole_cell[:, j] // groups * keep_slices, whole_cell[:, j] % groups * keep_groups
                for s in range(slices if keep_slices else 1):
                    for g in range(groups if keep_groups else 1):
                        cell = (*((s,) if keep_slices else ()), *((g,) if keep_groups else ()), j)
                        compare(host(merged), whole, cell, (part[0] == s) & (part[1] == g), offset)


def compare(state: State, whole: Attribution, cell: tuple[int, ...], inside: np.ndarray, offset: float) -> None:
    """One cell of a state and one output against the samples in it."""
    j = cell[-1]
    weight = np.where(inside, whole.weight[:, j].numpy(), 0.0)
    assert state.scalars[""][cell] == pytest.approx(weight.sum())
    assert state.scalars["n"][cell] == (weight > 0).sum()
    scalars = {"y": whole.target, "r": whole.prediction, "b": whole.baseline_prediction}
    values = {name: table[:, j].numpy() for name, table in scalars.items()}
    for i, shape in enumerate(SHAPES):
        assert whole.baseline is not None
        assert whole.area is not None
        mean, _ = moments({"s": whole.area[i].flatten(1).numpy()}, weight, "ss")
        np.testing.assert_allclose(state.mean("s", i)[cell], mean.reshape(shape), rtol=1e-12, atol=1e-12)
        a, z = whole.values[i][:, j].flatten(1).numpy(), whole.baseline[i].flatten(1).numpy()
        for pair in PAIRS:
            mean, covariance = moments({**values, "a": a, "z": z}, weight, pair)
            of_features = bool({*"az"} & {*pair})
            shaped = (lambda x, shape=shape: x.reshape(shape)) if of_features else (lambda x: x)
            found = state.covariance(*pair, i)[cell]  # type: ignore[arg-type]
            # z is summed about 0: its products lose the square of its offset
            tolerance = 1e-9 * max(1.0, offset * offset if "z" in pair else 1.0)
            np.testing.assert_allclose(found, shaped(covariance), rtol=1e-9, atol=tolerance, err_msg=pair)
            if len(pair) == 2 and pair[0] not in "az" and not of_features:
                np.testing.assert_allclose(state.mean(pair[0])[cell], mean, rtol=1e-12, atol=1e-12)


SAMPLES: dict[str, Any] = {
    "n": st.integers(1, 30),
    "seed": st.integers(0, 10**6),
    "offset": st.sampled_from([0.0, 0.0, -3.0, 1e6]),
    "slices": st.integers(1, 3),
    "groups": st.sampled_from([1, 4]),
    "cuts": st.lists(st.integers(0, 30), max_size=5),
    "moved": st.floats(-2, 2),
    "order": st.integers(0, 10**6),
}


@settings(max_examples=6)
@given(**SAMPLES)
def test_any_samples(**drawn: Any) -> None:
    check(**drawn)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=600)
@given(**SAMPLES)
def test_many_samples(**drawn: Any) -> None:
    check(**drawn)
