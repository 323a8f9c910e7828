"""Adaptive Integrated Gradients: its literal twin, closed forms, the tolerance, its price, and what happens where it
fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import igc_dist
from igc_dist.attributors import AdaptiveIG, PathIntegral
from igc_dist.attributors.adaptive import KINDS
from igc_dist.model import Model
from igc_dist.paths import rule
from igc_dist.records import ConfigError
from tests import models, problems
from tests.oracles import attributions as oracle


class Found:
    """What the attributor gives, for x (n, *P) and x0 (b, n or 1, *P), and what it notes."""

    def __init__(
        self,
        attributor: AdaptiveIG,
        model: nn.Module,
        x: Any,
        x0: Any,
        outputs: tuple[int, ...] = (0, 1),
        size: int = 64,
    ) -> None:
        xs, x0s = (tuple(map(torch.as_tensor, v if isinstance(v, tuple) else (v,))) for v in (x, x0))
        self.rows: list[int] = []
        values = attributor.attribute(
            Model(model),
            xs,
            x0s,
            list(outputs),
            share=1 / len(x0s[0]),
            size=size,
            watch=self.rows.append,
            note=self.note,
        )
        self.values = tuple(value.numpy() for value in values)

    def note(self, failed: np.ndarray, evaluations: np.ndarray) -> None:
        self.failed, self.evaluations = failed, evaluations


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def of_rows(f: Any) -> nn.Module:
    """A model of two outputs, f and -2 f."""
    return models.Function(lambda x: f(x)[:, None] * x.new_tensor([1.0, -2.0]))


@pytest.mark.parametrize(
    ("kind", "tol", "most"),
    [("smooth", 1e-2, 200), ("piecewise", 1e-2, 300), ("piecewise", 1e-6, 42), ("smooth", 1e-10, 50)],
)
def test_equals_the_literal_twin_also_where_it_fails(kind: str, tol: float, most: int) -> None:
    """Values, failures and gradients used, of each sample and output, with two baselines for each sample; under any
    budget."""
    attributor = AdaptiveIG(tol=tol, kind=kind, max_evaluations=most)
    nested, n_start = KINDS[kind]
    for name in ("relu", "gelu"):
        model, x, x0 = models.MODELS[name](), 3 * random(4, 3), random(2, 4, 3, seed=1)
        starts = [[(x0[b, k],) for b in range(2)] for k in range(4)]
        weights = nested.fine.nodes.tolist(), nested.fine.weights.tolist(), nested.coarse.tolist()
        values, failed, evaluations = oracle.adaptive(model, (x,), starts, [0, 1], weights, n_start, (tol, 1e-6), most)
        found = Found(attributor, model, x, x0)
        np.testing.assert_allclose(found.values[0], values[0], rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(found.failed, failed)
        np.testing.assert_array_equal(found.evaluations, evaluations)
        assert sum(found.rows) <= 8 * most
        if most < 200 and name == "relu":
            assert failed.any()


def test_polynomials_and_exp() -> None:
    """Degree 22 of the gradient in one segment, to rounding; ``exp(w x)`` by ``w_i d_i (e^s - e^s0) / (s - s0)``, to
    1e-9."""
    x, x0, smooth = random(5, 3), random(1, 1, 3, seed=1), AdaptiveIG(kind="smooth")
    found = Found(AdaptiveIG(tol=1e3, kind="smooth"), of_rows(lambda x: (x**23).sum(1)), x, x0)
    expected = x**23 - x0[0] ** 23
    np.testing.assert_allclose(found.values[0][:, 0], expected, rtol=1e-11, atol=1e-13 * abs(expected).max())
    np.testing.assert_array_equal(found.evaluations, 15)
    w = np.array([1.0, -2, 0.5])
    found = Found(smooth, of_rows(lambda x: torch.exp(x @ torch.from_numpy(w))), x, x0)
    ends, start = x @ w, x0[0] @ w
    expected = w * (x - x0[0]) * ((np.exp(ends) - np.exp(start)) / (ends - start))[:, None]
    np.testing.assert_allclose(found.values[0], expected[:, None] * np.array([1, -2])[:, None], rtol=1e-9)
    assert not found.failed.any()


def fires(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The part of the way from low to high where a number is positive."""
    return np.clip(np.maximum(low, high) / abs(high - low), 0, 1)


