"""What Captum's own tests of Integrated Gradients assert, on small models with known answers: completeness, shapes,
deltas, rows, passes, and the class under Captum's `NoiseTunnel`. For our class, and for Captum's."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from igc_dist.compat.captum import IntegratedGradients as OURS  # noqa: N814
from tests import models

__all__ = ["METHODS", "OURS", "checks"]

METHODS = ("riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid", "gausslegendre")
SMOOTHINGS = ("smoothgrad", "smoothgrad_sq", "vargrad")
N_STEPS = 500
COPIES = 5
CLOSE = 0.07
"""How far a sum of attributions may be from the rise of the function."""

Check = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """A function and what it is explained at; `exact`: its attributions, if they are known, to 0.05."""

    model: Any
    inputs: Any
    baselines: Any = None
    target: Any = None
    more: Any = None
    exact: Any = None

    @property
    def settings(self) -> dict[str, Any]:
        return {"baselines": self.baselines, "target": self.target, "additional_forward_args": self.more}


def mlp(n_in: int, hidden: tuple[int, ...], n_out: int, last: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    widths = (n_in, *hidden, n_out)
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1], last)


def divided(x1: Tensor, x2: Tensor, c: Any, k: int) -> Tensor:
    """M4 of the acceptance cases: the third argument divides."""
    return relu(relu(x1 - 1) - relu(x2) / c)[:, k]


def scaled(x1: Tensor, x2: Tensor, c: list[float], k: int) -> Tensor:
    """M5: a list of two numbers scales."""
    return relu(c[0] * relu(x1 - 1) - c[1] * relu(x2))[:, k]


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values)


def cases() -> dict[str, Case]:
    pair = rows([1.5, 2.0, 34.3], [3.4, 1.2, 2.0]), rows([3.0, 3.5, 23.2], [2.3, 1.2, 0.3])
    three = rows([1.5, 2.0, 1.3], [0.5, 0.1, 2.3], [1.5, 2.0, 1.3])
    two = rows([0.5, 0, 0.7], [1.5, 2.1, 1.1]), rows([0.5, 0.6, 2.1], [1.2, 2.1, 0.2])
    scalars = (torch.tensor([3.0]), torch.tensor([1.0])), (torch.tensor([0.0]), torch.tensor([0.0]))
    answers = torch.tensor([1.5]), torch.tensor([-0.5])
    digits = torch.arange(40.0), torch.arange(120.0).reshape(3, 40)
    soft, sigmoid = mlp(40, (20, 20), 10, nn.Softmax(1)), mlp(20, (5,), 1, nn.Sigmoid())
    return {
        "one variable at 1": Case(models.M1(), torch.tensor([1.0]), torch.tensor([0.0]), exact=torch.tensor([1.0])),
        "one variable at 0": Case(models.M1(), torch.tensor([0.0]), torch.tensor([0.0]), exact=torch.tensor([0.0])),
        "one variable at -1": Case(
            models.M1(), torch.tensor([-1.0]), torch.tensor([1e-5]), exact=torch.tensor([-1.00001])
        ),
        "two variables": Case(models.M2(), *scalars, exact=answers),
        "the same function": Case(models.M3(), *scalars, exact=answers),
        "a tensor more": Case(divided, tuple(x[:1] for x in pair), more=(rows([1.0, 2.0, 3.0]), 2)),
        "a tensor of two rows more": Case(divided, pair, more=(torch.arange(1.0, 7.0).reshape(2, 3), 2)),
        "a list more": Case(scaled, pair, (torch.zeros(2, 3), torch.zeros(2, 3)), more=([2, 3], 2)),
        "two tensors": Case(models.M6(), tuple(x[:1] for x in pair)),
        "a batch": Case(models.ML().float(), three, target=0, exact=3 * three),
        "a batch of two tensors": Case(models.ML().float(), two, target=0, exact=tuple(3 * x for x in two)),
        "sigmoid": Case(sigmoid, torch.arange(20.0)[None], target=torch.tensor(0)),
        "softmax": Case(soft, digits[0][None], target=torch.tensor(5)),
        "softmax of a batch": Case(soft, digits[1], torch.zeros(1, 40), torch.tensor([5, 5, 2])),
    }


def parts(values: Any) -> tuple[Tensor, ...]:
    return values if isinstance(values, tuple) else (values,)


def near(found: Any, expected: Any, tolerance: float) -> None:
    assert isinstance(found, tuple) == isinstance(expected, tuple)
    for one, two in zip(parts(found), parts(expected), strict=True):
        assert one.shape == two.shape
        assert ((one - two).abs() <= tolerance).all(), (one, two)


def complete(kind: Any, case: Case, method: str) -> None:
    """The sum is the rise; the delta is that of outside, one for each sample; values are the known ones."""
    ig = kind(case.model)
    found, delta = ig.attribute(
        case.inputs, method=method, n_steps=N_STEPS, return_convergence_delta=True, **case.settings
    )
    near(found, ig.attribute(case.inputs, method=method, n_steps=N_STEPS, **case.settings), 1e-6)
    assert [a.shape for a in parts(found)] == [x.shape for x in parts(case.inputs)]
    assert delta.shape == (len(parts(case.inputs)[0]),)
    outside = ig.compute_convergence_delta(found, case.baselines, case.inputs, case.target, case.more)
    near(delta, outside, 0.0)
    assert (delta.abs() < CLOSE).all(), delta
    if case.exact is not None:
        near(found, case.exact, 0.05)


def smoothed(kind: Any, tunnel: Any, case: Case, method: str, smoothing: str, together: int | None) -> None:
    """Under `NoiseTunnel`: shapes, and a small delta for each noisy copy."""
    ig = kind(case.model)
    assert ig.has_convergence_delta()
    found, delta = tunnel(ig).attribute(
        case.inputs, nt_type=smoothing, nt_samples=COPIES, nt_samples_batch_size=together, stdevs=2e-8, method=method,
        n_steps=N_STEPS, return_convergence_delta=True, **case.settings,
    )  # fmt: skip
    assert [a.shape for a in parts(found)] == [x.shape for x in parts(case.inputs)]
    assert delta.shape == (len(parts(case.inputs)[0]) * COPIES,)
    assert (delta.abs() < CLOSE).all(), delta


def without_noise(kind: Any, tunnel: Any, case: Case) -> None:
    """A tunnel without noise gives the maps, their squares, and no variance."""
    ig = kind(case.model)
    plain = parts(ig.attribute(case.inputs, **case.settings))
    expected = {"smoothgrad": plain, "smoothgrad_sq": tuple(a**2 for a in plain), "vargrad": (0 * a for a in plain)}
    for smoothing, values in expected.items():
        found = tunnel(ig).attribute(case.inputs, nt_type=smoothing, nt_samples=3, stdevs=0.0, **case.settings)
        near(parts(found), tuple(values), 1e-4)


def row_by_row(kind: Any, case: Case, method: str) -> None:
    """A batch is its rows, and its delta the deltas of these."""
    ig = kind(case.model)
    settings = {"method": method, "n_steps": 100, "target": case.target, "return_convergence_delta": True}
    whole, delta = ig.attribute(case.inputs, **settings)
    for k in range(len(delta)):
        row = tuple(x[k : k + 1] for x in parts(case.inputs))
        one, error = ig.attribute(row if isinstance(case.inputs, tuple) else row[0], **settings)
        near(parts(one), tuple(a[k : k + 1] for a in parts(whole)), 1e-4)
        near(error, delta[k : k + 1], 1e-4)


def in_passes(kind: Any, case: Case) -> None:
    """Smaller passes give the same; one smaller than the batch is said."""
    ig = kind(case.model)
    whole = ig.attribute(case.inputs, target=case.target, n_steps=100)
    for size in (10, 20):
        near(ig.attribute(case.inputs, target=case.target, n_steps=100, internal_batch_size=size), whole, 1e-4)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        near(ig.attribute(case.inputs, target=case.target, n_steps=100, internal_batch_size=1), whole, 1e-4)
    assert any("internal" in str(one.message) for one in said)


def not_multiplied(kind: Any, case: Case) -> None:
    """Without ``x - x0``, and then times it."""
    settings = {**case.settings, "n_steps": 100}
    ig = kind(case.model, multiply_by_inputs=False)
    assert not ig.multiplies_by_inputs
    starts = case.baselines or (0.0,) * len(parts(case.inputs))
    found = parts(ig.attribute(case.inputs, **settings))
    product = tuple(a * (x - x0) for a, x, x0 in zip(found, parts(case.inputs), starts, strict=True))
    near(product, parts(kind(case.model).attribute(case.inputs, **settings)), 1e-4)


def checks(kind: Any, tunnel: Any) -> Iterator[tuple[str, Check]]:
    """All checks of the class `kind`, by name; those with the class `tunnel` only if it is there."""
    every = cases()
    for number, (name, case) in enumerate(every.items()):
        for method in METHODS:
            yield f"{name}, {method}", partial(complete, kind, case, method)
        for turn, smoothing in enumerate(SMOOTHINGS if tunnel else ()):
            method = METHODS[(number + turn) % len(METHODS)]
            for together in (None, 1, 3) if name.startswith("a batch") else (None,):
                check = partial(smoothed, kind, tunnel, case, method, smoothing, together)
                yield f"{name}, {smoothing} in {together or 'one'}", check
    for name in ("a batch", "a batch of two tensors"):
        for method in METHODS:
            yield f"{name}, row by row, {method}", partial(row_by_row, kind, every[name], method)
        yield f"{name}, in passes", partial(in_passes, kind, every[name])
        if tunnel:
            yield f"{name}, without noise", partial(without_noise, kind, tunnel, every[name])
    for name in ("two variables", "the same function", "a batch of two tensors"):
        yield f"{name}, not multiplied", partial(not_multiplied, kind, every[name])
