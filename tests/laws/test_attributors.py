"""Laws of every attributor: its slow literal twin, 0 on the baseline, completeness where claimed, and no trace of batching."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from igc_dist.attributors import Attributor, Gradients, GradientXInput, PathIntegral
from igc_dist.model import Model
from igc_dist.quadrature import rule
from tests import models
from tests.oracles import attributions as oracle

Arrays = tuple[np.ndarray, ...]
RULES = [rule("midpoint", 4), rule("trapezoid", 3), rule("gauss_legendre", 5), rule("left", 2)]


def twin(attributor: Attributor, model: torch.nn.Module, x: Arrays, starts: list[list[Arrays]]) -> Arrays:
    """The oracle of an attributor."""
    if isinstance(attributor, PathIntegral):
        nodes, weights = attributor.quadrature.nodes.tolist(), attributor.quadrature.weights.tolist()
        return oracle.integrated_gradients(model, x, starts, [0, 1], nodes, weights)
    return {Gradients: oracle.gradients, GradientXInput: oracle.gradients_x_input}[type(attributor)](model, x, [0, 1])


FAMILY: list[Attributor] = [Gradients(), GradientXInput(), *(PathIntegral(q) for q in RULES)]
every = pytest.mark.parametrize("attributor", FAMILY, ids=lambda a: f"{a.name}-{a.quadrature.name}" if a.baselines else a.name)


def attribute(attributor: Attributor, model: torch.nn.Module, x: Arrays, x0: Arrays, size: int = 64, blocks: int = 1) -> Arrays:
    """The package's attributions; `x0[i]` is (B, n or 1, *P_i), taken in `blocks` blocks."""
    inputs = tuple(torch.from_numpy(value) for value in x)
    total: Any = 0
    for cut in np.array_split(np.arange(len(x0[0])), blocks) if attributor.baselines else [np.arange(1)]:
        baselines = tuple(torch.from_numpy(value[cut]) for value in x0) if attributor.baselines else ()
        share = 1 / len(x0[0]) if attributor.baselines else 1.0
        values = attributor.attribute(Model(model), inputs, baselines, [0, 1], share=share, size=size)
        total = [v.numpy() for v in values] if isinstance(total, int) else [a + v.numpy() for a, v in zip(total, values, strict=True)]
    return tuple(total)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def per_sample(x0: Arrays, n: int) -> list[list[Arrays]]:
    """(B, n or 1, *P) arrays as the oracle takes them."""
    return [[tuple(value[b, k if value.shape[1] > 1 else 0] for value in x0) for b in range(len(x0[0]))] for k in range(n)]


def test_the_family_is_whole() -> None:
    """Every attributor of the package is in the list, and has a twin."""
    assert {type(a) for a in FAMILY} == {kind for kind in Attributor.__subclasses__() if kind.__module__.startswith("igc_dist.")}


@every
@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_equals_the_literal_twin(attributor: Attributor, name: str, shared: bool) -> None:
    """To 1e-12 in float64, with two baselines, shared by the samples or each its own."""
    model, x, x0 = models.MODELS[name](), (random(4, 3),), (random(2, 1 if shared else 4, 3, seed=1),)
    found = attribute(attributor, model, x, x0)
    assert found[0].shape == (4, 2, 3)
    np.testing.assert_allclose(found[0], twin(attributor, model, x, per_sample(x0, 4))[0], rtol=1e-12, atol=1e-12)


