"""Expected Gradients: the literal twin, unbiased for Integrated Gradients over the same baselines, one gradient for
each draw."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import igc_dist
from igc_dist import baselines, config
from igc_dist.attributors import ExpectedGradients, PathIntegral
from igc_dist.model import Model
from igc_dist.paths import Random, Shifted, Stratified, rule
from igc_dist.records import ConfigError
from igc_dist.seeds import Address, generator
from tests import models
from tests.laws.test_attributors import SEED, attribute, indices, per_sample, random
from tests.oracles import attributions as literal
from tests.oracles import smoothgrad as oracle
from tests.oracles import statistics

KINDS = {ExpectedGradients}
PRESETS = {"expected_gradients"}
DESIGNS = ("stratified", "random")


def nodes(index: np.ndarray, n_baselines: int, design: str = "stratified", seed: int = SEED) -> np.ndarray:
    """(n, B): the node of each draw, from the documented addresses."""

    def of(sample: int) -> np.ndarray:
        drawn = generator(seed, sample, f"designs.{design}")
        if design == "random":
            return drawn.random((n_baselines, 1))[:, 0]
        return (drawn.permutation(n_baselines) + drawn.random(n_baselines)) / n_baselines

    return np.stack([of(int(sample)) for sample in index])


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_equals_the_literal_twin(name: str, design: str, shared: bool) -> None:
    model, x, x0 = models.MODELS[name](), (random(4, 3),), (random(5, 1 if shared else 4, 3, seed=1),)
    expected = oracle.expected_gradients(model, x, per_sample(x0, 4), [0, 1], nodes(indices(4), 5, design))
    np.testing.assert_allclose(
        attribute(ExpectedGradients(design=design), model, x, x0)[0], expected[0], rtol=1e-11, atol=1e-13
    )


def test_equals_the_literal_twin_of_images_and_of_two_inputs() -> None:
    """One node for all inputs of a draw."""
    for model, shapes in ((models.conv(), [(1, 6, 6)]), (models.TwoInputs(), [(3,), (2, 2)])):
        x, x0 = (
            tuple(random(2, *s, seed=i) for i, s in enumerate(shapes)),
            tuple(random(3, 2, *s, seed=9) for s in shapes),
        )
        expected = oracle.expected_gradients(model, x, per_sample(x0, 2), [0, 1], nodes(indices(2), 3))
        for one, two in zip(attribute(ExpectedGradients(), model, x, x0), expected, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-11, atol=1e-13)


@cache
def run(name: str) -> tuple[Any, np.ndarray, np.ndarray]:
    model = models.MODELS[name]()
    x, y = models.data(model, 9)
    settings: dict[str, Any] = {"baseline": baselines.Resampled(6), "n_folds": 3, "threads": 1, "seed": SEED}
    return (
        igc_dist.attribute(
            model, (x, y), method="expected_gradients", statistics=["correlation", "autocorrelation"], **settings
        ),
        x.numpy(),
        y.numpy(),
    )


@pytest.mark.parametrize("name", models.MODELS)
def test_runs_of_the_preset(name: str) -> None:
    """Baselines and nodes at their addresses; statistics are those of these attributions, and sum to what they must."""
    tree, x, y = run(name)
    model, a = models.MODELS[name](), tree["samples/x/attribution"].values
    starts = [
        [(x[b],) for b in generator(SEED, n, "baselines.resampled").choice(np.arange(9), 6, replace=False)]
        for n in range(9)
    ]
    expected = oracle.expected_gradients(model, (x,), starts, [0, 1], nodes(np.arange(9), 6))[0]
    np.testing.assert_allclose(a, expected, rtol=1e-10, atol=1e-12)
    r, start = literal.predictions(model, (x,), [0, 1]), literal.baseline_predictions(model, starts, [0, 1])
    np.testing.assert_allclose(tree["x/eg_correlation"], statistics.igc(a, y, r), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(tree["x/eg_autocorrelation"], statistics.igac(a, r), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(tree["baseline_term"], statistics.rho0(y, r, start), rtol=0, atol=1e-12)
    missing = statistics.igc((a.sum(-1) - r + start)[..., None], y, r)[:, 0]
    np.testing.assert_allclose(
        tree["eg_correlation_sum"], tree["correlation"] - tree["baseline_term"] + missing, rtol=0, atol=1e-12
    )
    assert (tree.attrs["cost"]["forwards"], tree.attrs["cost"]["gradient_evaluations"]) == (9 * 6, 9 * 6 * 2)


@pytest.mark.parametrize("design", DESIGNS)
def test_closed_forms_and_no_bias(design: str) -> None:
    """Linear: w (x - mean x0), whatever is drawn. Quadratic: the mean over 3000 samples' draws is IG within 4.5
    standard errors."""
    attributor, x, x0 = ExpectedGradients(design=design), random(1, 3), random(4, 1, 3, seed=1)
    w = models.linear().weight.detach().numpy()
    np.testing.assert_allclose(
        attribute(attributor, models.linear(), (x,), (x0,))[0], w * (x - x0[:, 0].mean(0))[:, None], rtol=1e-12
    )
    model, many = models.Quadratic(), np.repeat(x, 3000, 0)
    exact = attribute(PathIntegral(rule("midpoint", 1)), model, (x,), (x0,))[0]
    a = attribute(attributor, model, (many,), (x0,), index=np.arange(3000))[0]
    error = a.std(0, ddof=1) / np.sqrt(3000)
    assert (error > 1e-4).all()
    assert (abs(a.mean(0) - exact[0]) <= 4.5 * error).all()


def test_strata_have_less_noise() -> None:
    """Of a quadratic from one baseline given 64 times the noise is that of the nodes alone: 1 / B in place of 1 / sqrt
    B."""
    model, x, x0 = models.Quadratic(), np.repeat(random(1, 3), 200, 0), np.repeat(random(1, 1, 3, seed=1), 64, 0)
    spread = {
        d: attribute(ExpectedGradients(design=d), model, (x,), (x0,), index=np.arange(200))[0].std(0) for d in DESIGNS
    }
    assert (spread["stratified"] < spread["random"] / 20).all()


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_batching_changes_nothing_but_rounding(size: int) -> None:
    model, x, x0 = models.mlp(torch.nn.GELU), random(5, 3), random(6, 5, 3, seed=1)
    attributor = ExpectedGradients()
    whole = attribute(attributor, model, (x,), (x0,))[0]
    np.testing.assert_allclose(
        attribute(attributor, model, (x,), (x0,), size=size, blocks=2)[0], whole, rtol=1e-12, atol=1e-14
    )
    rows = [
        attribute(attributor, model, (x[n : n + 1],), (x0[:, n : n + 1],), size=size, index=indices(5)[n : n + 1])[0]
        for n in range(5)
    ]
    np.testing.assert_allclose(np.concatenate(rows), whole, rtol=1e-12, atol=1e-14)
    assert not attribute(attributor, model, (x,), (np.stack([x] * 3),))[0].any()


def test_costs_one_gradient_for_each_draw() -> None:
    """F + J' V for each baseline (methods.md)."""
    attributor, model, seen = ExpectedGradients(), models.Counted(models.linear()), []
    x, x0 = torch.from_numpy(random(3, 3)), torch.from_numpy(random(20, 3, 3))
    address = Address(SEED, indices(3), range(20), 20)
    attributor.attribute(Model(model), (x,), (x0,), [0, 1], share=1 / 20, size=8, watch=seen.append, address=address)
    price = attributor.price([(3,)])
    assert (price.rows, price.gradients_per_output, attributor.points([(3,)])) == (1, 1, 1)
    assert model.forwards == sum(seen) == 3 * 20
    assert model.backwards == 3 * 20 * 2
    assert max(seen) <= 8 * 3