@pytest.mark.parametrize("tol", [1e-1, 1e-3, 1e-6])
def test_kinks_at_known_places(tol: float) -> None:
    """Three ReLU units: the sum of ``w v (x - x0)`` times the part of the path where each fires."""
    W, v = random(3, 4, seed=2), np.array([1.0, 2, -0.5])
    x, x0 = random(20, 4), random(1, 1, 4, seed=1)
    model = of_rows(lambda x: torch.relu(x @ torch.from_numpy(W).T) @ torch.from_numpy(v))
    found = Found(AdaptiveIG(tol=tol, atol=1e-12, kind="piecewise", max_evaluations=2000), model, x, x0)
    part = fires(np.repeat(x0[0] @ W.T, 20, 0), x @ W.T)
    expected = np.einsum("u,ui,nu,ni->ni", v, W, part, x - x0[0])
    rise = np.abs(expected.sum(1))
    assert not found.failed.any()
    assert (abs(found.values[0][:, 0].sum(1) - expected.sum(1)) <= tol * rise).all()
    # one of several kinks between two nodes may be seen by the sum alone, and features may then be wrong by more than
    # it
    assert np.quantile(abs(found.values[0][:, 0] - expected).sum(1) / (tol * rise), 0.8) <= 1
    assert found.evaluations.mean() > 12


def test_a_kink_on_a_cut_is_exact() -> None:
    """At t = 1/2, where the segments meet from the start."""
    found = Found(
        AdaptiveIG(kind="piecewise"),
        of_rows(lambda x: torch.relu(x).sum(1)),
        np.array([[1.0, 2, 3]]),
        np.array([[[-1.0, -2, -3]]]),
    )
    np.testing.assert_allclose(found.values[0][0], np.array([[1], [-2]]) * np.array([1.0, 2, 3]), rtol=0, atol=1e-15)
    np.testing.assert_array_equal(found.evaluations, 12)


def test_errors_that_cancel_in_the_sum_are_seen() -> None:
    """``relu(x1) - relu(-x2)`` on a path where both kinks meet: the sum is right anywhere, so only the estimate by
    feature sees it."""
    model = of_rows(lambda x: torch.relu(x[:, 0]) + torch.relu(x[:, 1]) + x[:, 2])
    x, x0 = np.array([[2.0, -2, 1.0]]), np.array([[[-1.0, 1, 0]]])  # 3 t - 1 and 1 - 3 t: their sum is |3 t - 1|
    even = of_rows(lambda x: torch.relu(x[:, 0]) - torch.relu(-x[:, 1]) + x[:, 2])  # relu(3 t - 1) - relu(3 t - 1)
    assert Found(AdaptiveIG(kind="piecewise"), model, x, x0).evaluations.min() > 12
    found = Found(AdaptiveIG(kind="piecewise", tol=1e-3), even, x, x0)
    np.testing.assert_allclose(found.values[0][0, 0], [2, -2, 1], rtol=0, atol=2e-3)
    assert found.evaluations.min() > 12


