"""Left-IG and IDG: their literal twins, closed forms, nodes where the decision is, and what they cost."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import igc_dist
from igc_dist import baselines, config, seeds
from igc_dist.attributors import IDG, LeftIG, Task
from igc_dist.attributors.decision import Probed
from igc_dist.model import Model
from igc_dist.paths import rule
from igc_dist.records import ConfigError
from tests import models, problems
from tests.laws.test_attributors import attribute, per_sample, random
from tests.oracles import attributions as plain
from tests.oracles import decision as oracle
from tests.oracles import statistics

KINDS = {IDG, LeftIG}
PRESETS = {"idg", "left_ig"}
BOTH: list[Probed] = [LeftIG(7), LeftIG(6, threshold=0.4), IDG(7)]
both = pytest.mark.parametrize("attributor", BOTH, ids=["left_ig", "left_ig, less", "idg"])


def twin(
    attributor: Probed, model: nn.Module, x: tuple[np.ndarray, ...], x0: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, ...]:
    starts = per_sample(x0, len(x[0]))
    if isinstance(attributor, LeftIG):
        return oracle.left_ig(model, x, starts, [0, 1], attributor.n_steps, attributor.threshold)
    return oracle.idg(model, x, starts, [0, 1], attributor.n_steps)


def placed(attributor: Probed, f: Any) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for an output that is f(t) along the path."""
    values = torch.from_numpy(np.array([float(f(t)) for t in np.linspace(0, 1, attributor.n_steps)]))
    nodes, weights = attributor.placed(values[None, None])
    return nodes[0, 0].numpy(), weights[0, 0].numpy()


def along(f: Any) -> nn.Module:
    """A model of (t, 0) with the outputs f(t) and -f(t)."""
    return models.Function(lambda x: f(x[:, 0])[:, None] * x.new_tensor([1.0, -1.0]))


def over(attributor: Probed, f: Any) -> np.ndarray:
    """Sums over the features of both outputs of `along`, from t = 0 to 1."""
    return attribute(attributor, along(f), (np.array([[1.0, 0.0]]),), (np.zeros((1, 1, 2)),))[0][0].sum(-1)


@both
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("name", models.MODELS)
def test_equals_the_literal_twin(attributor: Probed, name: str, shared: bool) -> None:
    """Two baselines, shared by the samples or each its own."""
    model, x, x0 = models.MODELS[name](), random(4, 3), random(2, 1 if shared else 4, 3, seed=1)
    found = attribute(attributor, model, (x,), (x0,))[0]
    np.testing.assert_allclose(found, twin(attributor, model, (x,), (x0,))[0], rtol=1e-10, atol=1e-12)


@both
def test_equals_the_literal_twin_of_images_and_of_two_inputs(attributor: Probed) -> None:
    """The slope is over all features of all inputs."""
    for model, shapes in ((models.conv(), [(1, 6, 6)]), (models.TwoInputs(), [(3,), (2, 2)])):
        x, x0 = (
            tuple(random(2, *s, seed=i) for i, s in enumerate(shapes)),
            tuple(random(1, 2, *s, seed=9) for s in shapes),
        )
        for found, expected in zip(attribute(attributor, model, x, x0), twin(attributor, model, x, x0), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13)


@cache
def ran(preset: str, name: str, baseline: str) -> tuple[Any, nn.Module, np.ndarray, np.ndarray, np.ndarray]:
    """A run of a preset, with 7 steps and every statistic, and what went in."""
    model = models.MODELS[name]()
    x, y = models.data(model, 9)
    drawn = {
        "two shared": torch.tensor([[0.3, -0.2, 0.5], [-0.1, 0.4, 0.2]], dtype=torch.float64),
        "resampled": baselines.Resampled(2),
    }[baseline]
    tree = igc_dist.attribute(
        model, (x, y), method=preset, attributor={"left_ig": BOTH[0], "idg": BOTH[2]}[preset], baseline=drawn,
        n_folds=3, seed=5,
        statistics=["correlation", "autocorrelation", "moments"], samples=True, threads=1,
    )  # fmt: skip
    if baseline == "two shared":
        return tree, model, x.numpy(), y.numpy(), drawn[:, None].expand(2, 9, 3).numpy()
    picks = [seeds.generator(5, n, "baselines.resampled").choice(np.arange(9), 2, replace=False) for n in range(9)]
    return tree, model, x.numpy(), y.numpy(), np.array([x.numpy()[p] for p in picks]).transpose(1, 0, 2)