def test_designs() -> None:
    """One node for each baseline, by either design, by its name or from the run; it is an estimate, which may be
    kept."""
    assert ExpectedGradients() == ExpectedGradients(design=Stratified(1))
    assert ExpectedGradients(design="random").sampling == Random(1)
    assert (ExpectedGradients().rule, ExpectedGradients().exact, ExpectedGradients().estimate) == (
        "stratified-1",
        False,
        True,
    )
    node = config.preset("expected_gradients").attributor
    assert config.build_attributor(node, rule("midpoint", 32)).sampling == Stratified(1)
    assert config.build_attributor(node, rule("midpoint", 32), Random(1)).sampling == Random(1)
    for wrong in ("grid", None, Shifted(1), Stratified(2)):
        with pytest.raises(
            ConfigError,
            match=r"design=.*Expected Gradients take one node for each baseline, choose one of stratified, random",
        ):
            ExpectedGradients(design=wrong)


def test_what_is_not_linear_is_refused() -> None:
    """With the reason: its noise would pass for a property of the model; and so are samples of which only some outputs
    are drawn."""
    model, data = models.linear(), models.data(models.linear())
    with pytest.raises(ConfigError, match=r"right on average only, but the statistic 'moments' is not linear"):
        igc_dist.attribute(model, data, method="expected_gradients", statistics=["moments"], threads=1)
    labels = data[0], data[1].argmax(1)
    with pytest.raises(ConfigError, match=r"attributions of single samples are stored"):
        igc_dist.attribute(model, labels, method="expected_gradients", target="one_hot", n_others=1, threads=1)