def test_tolerance_holds_and_is_cheap() -> None:
    """One kink: a fixed rule that takes three times the rows, with forward passes at the ends of segments counted, is
    less accurate."""
    x, x0, w = random(30, 3), random(1, 1, 3, seed=1), np.array([1.0, -2, 0.5])
    model = of_rows(lambda x: torch.relu(x @ torch.from_numpy(w)))
    part = fires(np.repeat(x0[0] @ w, 30, 0), x @ w)
    used = part > 0  # elsewhere nothing rises
    expected = w * (x - x0[0]) * part[:, None]

    def error(values: np.ndarray) -> float:
        return float((abs(values[:, 0] - expected).sum(1)[used] / abs(expected.sum(1))[used]).max())

    found = Found(AdaptiveIG(kind="piecewise"), model, x, x0)
    assert not found.failed.any()
    fixed, inputs = (
        PathIntegral(rule("midpoint", 3 * sum(found.rows) // 30)),
        (torch.from_numpy(x), torch.from_numpy(x0)),
    )
    values = fixed.attribute(Model(model), inputs[:1], inputs[1:], [0], share=1.0, size=64)[0].numpy()
    assert error(values) > error(found.values[0])
    residual = abs(found.values[0][:, 0].sum(1) - expected.sum(1))
    assert (residual <= 1e-3 * abs(expected.sum(1)) + 1e-12).all()


def test_smooth_networks_need_one_segment() -> None:
    """A GELU network: 15 gradients, and what 200 Gauss nodes give to 1e-6 of the size."""
    model, x, x0 = models.mlp(nn.GELU), random(8, 3), random(1, 1, 3, seed=1)
    found = Found(AdaptiveIG(kind="smooth"), model, x, x0)
    fine = PathIntegral(rule("gauss_legendre", 200)).attribute(
        Model(model), (torch.from_numpy(x),), (torch.from_numpy(x0),), [0, 1], share=1.0, size=200
    )
    np.testing.assert_allclose(found.values[0], fine[0].numpy(), rtol=0, atol=1e-6 * abs(fine[0].numpy()).max())
    np.testing.assert_array_equal(found.evaluations, 15)


def steep(x: Tensor) -> Tensor:
    return torch.sigmoid(1e7 * (x[:, 0] - 0.3)) + x.sum(1)


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_converge_fails_alone(kind: str) -> None:
    """Only samples 1 and 4 cross a step: they are marked, for their budget, and the others are exact and cost what they
    cost alone."""
    x, x0 = 0.2 * abs(random(6, 2)).clip(0, 1), np.zeros((2, 1, 2))
    x[[1, 4], 0] = 0.9
    for most in (60, 300):
        found = Found(AdaptiveIG(kind=kind, max_evaluations=most), of_rows(steep), x, x0)
        np.testing.assert_array_equal(found.failed.any(1), [False, True, False, False, True, False])
        others = ~found.failed.any(1)
        np.testing.assert_allclose(found.values[0][others, 0], x[others], rtol=1e-12)
        assert (found.evaluations[others] <= 2 * 15).all()
        assert (found.evaluations[~others] > 2 * 15).all()
        assert (found.evaluations <= 2 * most).all()
        assert sum(found.rows) <= 6 * 2 * most


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_end_at_once_and_stay_where_they_are(bad: float) -> None:
    """In a gradient on the way, at the input, or at the baseline: the sample fails with its first segment, others are
    as they are alone."""
    x, x0 = random(4, 3), random(1, 4, 3, seed=1)
    plain = models.mlp(nn.GELU)

    def broken(x: Tensor) -> Tensor:
        return (
            plain(x) + torch.where(x[:, :1] > 7, torch.full_like(x[:, :1], bad), torch.zeros_like(x[:, :1])) * x[:, 1:2]
        )

    whole = Found(AdaptiveIG(kind="smooth"), plain, x, x0)
    for where in ("input", "baseline", "both"):
        x_bad, x0_bad = x.copy(), x0.copy()
        x_bad[2, 0] = 9 if where != "baseline" else 0
        x0_bad[0, 2, 0] = 9 if where != "input" else 0
        found = Found(AdaptiveIG(kind="smooth"), models.Function(broken), x_bad, x0_bad)
        np.testing.assert_array_equal(found.failed.all(1), [False, False, True, False])
        np.testing.assert_array_equal(found.evaluations, 15)
        rest = [0, 1, 3]
        np.testing.assert_allclose(found.values[0][rest], whole.values[0][rest], rtol=1e-12, atol=1e-14)
        assert not np.isfinite(found.values[0][2]).all()


def test_infinity_at_a_node_that_the_coarse_rule_lacks_ends_at_once() -> None:
    """The error is infinite, and so is what its rounding is measured by: neither is refined, nor taken for rounding."""
    at = float(KINDS["smooth"][0].fine.nodes[0])

    def spike(x: Tensor) -> Tensor:
        return x.sum(1) + torch.where(abs(x[:, 0] - at) < 1e-6, torch.inf, 0.0) * x[:, 1]

    found = Found(AdaptiveIG(kind="smooth"), of_rows(spike), np.array([[1.0, 1.0], [0.5, 1.0]]), np.zeros((1, 1, 2)))
    np.testing.assert_array_equal(found.failed, [[True, True], [False, False]])
    np.testing.assert_array_equal(found.evaluations, 15)


def test_outputs_do_not_depend_on_each_other() -> None:
    """An easy output beside a hard one has its own segments: its values and its gradients are those that it has
    alone."""
    model = models.Function(lambda x: torch.stack((x.sum(1), torch.relu(x[:, 0] + 0.1), torch.relu(x[:, 1] - 0.2)), 1))
    x, x0 = random(5, 2), random(1, 1, 2, seed=1)
    tight = AdaptiveIG(kind="piecewise", tol=1e-5, max_evaluations=5000)
    together = Found(tight, model, x, x0, (2, 0, 1))
    assert len(np.unique(together.evaluations)) > 1
    for column, k in enumerate((2, 0, 1)):
        alone = Found(tight, model, x, x0, (k,))
        np.testing.assert_allclose(alone.values[0][:, 0], together.values[0][:, column], rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(alone.evaluations[:, 0], together.evaluations[:, column])


def test_float32_is_not_refined_below_its_rounding() -> None:
    """A tolerance of 0 beside an absolute one below rounding: a linear and a smooth model end with their first
    segments."""
    for model in (models.linear().float(), models.mlp(nn.GELU).float()):
        x, x0 = random(6, 3).astype(np.float32), random(1, 1, 3, seed=1).astype(np.float32)
        found = Found(AdaptiveIG(tol=0.0, atol=1e-12, kind="smooth"), model, x, x0)
        assert found.values[0].dtype == np.float32
        np.testing.assert_array_equal(found.evaluations, 15)
        assert not found.failed.any()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"tol": -1e-3}, r"tol=-0.001: give a number of at least 0"),
        ({"tol": float("nan")}, "tol=nan"),
        ({"atol": float("inf")}, "atol=inf"),
        ({"tol": 0.0, "atol": 0.0}, "both 0"),
        ({"max_evaluations": 16}, r"max_evaluations=16: give an integer of at least 17"),
        ({"kind": "relu"}, r"kind='relu': choose one of auto, smooth, piecewise"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        AdaptiveIG(**settings)


def test_undecided_kinds_are_not_walked() -> None:
    with pytest.raises(TypeError, match="give kind, or call suited"):
        Found(AdaptiveIG(), models.linear(), random(1, 3), random(1, 1, 3))
    assert AdaptiveIG().suited(lambda: True).kind == "piecewise"
    assert AdaptiveIG().suited(lambda: False) == AdaptiveIG(kind="smooth")
    kept = AdaptiveIG(kind="smooth")
    assert kept.suited(lambda: True) is kept


def test_a_run_keeps_what_failed() -> None:
    """In the order of the data, per output; counts leave out what has no target; IGC of it is that of a fine rule."""
    model = models.Function(lambda x: torch.stack((steep(x), torch.tanh(x[:, 0] - x[:, 1])), 1))
    x = torch.from_numpy(0.25 * random(13, 2).clip(-1, 1))
    x[[1, 4, 12], 0] = 0.9
    y = model(x) + torch.from_numpy(0.1 * random(13, 2, seed=3))
    y[4, 0] = torch.nan
    attributor = AdaptiveIG(max_evaluations=60)
    tree = igc_dist.attribute(
        model,
        (x, y),
        attributor=attributor,
        statistics=["correlation"],
        samples=True,
        n_folds=3,
        micro_batch=7,
        threads=1,
    )
    samples = tree["samples"]
    assert (samples["failed"].dtype, samples["failed"].dims) == (np.uint8, ("sample", "output"))
    np.testing.assert_array_equal(samples["failed"][:, 0], np.isin(np.arange(13), [1, 4, 12]))
    np.testing.assert_array_equal(samples["failed"][:, 1], 0)
    np.testing.assert_array_equal(tree["failed"], [2, 0])
    np.testing.assert_array_equal(samples["evaluations"][:, 1], 15)
    assert tree["evaluations"].values[1] == 13 * 15
    np.testing.assert_array_equal(
        tree["evaluations"].values[0], samples["evaluations"].values[:, 0].sum() - samples["evaluations"].values[4, 0]
    )
    fine = igc_dist.attribute(model, (x, y), quadrature="gauss_legendre", n_steps=20, n_folds=3, threads=1)
    np.testing.assert_allclose(tree["x/igc"][1], fine["x/igc"][1], rtol=1e-9)
    assert tree.attrs["provenance"]["rule"] == "adaptive, gauss_kronrod-15, tol 0.001, atol 1e-06"


def test_runs_in_blocks_of_baselines_and_with_categories_and_latents() -> None:
    """Blocks of baselines change nothing; a final layer is not cut off, as tolerances are of outputs; categories as by
    a fine rule."""
    model = models.mlp(nn.ReLU)
    x, y = models.data(model)
    own = {"attributor": AdaptiveIG(tol=1e-2), "statistics": ["correlation"], "n_folds": 3, "threads": 1}
    one, two = (igc_dist.attribute(model, (x, y), baseline=4, baseline_block=block, **own) for block in (None, 3))
    np.testing.assert_allclose(two["x/igc"], one["x/igc"], rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(two["evaluations"], one["evaluations"])
    assert one["evaluations"].values.min() > 12 * 4 * 12
    whole, cut = (
        igc_dist.attribute(problems.wide(), problems.Wide(), final_layer=layer, **own) for layer in (None, "layer")
    )
    np.testing.assert_allclose(cut["x/igc"], whole["x/igc"], rtol=1e-10, atol=1e-12)
    assert cut.attrs["cost"] == whole.attrs["cost"]
    assert cut.attrs["provenance"]["rule"] == whole.attrs["provenance"]["rule"]
    lookup = models.Lookup()
    ids = torch.stack((torch.arange(9) % 5, torch.arange(9) * 3 % 4), 1)
    data = (torch.from_numpy(random(9, 3)), ids), torch.from_numpy(random(9, 2, seed=1))
    kept = {"categories": 5, "baseline": 2, "n_folds": 3, "threads": 1}
    exact = igc_dist.attribute(lookup, data, method="ig", quadrature="gauss_legendre", n_steps=40, **kept)
    found = igc_dist.attribute(lookup, data, method="ig_adaptive", **kept)
    for name in ("x", "x1"):
        np.testing.assert_allclose(
            found[f"samples/{name}/attribution"], exact[f"samples/{name}/attribution"], rtol=0, atol=1e-4
        )
    assert set(np.unique(found["samples/evaluations"])) <= {30, 60, 90}