@pytest.mark.parametrize("preset", ["left_ig", "idg"])
@pytest.mark.parametrize(
    ("name", "baseline"), [(name, "two shared") for name in models.MODELS] + [("gelu", "resampled")]
)
def test_runs_equal_the_literal_twin(preset: str, name: str, baseline: str) -> None:
    """By sample and over the data set."""
    tree, model, x, y, x0 = ran(preset, name, baseline)
    (a,) = twin({"left_ig": BOTH[0], "idg": BOTH[2]}[preset], model, (x,), (x0,))
    r = plain.predictions(model, (x,), [0, 1])
    found = {
        "samples/x/attribution": a,
        f"x/{preset}_correlation": statistics.igc(a, y, r),
        f"x/{preset}_autocorrelation": statistics.igac(a, r),
        f"x/{preset}_mean": statistics.attribution_mean(a),
        f"x/{preset}_std": statistics.attribution_std(a),
    }
    for path, values in found.items():
        np.testing.assert_allclose(tree[path], values, rtol=1e-9, atol=1e-12, err_msg=path)
    assert np.isnan(tree["samples/delta"]).all(), "no sums are claimed"


def test_presets() -> None:
    """50 steps of their own, whatever rule the run has."""
    for preset, expected in (("left_ig", LeftIG(50, 0.9)), ("idg", IDG(50))):
        assert config.build_attributor(config.preset(preset).attributor, rule("midpoint", 4)) == expected


def test_left_ig_stops_where_the_output_saturates() -> None:
    """A ramp from 0.2 to 0.6: it has gone 9 / 10 at 0.56. Midpoints of [0, 0.56], and weights that sum to 0.56 and not
    to 1."""
    left = LeftIG(51)
    nodes, weights = placed(left, lambda t: np.clip((t - 0.2) / 0.4, 0, 1))
    np.testing.assert_allclose(nodes, 0.56 * (np.arange(51) + 0.5) / 51, rtol=1e-12)
    np.testing.assert_allclose(weights, 0.56 / 51, rtol=1e-12)
    ramp = lambda t: ((t - 0.2) / 0.4).clamp(0, 1)  # noqa: E731
    np.testing.assert_allclose(over(LeftIG(2001), ramp), [0.9, -0.9], rtol=1e-3)
    # it goes farther than where it ends, first the other way, and has a constant: 0.9 of 2, at t = 0.7
    bump = [lambda t, s=s: 40 + s * float(np.interp(t, [0, 0.25, 0.75, 1], [0, -1, 2.0, 0.5])) for s in (1, -3)]
    for f in bump:
        np.testing.assert_allclose(placed(LeftIG(9), f)[1].sum(), 0.25 + 0.5 * 2.8 / 3, rtol=1e-12)
    # nowhere to go: all of the path
    np.testing.assert_allclose(placed(left, lambda t: 3.0)[1].sum(), 1, rtol=1e-12)


@pytest.mark.parametrize("name", models.MODELS)
def test_left_ig_sums_to_what_the_output_has_risen_there(name: str) -> None:
    """f(gamma(a)) - f(x0), with a as the literal twin finds it; so does the prediction where the walk ends."""
    model, x, x0, left = models.MODELS[name](), random(4, 3), random(1, 1, 3, seed=1), LeftIG(400)
    total = attribute(left, model, (x,), (x0,))[0].sum(-1)
    steps = left.steps(
        Task(Model(model), (torch.from_numpy(x),), (torch.from_numpy(x0),), [0, 1], share=1.0, size=99), ends=True
    )
    last = {step.output: step.value[0].numpy() for step in steps if not step.gradients}
    for n in range(4):
        for j in (0, 1):
            a = oracle.saturated(oracle.probe(model, (x0[0, 0],), (x[n],), j, 400), 0.9)
            there = plain.output(model, (x0[0, 0] + a * (x[n] - x0[0, 0]),), j)
            np.testing.assert_allclose(last[j][n], there, rtol=1e-12)
            np.testing.assert_allclose(
                total[n, j], there - plain.output(model, (x0[0, 0],), j), rtol=0, atol=2e-3 if name == "relu" else 1e-5
            )


def test_linear_models() -> None:
    """Left-IG is 9 / 10 of w (x - x0); IDG is w (x - x0) times the rise, with nodes and weights of the midpoint
    rule."""
    x, x0, model = random(5, 3), random(1, 1, 3, seed=1), models.linear()
    ig = model.weight.detach().numpy() * (x - x0[0])[:, None]
    np.testing.assert_allclose(attribute(LeftIG(9), model, (x,), (x0,))[0], 0.9 * ig, rtol=1e-11)
    np.testing.assert_allclose(attribute(IDG(9), model, (x,), (x0,))[0], ig * ig.sum(-1, keepdims=True), rtol=1e-11)
    nodes, weights = placed(IDG(9), lambda t: 4 - 2 * t)
    np.testing.assert_allclose(nodes, (np.arange(9) + 0.5) / 9, rtol=1e-12)
    np.testing.assert_allclose(weights, 1 / 9, rtol=1e-12)


