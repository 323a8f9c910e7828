"""Laws of Integrated Gradients without the factor x - x0: the average gradient, and where it does not go."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import igc_dist
from igc_dist import config
from igc_dist.attributors import PathIntegral
from igc_dist.features import Total
from igc_dist.model import Model
from igc_dist.paths import Pairs, Stratified, rule
from igc_dist.records import ConfigError
from tests import models
from tests.oracles import attributions as oracle

RULE = rule("gauss_legendre", 3)
AVERAGE = PathIntegral(RULE, multiply_by_inputs=False)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("name", models.MODELS)
def test_equals_the_literal_twin(name: str, shared: bool) -> None:
    """The mean over two baselines of the weighted sum of gradients: IG of each baseline, divided by x - x0; any size of
    a pass."""
    model, x, x0 = models.MODELS[name](), random(4, 3), random(2, 1 if shared else 4, 3, seed=1)
    expected: Any = 0
    for b in range(2):
        starts = [[(x0[b, n if x0.shape[1] > 1 else 0],)] for n in range(4)]
        (ig,) = oracle.integrated_gradients(model, (x,), starts, [0, 1], RULE.nodes.tolist(), RULE.weights.tolist())
        expected = expected + ig / (x - x0[b])[:, None] / 2
    for size in (64, 4, 1):
        (found,) = AVERAGE.attribute(
            Model(model), (torch.from_numpy(x),), (torch.from_numpy(x0),), [0, 1], share=0.5, size=size, address=None
        )
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def test_of_two_inputs_and_images() -> None:
    """Times x - x0 it is IG, for every input, and every pixel."""
    for model, shapes in ((models.TwoInputs(), ((3,), (2, 2))), (models.conv(), ((1, 6, 6),))):
        x, _ = models.data(model, 4, shapes)
        xs = x if isinstance(x, tuple) else (x,)
        walks = (PathIntegral(RULE, multiply_by_inputs=flag) for flag in (False, True))
        starts = tuple(torch.full((1, 1, *shape), 0.2, dtype=torch.float64) for shape in shapes)
        average, ig = (walk.attribute(Model(model), xs, starts, [1], share=1.0, size=8) for walk in walks)
        for a, b, xi, start in zip(average, ig, xs, starts, strict=True):
            torch.testing.assert_close(a[:, 0] * (xi - start[0]), b[:, 0], rtol=1e-12, atol=1e-14)


def run(**settings: Any) -> Any:
    model = models.MODELS["gelu"]()
    return igc_dist.attribute(model, models.data(model, 9), n_folds=3, **{"attributor": AVERAGE, **settings})


def test_it_is_not_complete_and_not_called_ig() -> None:
    """No sum is compared with a prediction, and results are named after what they are."""
    tree = run(statistics=["correlation", "moments"], samples=True)
    assert set(tree["x"].data_vars) >= {"average_gradient_correlation", "average_gradient_mean", "average_gradient_std"}
    assert not [name for name in (*tree.data_vars, *tree["x"].data_vars) if "igc" in name]
    assert tree["samples"].get("completeness_error") is None
    assert (AVERAGE.complete, PathIntegral().complete) == (False, True)
    assert PathIntegral().label("correlation") == "igc"
    mean = tree["samples/x/attribution"].values.mean(0)
    np.testing.assert_allclose(tree["x/average_gradient_mean"], mean, rtol=1e-12)


def test_forward_mode() -> None:
    """The same numbers by directional derivatives, with drawn nodes too."""
    for walk in (AVERAGE, PathIntegral(RULE, design=Stratified(2), multiply_by_inputs=False)):
        settings = {"attributor": walk, "statistics": ["correlation"], "reduce": Total()}
        one, two = (run(mode=mode, **settings) for mode in ("forward", "reverse"))
        assert (one.attrs["cost"]["mode"], two.attrs["cost"]["mode"]) == ("forward", "reverse")
        np.testing.assert_allclose(
            one["x/average_gradient_correlation"], two["x/average_gradient_correlation"], rtol=1e-12
        )


@pytest.mark.parametrize("kind", [RULE, rule("left", 2)], ids=lambda q: q.name)
def test_of_a_linear_model_it_is_the_weights(kind: Any) -> None:
    """Also where x is its baseline: it is no part of a difference."""
    model, x = models.linear(), torch.zeros(1, 3, dtype=torch.float64)
    (found,) = PathIntegral(kind, multiply_by_inputs=False).attribute(
        Model(model), (x,), (x[None],), [0, 1], share=1.0, size=2
    )
    torch.testing.assert_close(found[0], model.weight.detach(), rtol=1e-12, atol=0)


def test_refused_where_the_factor_is_part_of_the_method() -> None:
    """Pairs serve both of their samples by the sign of x - x0; categories move in two coordinates only."""
    with pytest.raises(ConfigError, match=r"multiply_by_inputs=false with design=pairs.*take design=grid"):
        PathIntegral(design=Pairs(2), multiply_by_inputs=False)
    node = {"_target_": "igc_dist.attributors.PathIntegral", "multiply_by_inputs": False}
    assert config.build_attributor(node, RULE) == AVERAGE
    with pytest.raises(ConfigError, match="multiply_by_inputs=false with design=pairs"):
        config.build_attributor(node, RULE, Pairs(2))
    x, ids = torch.randn(6, 3, dtype=torch.float64), torch.arange(12).reshape(6, 2) % 4
    with pytest.raises(ConfigError, match=r"with categories: without the way to x.*embedding"):
        igc_dist.attribute(
            models.Lookup(), ((x, ids), torch.randn(6, 2)), attributor=AVERAGE, statistics=["moments"], categories=[4]
        )