@every
def test_equals_the_literal_twin_of_images_and_of_two_inputs(attributor: Attributor) -> None:
    """Features of any shape, and several inputs that act on each other."""
    for model, shapes in ((models.conv(), [(1, 6, 6)]), (models.TwoInputs(), [(3,), (2, 2)])):
        x, x0 = tuple(random(2, *s, seed=i) for i, s in enumerate(shapes)), tuple(random(1, 2, *s, seed=9) for s in shapes)
        for found, expected in zip(attribute(attributor, model, x, x0), twin(attributor, model, x, per_sample(x0, 2)), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("attributor", [a for a in FAMILY if a.baselines], ids=lambda a: a.quadrature.name)
@pytest.mark.parametrize("name", models.MODELS)
def test_nothing_on_the_baseline(attributor: Attributor, name: str) -> None:
    """x = x0 has no path: exactly 0."""
    x = random(3, 3)
    assert not attribute(attributor, models.MODELS[name](), (x,), (x[None],))[0].any()


@pytest.mark.parametrize("name", models.MODELS)
def test_completeness(name: str) -> None:
    """An attributor that claims it: the sum over features is f(x) - f(x0), to rounding where the rule is exact, else nearly."""
    assert {a.complete for a in FAMILY} == {True, False}
    model, x, x0 = models.MODELS[name](), random(4, 3), random(1, 1, 3, seed=1)
    with torch.no_grad():
        rise = (model(torch.from_numpy(x)) - model(torch.from_numpy(x0[0]))).numpy()
    steps = 400 if name == "relu" else 32
    for kind in ("midpoint", "gauss_legendre", "trapezoid"):
        total = attribute(PathIntegral(rule(kind, steps)), model, (x,), (x0,))[0].sum(-1)
        exact = name in ("linear", "quadratic") or (name == "gelu" and kind == "gauss_legendre")
        np.testing.assert_allclose(total, rise, rtol=0, atol=1e-12 if exact else 5e-3)


def test_closed_forms() -> None:
    """Linear: w (x - x0). Quadratic: (x - x0) * Q (x + x0) / 2. A ReLU unit: w (x - x0) times the part of the path where it fires."""
    x, x0, ig = random(5, 3), random(1, 1, 3, seed=1), PathIntegral(rule("midpoint", 1))
    start, model = x0[0], models.linear()
    W = model.weight.detach().numpy()
    np.testing.assert_allclose(attribute(ig, model, (x,), (x0,))[0], W * (x - start)[:, None], rtol=1e-12, atol=1e-14)
    model = models.Quadratic()
    expected = (x - start)[:, None] * np.einsum("kij,nj->nki", model.Q.detach().numpy(), x + start) / 2
    np.testing.assert_allclose(attribute(ig, model, (x,), (x0,))[0], expected, rtol=1e-12, atol=1e-14)
    w = np.array([1.0, -2, 0.5])
    unit = models.Function(lambda x: torch.relu(x @ torch.from_numpy(w))[:, None].expand(-1, 2))
    low, high = start @ w, x @ w
    fires = np.clip(np.where(high > low, 1 - np.clip(-low / (high - low), 0, 1), np.clip(low / (low - high), 0, 1)), 0, 1)
    fine = attribute(PathIntegral(rule("midpoint", 4000)), unit, (x,), (x0,), size=4000)[0][:, 0]
    np.testing.assert_allclose(fine, w * (x - start) * fires[:, None], atol=2e-3)


@every
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_batching_changes_nothing_but_rounding(attributor: Attributor, size: int) -> None:
    """Path points per forward pass, samples per batch and blocks of baselines only reorder the sum."""
    model, x, x0 = models.mlp(torch.nn.GELU), random(6, 3), random(3, 6, 3, seed=1)
    whole = attribute(attributor, model, (x,), (x0,))[0]
    np.testing.assert_allclose(attribute(attributor, model, (x,), (x0,), size=size)[0], whole, rtol=1e-12, atol=1e-14)
    rows = [attribute(attributor, model, (x[n : n + 1],), (x0[:, n : n + 1],), size=size)[0] for n in range(6)]
    np.testing.assert_allclose(np.concatenate(rows), whole, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(attribute(attributor, model, (x,), (x0,), size=size, blocks=2)[0], whole, rtol=1e-12, atol=1e-14)


def test_watch_sees_every_row() -> None:
    """Progress counts rows of forward passes: samples x baselines x nodes."""
    seen: list[int] = []
    x, x0 = torch.zeros(4, 3).double(), torch.zeros(2, 1, 3).double()
    PathIntegral(rule("midpoint", 5)).attribute(Model(models.linear()), (x,), (x0,), [0], share=0.5, size=3, watch=seen.append)
    assert sum(seen) == 4 * 2 * 5
    assert max(seen) == 3 * 4


def test_names_of_results() -> None:
    """The literature's names where there are any."""
    assert [PathIntegral().label(name) for name in ("correlation", "autocorrelation", "mean", "std")] == [
        "igc",
        "igac",
        "ig_mean",
        "ig_std",
    ]
    assert Gradients().label("mean") == "gradient_mean"