def test_idg_of_a_quadratic() -> None:
    """``f = x'Q x / 2`` from 0: F' = t x'Q x and g = t Q x, so a_i = x_i (Q x)_i x'Q x / 3, and the sum is that of
    F'**2."""
    model, x = models.Quadratic(), random(5, 3)
    qx = np.einsum("kij,nj->nki", model.Q.detach().numpy(), x)
    closed = x[:, None] * qx * np.einsum("ni,nki->nk", x, qx)[..., None] / 3
    for n, tolerance in ((50, 2e-3), (800, 2e-5)):
        found = attribute(IDG(n), model, (x,), (np.zeros((1, 1, 3)),))[0]
        np.testing.assert_allclose(found, closed, rtol=0, atol=tolerance * abs(closed).max())
        assert (found.sum(-1) > 0).all()


def test_nodes_crowd_where_the_decision_is() -> None:
    """At t = 0.82 to 0.84, with 50 steps: the original's nodes end at 0.082, and its weights sum to 0.10."""
    decision = lambda t: np.clip((t - 0.82) / 0.02, 0, 1)  # noqa: E731
    nodes, weights = placed(IDG(50), decision)
    inside = (nodes > 40 / 49) & (nodes < 42 / 49)  # the intervals of the probe that it touches
    assert 24 <= inside.sum() <= 27
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-14)
    np.testing.assert_allclose(weights[inside].sum(), 2 / 49, rtol=0.05)
    assert (np.diff(nodes) > 0).all()
    assert 0 < nodes[0] < 0.04
    assert 0.96 < nodes[-1] < 1
    assert (over(IDG(50), lambda t: ((t - 0.82) / 0.02).clamp(0, 1)) > [45, 45]).all()  # integral of F'**2: 50


def test_outputs_that_go_to_and_fro() -> None:
    """Any predictions of the probe, up and down: nodes and weights of the literal twin."""
    for values in random(20, 9, seed=4).tolist():
        nodes, weights = placed(IDG(9), lambda t: values[round(8 * t)])  # noqa: B023
        np.testing.assert_allclose((nodes, weights), oracle.equidistributed(values), rtol=1e-12)
        np.testing.assert_allclose(
            placed(LeftIG(9, 0.7), lambda t, values=values: values[round(8 * t)])[1].sum(),
            oracle.saturated(values, 0.7),
        )


@pytest.mark.parametrize("n_steps", [50, 200])
@pytest.mark.parametrize(("low", "high"), [(0.5, 1), (0, 0.1), (0.3, 0.35), (40 / 49, 41 / 49), (0.123, 0.456)])
def test_a_plateau_is_not_weighed_at_its_steep_end(low: float, high: float, n_steps: int) -> None:
    """Ramps between two plateaus: 1 / (high - low) up to a tenth, wherever the kinks fall."""
    found = over(IDG(n_steps), lambda t: ((t - low) / (high - low)).clamp(0, 1))
    np.testing.assert_allclose(found, 1 / (high - low), rtol=0.1)


def test_flat_outputs() -> None:
    """A probe that is flat gives equal nodes; attributions are 0, and no NaN."""
    nodes, weights = placed(IDG(6), lambda t: 7.0)
    np.testing.assert_allclose(nodes, (np.arange(6) + 0.5) / 6, rtol=1e-12)
    np.testing.assert_allclose(weights, 1 / 6, rtol=1e-12)
    for attributor in BOTH:
        np.testing.assert_array_equal(over(attributor, lambda t: 0 * t + 7), 0)
        np.testing.assert_array_equal(over(attributor, lambda t: torch.relu(t - 2)), 0)


@both
def test_nothing_on_the_baseline(attributor: Probed) -> None:
    """x = x0."""
    x = random(3, 3)
    for name in models.MODELS:
        np.testing.assert_array_equal(attribute(attributor, models.MODELS[name](), (x,), (x[None],))[0], 0)


@both
def test_a_prediction_that_is_no_number_stays_with_its_sample(attributor: Probed) -> None:
    """Half-way of one of two samples: NaN there, and only there; it does not end the walk."""
    model = models.Function(lambda x: (x[:, 0] + torch.where(x[:, 1] > 0.6, torch.nan, 0.0))[:, None].expand(-1, 2))
    found = attribute(attributor, model, (np.array([[1.0, 1], [1, 0.5]]),), (np.zeros((1, 1, 2)),))[0]
    assert np.isnan(found[0]).any(-1).all()
    np.testing.assert_allclose(
        found[1, 0, 0], attributor.threshold if isinstance(attributor, LeftIG) else 1, rtol=1e-12
    )


