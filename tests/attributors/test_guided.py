"""Guided IG: the published loop, one sample at a time, against all samples at once with one sort a step."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import igc_dist
from igc_dist import baselines, config, seeds
from igc_dist.attributors import GuidedIG, Step, Task
from igc_dist.model import Model
from igc_dist.records import ConfigError, Price
from tests import models
from tests.laws.test_attributors import attribute, indices, per_sample, random
from tests.oracles import attributions, statistics
from tests.oracles.guided import guided_ig

KINDS = {GuidedIG}
PRESETS = {"guided_ig", "guided_igc"}
SETTINGS = [(5, 0.25, 0.02), (6, 0.7, 0.3), (5, 1e-9, 1.0), (3, 1.0, 0.1), (4, 0.3, 0.0), (1, 0.25, 0.02)]
settings = pytest.mark.parametrize("given", SETTINGS, ids=str)


def steps_of(
    attributor: GuidedIG, model: nn.Module, x: np.ndarray, x0: np.ndarray, size: int = 64, share: float = 1.0
) -> list[Step]:
    """The steps of the walks from one baseline, with their ends."""
    tensors = (torch.from_numpy(x),), (torch.from_numpy(x0),)
    return list(attributor.steps(Task(Model(model), *tensors, [0, 1], share=share, size=size), ends=True))


def rise(model: nn.Module, x: np.ndarray, x0: np.ndarray) -> np.ndarray:
    """f(x) - f(x0), (n, J)."""
    with torch.no_grad():
        return (model(torch.from_numpy(x)) - model(torch.from_numpy(x0))).numpy()


# -- the literal loop --------------------------------------------------------------------------------------------------


@settings
@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_equals_the_literal_loop(given: tuple[int, float, float], name: str, shared: bool) -> None:
    model, x, x0 = models.MODELS[name](), (random(3, 3),), (random(2, 1 if shared else 3, 3, seed=1),)
    found = attribute(GuidedIG(*given), model, x, x0)[0]
    assert found.shape == (3, 2, 3)
    np.testing.assert_allclose(found, guided_ig(model, x, per_sample(x0, 3), [0, 1], *given)[0], rtol=1e-12, atol=1e-12)


@settings
def test_equals_the_literal_loop_over_many_features(given: tuple[int, float, float]) -> None:
    """Many parts, some features without a way to go, and some gradients of 0 or of equal magnitude, which go
    together."""
    rng = np.random.default_rng(0)
    x, x0 = random(3, 13), random(2, 3, 13, seed=1)
    x0[:, :, [2, 5]] = x[:, [2, 5]]
    x0[0, 1] = x[1]
    x0[0, 1, 4] += 1
    weights = torch.from_numpy(rng.choice([-2.0, -1, 0, 1, 2], (2, 13)))
    for model in (
        models.mlp(nn.GELU, 13),
        models.Function(lambda x: torch.tanh(x @ weights.T / 4)),
        models.Function(lambda x: x @ weights.T),
    ):
        found = attribute(GuidedIG(*given), model, (x,), (x0,))[0]
        np.testing.assert_allclose(
            found, guided_ig(model, (x,), per_sample((x0,), 3), [0, 1], *given)[0], rtol=1e-12, atol=1e-12
        )
        assert (found[:, :, [2, 5]] == 0).all()


@pytest.mark.parametrize("given", [(5, 0.25, 0.02), (6, 0.1, 1.0)], ids=str)
def test_equals_the_literal_loop_of_images_and_of_two_inputs(given: tuple[int, float, float]) -> None:
    """Features of any shape; those of several inputs are ranked together."""
    for model, shapes in ((models.conv(), [(1, 6, 6)]), (models.TwoInputs(), [(3,), (2, 2)])):
        x, x0 = (
            tuple(random(2, *s, seed=i) for i, s in enumerate(shapes)),
            tuple(random(2, 2, *s, seed=9) for s in shapes),
        )
        expected = guided_ig(model, x, per_sample(x0, 2), [0, 1], *given)
        for found, one in zip(attribute(GuidedIG(*given), model, x, x0), expected, strict=True):
            np.testing.assert_allclose(found, one, rtol=1e-12, atol=1e-12)


def test_literal_loop_of_steps_that_parts_fill_exactly() -> None:
    """Where ways are equal, each step ends with a part, to rounding: what is left by rounding is no feature to be
    moved."""
    x, x0 = np.full((2, 10), float(np.float32(0.7))), np.full((1, 1, 10), float(np.float32(0.1)))
    model = models.mlp(nn.GELU, 10)
    for given in ((10, 0.0001, 1.0), (5, 0.25, 1.0), (15, 0.25, 1.0), (10, 0.5, 0.2)):
        found = attribute(GuidedIG(*given), model, (x,), (x0,))[0]
        np.testing.assert_allclose(
            found, guided_ig(model, (x,), per_sample((x0,), 2), [0, 1], *given)[0], rtol=1e-12, atol=1e-12
        )


# -- closed forms ------------------------------------------------------------------------------------------------------


def test_acceptance_case_74() -> None:
    """F = 2 x0 + x1: what each gives, whatever the path."""
    model, x = models.Function(lambda x: (2 * x[:, 0] + x[:, 1])[:, None].expand(-1, 2)), np.array([[10.0, 5.0]])
    for start, expected in (([-1.0, -3.0], [22.0, 8.0]), ([0.0, 0.0], [20.0, 5.0])):
        found = attribute(GuidedIG(10, 0.1, 0.5), model, (x,), (np.array([[start]]),))[0]
        np.testing.assert_allclose(found[0], [expected] * 2, rtol=1e-14)


@pytest.mark.parametrize("name", models.MODELS)
def test_bound_to_the_straight_path_it_is_integrated_gradients_by_the_left_rule(name: str) -> None:
    """With max_dist 0, and with all features as one part."""
    model, x, x0, n = models.MODELS[name](), (random(3, 3),), (random(1, 3, 3, seed=1),), 6
    left = attributions.integrated_gradients(
        model, x, per_sample(x0, 3), [0, 1], [k / n for k in range(n)], [1 / n] * n
    )[0]
    for given in ((n, 0.25, 0.0), (n, 1.0, 1.0), (n, 1.0, 0.02)):
        np.testing.assert_allclose(attribute(GuidedIG(*given), model, x, x0)[0], left, rtol=1e-12, atol=1e-13)
    if name not in ("linear",):
        assert abs(attribute(GuidedIG(n, 0.25, 1.0), model, x, x0)[0] - left).max() > 1e-3


def test_product_in_free_order() -> None:
    """f = x1 x2 from (1, 2) to (3, 3): x2 goes first, at the gradient x1 = 1, then x1 at x2 = 3. Of three steps each
    ends on a corner."""
    model = models.Function(lambda x: (x[:, 0] * x[:, 1])[:, None].expand(-1, 2))
    x, x0 = np.array([[3.0, 3.0]]), np.array([[[1.0, 2.0]]])
    for n_steps in (3, 30):
        np.testing.assert_allclose(
            attribute(GuidedIG(n_steps, 0.25, 1.0), model, (x,), (x0,))[0][0], [[6.0, 1.0]] * 2, rtol=1e-12
        )
    # of four, the second takes a quarter for x2, and half for x1 while x2 is 2.75
    np.testing.assert_allclose(
        attribute(GuidedIG(4, 0.25, 1.0), model, (x,), (x0,))[0][0], [[0.5 * 2.75 + 1.5 * 3, 1.0]] * 2, rtol=1e-12
    )
    # a quarter ahead at most: x2 by 1/2 + 1/4 of its way, then x1 the rest; 1/4 behind: by the same the other way
    found = attribute(GuidedIG(2, 0.25, 0.25), model, (x,), (x0,))[0][0]
    first = np.array([0.75, 0.75])  # ||.||_1 = 1.5: x2 may go 0.75, so x1 goes 0.75
    then = np.array([2 - first[0], 1 - first[1]]) * [2 + first[1], 1 + first[0]]
    np.testing.assert_allclose(found, [first * [2, 1] + then] * 2, rtol=1e-12)


@pytest.mark.parametrize("name", models.MODELS)
def test_nothing_on_the_baseline(name: str) -> None:
    x = random(3, 3)
    assert (attribute(GuidedIG(4), models.MODELS[name](), (x,), (x[None],))[0] == 0).all()


# -- completeness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", models.MODELS)
def test_complete_to_first_order(name: str) -> None:
    """The error of S steps is C / S: with 8 times the steps an eighth, or so. Rounding for a linear model."""
    model, x, x0 = models.MODELS[name](), random(6, 3), random(1, 1, 3, seed=1)
    for max_dist in (0.02, 1.0):
        totals = [attribute(GuidedIG(n_steps, 0.25, max_dist), model, (x,), (x0,))[0].sum(-1) for n_steps in (8, 64)]
        few, many = (np.sqrt(((total - rise(model, x, x0[0])) ** 2).mean()) for total in totals)
        assert (
            few < 1e-14
            if name == "linear"
            else few / (16 if name == "relu" else 10) < many < few / (3 if name == "relu" else 6)
        )


def test_along_a_kink() -> None:
    """f = x1 + 2 x2 + relu(x1 - x2) from 0 to (1, 1): each step crosses the kink, from a gradient that is too small. 1
    of 3 is missing."""
    model = models.Function(lambda x: (x[:, 0] + 2 * x[:, 1] + torch.relu(x[:, 0] - x[:, 1]))[:, None].expand(-1, 2))
    for n_steps in (2, 40):
        found = attribute(GuidedIG(n_steps, 0.25, 1.0), model, (np.ones((1, 2)),), (np.zeros((1, 1, 2)),))[0]
        np.testing.assert_allclose(found[0], np.ones((2, 2)), rtol=1e-12)


def test_of_a_model_that_normalises_its_input() -> None:
    """Gradients are to what is moved: f(x) = g((x - m) / s) is as complete as g, and of a linear g it is W (x - x0) /
    s."""
    mean, std = torch.from_numpy(random(3, seed=5)), torch.tensor([0.2, 5.0, 0.05], dtype=torch.float64)
    x, x0 = random(4, 3), random(1, 1, 3, seed=1)
    for name in ("linear", "gelu"):
        inner = models.MODELS[name]()
        model = models.Function(lambda x, inner=inner: inner((x - mean) / std))
        found = attribute(GuidedIG(80, 0.25, 0.02), model, (x,), (x0,))[0]
        np.testing.assert_allclose(
            found.sum(-1), rise(model, x, x0[0]), rtol=0, atol=1e-11 if name == "linear" else 0.2
        )
        if name == "linear":
            np.testing.assert_allclose(found, (inner.weight.detach() / std).numpy() * (x - x0[0])[:, None], rtol=1e-11)


@pytest.mark.parametrize("size", [1, 2, 64])
def test_steps_lead_from_the_baseline_to_the_input(size: int) -> None:
    """Moves sum to the share of x - x0; values are predictions, the first at x0, the last at x; rises sum to f(x) -
    f(x0)."""
    model, x, x0, n_steps = models.mlp(nn.GELU), random(4, 3), random(1, 4, 3, seed=1), 7
    attributor = GuidedIG(n_steps, 0.3, 0.2)
    steps = steps_of(attributor, model, x, x0, size, share=0.5)
    for j in (0, 1):
        *mine, end = [step for step in steps if step.output == j]
        assert len(mine) == n_steps
        assert end.gradients == end.moves == ()
        assert all(
            step.value.shape == (1, 4) and step.gradients[0].shape == step.moves[0].shape == (1, 4, 3) for step in mine
        )
        at = x0[0].copy()
        for step in mine:
            with torch.no_grad():
                np.testing.assert_allclose(step.value[0], model(torch.from_numpy(at))[:, j], rtol=1e-12, atol=1e-14)
            at += step.moves[0][0].numpy() / 0.5
        np.testing.assert_allclose(at, x, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(end.value[0], model(torch.from_numpy(x))[:, j].detach(), rtol=1e-14)
    rises = np.zeros((4, 2))
    for step, rose in attributor.rises(iter(steps)):
        rises[:, step.output] += rose.sum(0).numpy()
    np.testing.assert_allclose(rises, rise(model, x, x0[0]), rtol=1e-12, atol=1e-14)


# -- batches, cost, types ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 64])
def test_batching_changes_nothing_but_rounding(size: int) -> None:
    """Walks that go side by side, samples per batch and blocks of baselines; outputs in any order."""
    model, x, x0, attributor = models.mlp(nn.GELU), random(6, 3), random(3, 6, 3, seed=1), GuidedIG(6, 0.3, 0.2)
    whole = attribute(attributor, model, (x,), (x0,))[0]
    np.testing.assert_allclose(attribute(attributor, model, (x,), (x0,), size=size)[0], whole, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        attribute(attributor, model, (x,), (x0,), size=size, blocks=2)[0], whole, rtol=1e-12, atol=1e-14
    )
    alone = [
        attribute(attributor, model, (x[n : n + 1],), (x0[:, n : n + 1],), size, index=indices(6)[n : n + 1])[0]
        for n in range(6)
    ]
    np.testing.assert_allclose(np.concatenate(alone), whole, rtol=1e-12, atol=1e-14)
    inputs, starts = (torch.from_numpy(x),), (torch.from_numpy(x0),)
    (turned,) = attributor.attribute(Model(model), inputs, starts, [1, 0], share=1 / 3, size=size)
    np.testing.assert_allclose(turned.numpy()[:, ::-1], whole, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("size", [1, 4, 64])
def test_costs_what_it_says(size: int) -> None:
    """S forwards and S gradients for each sample, baseline and output, in passes of at most `size` points of each
    sample."""
    n, b, n_steps = 4, 3, 5
    model, seen = models.Counted(models.mlp(nn.GELU)), list[int]()
    x, x0, attributor = torch.from_numpy(random(n, 3)), torch.from_numpy(random(b, 1, 3)), GuidedIG(n_steps)
    attributor.attribute(Model(model), (x,), (x0,), [0, 1], share=1 / b, size=size, watch=seen.append)
    assert attributor.price([(3,)]) == Price(rows_per_output=n_steps, gradients_per_output=n_steps)
    assert attributor.points([(3,)]) == n_steps
    assert model.forwards == model.backwards == sum(seen) == n * b * 2 * n_steps
    assert model.calls == len(seen) == -(-b * 2 // size) * n_steps
    assert max(seen) <= size * n
    seen.clear()
    list(
        attributor.steps(
            Task(Model(model), (x,), (x0[:1],), [0, 1], share=1.0, size=size, watch=seen.append), ends=True
        )
    )
    assert sum(seen) == n * 2 * n_steps + n  # f(x) closes the walks of all outputs


def test_ways_are_relative() -> None:
    """Inputs in tiny or huge units have the same attributions; the published loop stops short where ways are below
    1e-9."""
    model, x, x0, attributor = models.mlp(nn.GELU, 10), random(3, 10), random(1, 3, 10, seed=1), GuidedIG(8, 0.25, 0.1)
    whole = attribute(attributor, model, (x,), (x0,))[0]
    for scale in (2.0**-40, 2.0**40):
        scaled = models.Function(lambda x, scale=scale: model(x / scale))
        np.testing.assert_allclose(
            attribute(attributor, scaled, (x * scale,), (x0 * scale,))[0], whole, rtol=1e-12, atol=1e-14
        )


def test_in_single_precision() -> None:
    """Places are kept in float64: the result is that of float64 to the rounding of gradients."""
    model, x, x0, attributor = (
        models.mlp(nn.GELU, 10),
        random(5, 10).astype(np.float32),
        random(1, 1, 10).astype(np.float32),
        GuidedIG(100),
    )
    whole = attribute(attributor, model, (x.astype(np.float64),), (x0.astype(np.float64),))[0]
    found = attribute(attributor, model.float(), (x,), (x0,))[0]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, whole, rtol=0, atol=2e-6)


@pytest.mark.parametrize("fraction", [1e-9, 0.25, 1.0])
def test_a_sample_that_is_not_finite_is_alone(fraction: float) -> None:
    """NaN in an input, NaN in a gradient on the way, infinity in one: none hangs, and other samples do not notice."""
    weight, given = torch.from_numpy(random(2, 4, seed=3)), (6, fraction, 0.3)
    model = models.Function(lambda x: torch.tanh(x @ weight.T) + torch.sqrt(0.5 - x[:, :1]) + torch.sqrt(x[:, 1:2]))
    x, x0 = abs(random(6, 4)), np.full((1, 6, 4), 0.2)
    x[:, 0] = 0.1
    x[0, 2], x[1, 0], x0[0, 2, 1] = np.nan, 0.9, 0
    found = attribute(GuidedIG(*given), model, (x,), (x0,))[0]
    assert not np.isfinite(found[:3].sum(-1)).any()
    np.testing.assert_allclose(
        found[3:], guided_ig(model, (x[3:],), per_sample((x0[:, 3:],), 3), [0, 1], *given)[0], rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_steps": 0}, r"method\.attributor\.n_steps=0: give an integer of at least 1"),
        ({"n_steps": True}, r"method\.attributor\.n_steps=True: give an integer"),
        ({"fraction": 0.0}, r"method\.attributor\.fraction=0\.0: give a number above 0, and at most 1"),
        ({"fraction": 1.01}, r"fraction=1\.01: give a number above 0"),
        ({"fraction": float("nan")}, r"fraction=nan: give a number above 0"),
        ({"max_dist": -0.1}, r"method\.attributor\.max_dist=-0\.1: give a number from 0 to 1"),
        ({"max_dist": 1.5}, r"max_dist=1\.5: give a number from 0 to 1"),
    ],
)
def test_bad_settings(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GuidedIG(**given)


# -- a whole run -------------------------------------------------------------------------------------------------------

N, SEED, SHORT = 9, 5, GuidedIG(4, 0.4, 0.1)
STARTS: dict[str, Any] = {
    "two shared": torch.tensor([[0.3, -0.2, 0.5], [-0.1, 0.4, 0.2]], dtype=torch.float64),
    "own": baselines.Resampled(2),
}


def starts(x: np.ndarray, kind: str) -> np.ndarray:
    """(N, B, P): the baselines of each sample, drawn at the documented address."""
    if kind == "two shared":
        return np.tile(STARTS[kind].numpy(), (N, 1, 1))
    return np.array(
        [x[seeds.generator(SEED, n, "baselines.resampled").choice(np.arange(N), 2, replace=False)] for n in range(N)]
    )


@cache
def run(name: str, kind: str, method: str) -> tuple[Any, nn.Module, np.ndarray, np.ndarray]:
    """A tree, and its model and data."""
    model = models.MODELS[name]()
    x, y = models.data(model, N)
    more: dict[str, Any] = (
        {"statistics": ["correlation", "autocorrelation", "moments"]} if method == "guided_ig" else {}
    )
    tree = igc_dist.attribute(
        model, (x, y), method=method, attributor=SHORT, baseline=STARTS[kind], n_folds=3, seed=SEED, **more
    )
    return tree, model, x.numpy(), y.numpy()


@pytest.mark.parametrize(
    ("name", "kind"), [("linear", "own"), ("quadratic", "two shared"), ("relu", "two shared"), ("gelu", "own")]
)
def test_runs_equal_the_oracles(name: str, kind: str) -> None:
    """Every sample, the statistics over samples, and the identity of the sum over features."""
    tree, model, x, y = run(name, kind, "guided_ig")
    listed = [[(row,) for row in of_n] for of_n in starts(x, kind)]
    (a,) = guided_ig(model, (x,), listed, [0, 1], SHORT.n_steps, SHORT.fraction, SHORT.max_dist)
    r, b = attributions.predictions(model, (x,), [0, 1]), attributions.baseline_predictions(model, listed, [0, 1])
    np.testing.assert_allclose(tree["samples/x/attribution"], a, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(tree["x/guided_igc"], statistics.igc(a, y, r), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(tree["x/guided_ig_autocorrelation"], statistics.igac(a, r), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(tree["x/guided_ig_mean"], statistics.attribution_mean(a), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(tree["x/guided_ig_std"], statistics.attribution_std(a), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(tree["correlation"], statistics.correlations(y, r), rtol=1e-12)
    total = tree["x/guided_igc"].values.sum(1)
    missing = statistics.igc((a.sum(-1) - (r - b))[..., None], y, r)[:, 0]
    np.testing.assert_allclose(tree["guided_igc_sum"], total, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(
        total, statistics.correlations(y, r) - statistics.rho0(y, r, b) + missing, rtol=0, atol=1e-12
    )
    np.testing.assert_allclose(tree["quadrature_error"], missing, rtol=0, atol=1e-12)


def test_presets() -> None:
    """One keeps samples, the other their correlation with the target; both have the defaults of the class."""
    tree, *_ = run("gelu", "own", "guided_igc")
    np.testing.assert_allclose(
        tree["x/guided_igc"], run("gelu", "own", "guided_ig")[0]["x/guided_igc"], rtol=0, atol=1e-15
    )
    assert "samples" not in tree.children
    for name, correlated in (("guided_ig", False), ("guided_igc", True)):
        preset = config.preset(name)
        assert config.build_attributor(preset.attributor, None) == GuidedIG()
        assert (list(preset.statistics), preset.samples) == (["correlation"] if correlated else [], not correlated)