@both
@pytest.mark.parametrize("size", [1, 5])
def test_batching_changes_nothing_but_rounding(attributor: Probed, size: int) -> None:
    """Points of a forward pass, which may be of several outputs, samples of a batch and blocks of baselines."""
    model, x, x0 = models.mlp(nn.GELU), random(6, 3), random(3, 6, 3, seed=1)
    whole = attribute(attributor, model, (x,), (x0,))[0]
    np.testing.assert_allclose(
        attribute(attributor, model, (x,), (x0,), size=size, blocks=2)[0], whole, rtol=1e-10, atol=1e-13
    )
    alone = [attribute(attributor, model, (x[n : n + 1],), (x0[:, n : n + 1],), size=size)[0] for n in range(6)]
    np.testing.assert_allclose(np.concatenate(alone), whole, rtol=1e-10, atol=1e-13)


@both
@pytest.mark.parametrize("outputs", [[0], [1, 0, 1]])
def test_costs_what_it_says(attributor: Probed, outputs: list[int]) -> None:
    """K rows for the probe of all outputs, then K rows and K gradients for each: K F + J K (F + V)."""
    counted, k = models.Counted(models.TwoInputs()), attributor.n_steps
    x, x0 = (random(4, 3), random(4, 2, 2)), (random(2, 1, 3), random(2, 1, 2, 2))
    tensors = [tuple(torch.from_numpy(v) for v in some) for some in (x, x0)]
    seen: list[int] = []
    found = attributor.attribute(Model(counted), *tensors, outputs, share=0.5, size=5, watch=seen.append)
    assert [v.shape for v in found] == [(4, len(outputs), 3), (4, len(outputs), 2, 2)]
    price = attributor.price([(3,), (2, 2)])
    assert (price.rows, price.rows_per_output, price.gradients, price.gradients_per_output) == (k, k, 0, k)
    assert counted.forwards == sum(seen) == 4 * 2 * (k + len(outputs) * k)
    assert counted.backwards == 4 * 2 * len(outputs) * k
    assert max(seen) <= 5 * 4
    for some, whole in zip(found, attribute(attributor, counted, x, x0), strict=True):
        np.testing.assert_allclose(some, whole[:, outputs], rtol=1e-11, atol=1e-13)


def test_runs_count_it() -> None:
    """The plan says what is done."""
    tree = igc_dist.attribute(models.linear(), models.data(models.linear()), method="idg", threads=1)
    assert (tree.attrs["cost"]["forwards"], tree.attrs["cost"]["gradient_evaluations"]) == (
        12 * (50 + 2 * 50),
        12 * 2 * 50,
    )


@pytest.mark.parametrize("attributor", [LeftIG(5), IDG(5)], ids=["left_ig", "idg"])
def test_a_final_layer_changes_nothing(attributor: Probed) -> None:
    """Nodes are those of the output, not of the latents, so outputs are walked themselves."""
    given: dict[str, Any] = {"method": attributor.name, "attributor": attributor, "threads": 1, "n_folds": 2}
    found, plain_ = (
        igc_dist.attribute(problems.wide(), problems.Wide(), final_layer=layer, **given) for layer in ("layer", None)
    )
    np.testing.assert_allclose(found["samples/x/attribution"], plain_["samples/x/attribution"], rtol=1e-10, atol=1e-13)


def test_float32() -> None:
    """In the type of the inputs."""

    def half(value: np.ndarray) -> np.ndarray:
        return value.astype(np.float32)

    model, x, x0 = models.mlp(nn.GELU), random(4, 3), random(1, 1, 3, seed=1)
    for attributor in BOTH:
        found, whole = (
            attribute(attributor, models.mlp(nn.GELU).float(), (half(x),), (half(x0),))[0],
            attribute(attributor, model, (x,), (x0,))[0],
        )
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, whole, rtol=0, atol=1e-5)


def test_refuse() -> None:
    """What to give instead."""
    for kind in (LeftIG, IDG):
        for n in (1, True):
            with pytest.raises(ConfigError, match=r"method.attributor.n_steps=.*give an integer of at least 2"):
                kind(n)
    for threshold in (0.0, 1.1, float("nan")):
        with pytest.raises(ConfigError, match=r"method.attributor.threshold=.*give a number above 0 and at most 1"):
            LeftIG(threshold=threshold)
    x: Tensor = torch.zeros(2, 3).double()
    with pytest.raises(ConfigError, match="design=stratified"):
        igc_dist.attribute(models.linear(), (x, torch.zeros(2, 2)), method="idg", design="stratified", threads=1)
