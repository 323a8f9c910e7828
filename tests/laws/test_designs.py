"""Laws of the sampling designs: addressed, unbiased, stratified as they claim; and refused where only a grid is
right."""

from __future__ import annotations

from inspect import isabstract
from typing import Any

import numpy as np
import pytest
import torch

import igc_dist
from igc_dist import baselines
from igc_dist.attributors import PathIntegral
from igc_dist.model import Model
from igc_dist.paths import DESIGNS, Design, Grid, Pairs, designs, rule
from igc_dist.records import ConfigError
from igc_dist.seeds import Address
from tests import models

every = pytest.mark.parametrize("name", DESIGNS)


def address(seed: int, index: Any, block: range, n_baselines: int) -> Address:
    return Address(seed, np.asarray(index), block, n_baselines)


def test_the_family_is_whole() -> None:
    below = {kind for kind in Design.__subclasses__() if kind.__module__.startswith("igc_dist.")}
    mine = {kind for one in below for kind in (one, *one.__subclasses__()) if not isabstract(kind)}
    assert mine == {Grid, Pairs, *DESIGNS.values()}  # pairs have laws of their own, in test_pairs.py
    assert all(name == kind.name for name, kind in DESIGNS.items())


@every
def test_nodes_are_addressed(name: str) -> None:
    """A sample's nodes hang on its index, the seed and the number of the baseline: not on batch mates or on the
    block."""
    design = DESIGNS[name](3)
    whole = design.nodes(address(7, [5, 9, 2], range(4), 4), 3, 4)
    assert whole.shape == (4, 3, 3)
    assert (whole >= 0).all()
    assert (whole <= 1).all()
    np.testing.assert_array_equal(design.nodes(address(7, [2, 5], range(1, 3), 4), 2, 2), whole[1:3][:, :, [2, 0]])
    assert len(np.unique(whole)) == whole.size
    assert not np.isin(design.nodes(address(8, [5, 9, 2], range(4), 4), 3, 4), whole).any()
    assert design.weights.tolist() == [1 / 3] * 3
    with pytest.raises(TypeError, match="an address is needed"):
        design.nodes(None, 3, 4)


def test_strata() -> None:
    """Shifted nodes are equidistant; stratified ones have one in each of the B K parts, the parts at random; random
    ones have neither."""
    at = address(0, range(50), range(4), 4)
    shifted = designs.Shifted(3).nodes(at, 50, 4)
    np.testing.assert_allclose(np.diff(shifted, axis=1), 1 / 3, atol=1e-12)
    parts = np.sort((designs.Stratified(2).nodes(at, 50, 4) * 8).astype(int).reshape(8, 50), axis=0)
    np.testing.assert_array_equal(parts, np.broadcast_to(np.arange(8)[:, None], (8, 50)))
    first = (designs.Stratified(2).nodes(at, 50, 4)[0, 0] * 8).astype(int)
    assert len(np.unique(first)) > 4
    assert (np.sort((designs.Random(2).nodes(at, 50, 4) * 8).astype(int).reshape(8, 50), axis=0) != parts).any()


@every
@pytest.mark.parametrize(
    "g",
    [
        pytest.param(lambda t: t**2, id="square"),
        pytest.param(np.exp, id="exp", marks=pytest.mark.slow),
        pytest.param(lambda t: (t > 0.3) * 1.0, id="step"),
    ],
)
def test_unbiased(name: str, g: Any) -> None:
    """The mean over 4,000 samples is the integral, within 4 standard errors; and the error of a stratified design is
    the smaller."""
    design, exact = DESIGNS[name](2), float(np.mean(g((np.arange(10**6) + 0.5) / 10**6)))
    nodes = design.nodes(address(3, range(4000), range(3), 3), 4000, 3)
    estimates = np.tensordot(design.weights, g(nodes), (0, 1)).mean(0)
    assert abs(estimates.mean() - exact) < 4 * estimates.std() / np.sqrt(4000)
    plain = g(designs.Random(2).nodes(address(4, range(4000), range(3), 3), 4000, 3)).mean((0, 1)).std()
    assert name == "random" or estimates.std() < 0.8 * plain


def problem() -> tuple[Any, Any]:
    model = models.mlp(torch.nn.GELU)
    return model, models.data(model, 30)


@every
@pytest.mark.parametrize("n_baselines", [1, 3])
def test_attributions_are_unbiased(name: str, n_baselines: int) -> None:
    """The mean over 4,000 samples that are the same input, each with its own draws, is the integral, within 4.5
    standard errors."""
    model, n = models.mlp(torch.nn.GELU), 4000
    x, x0 = torch.randn(1, 3).double().expand(n, 3), torch.randn(n_baselines, 1, 3).double()
    at = address(1, range(n), range(n_baselines), n_baselines)

    def attribute(attributor: PathIntegral, rows: int) -> np.ndarray:
        inputs, share = (x[:rows],), 1 / n_baselines
        return attributor.attribute(Model(model), inputs, (x0,), [0, 1], share=share, size=8, address=at)[0].numpy()

    gap = attribute(PathIntegral(design=DESIGNS[name](1)), n) - attribute(PathIntegral(rule("gauss_legendre", 30)), 1)
    assert gap.std(0).min() > 1e-6
    assert (np.abs(gap.mean(0)) < 4.5 * gap.std(0) / np.sqrt(n)).all()


def test_igc_is_unbiased() -> None:
    """The mean of IGC over 8 seeds is that of a fine grid with the same baselines, within 6 standard errors of every
    feature."""
    model, data = problem()
    gaps = []
    for seed in range(8):
        settings = {"baseline": baselines.Resampled(2), "seed": seed, "n_folds": 1}
        exact = igc_dist.attribute(model, data, quadrature="gauss_legendre", n_steps=12, **settings)["x/igc"].values
        gaps.append(igc_dist.attribute(model, data, design="stratified", n_steps=1, **settings)["x/igc"].values - exact)
    assert np.abs(gaps).max() > 1e-9
    assert (np.abs(np.mean(gaps, axis=0)) < 6 * np.std(gaps, axis=0, ddof=1) / np.sqrt(8)).all()


@every
def test_cuts_change_nothing_but_rounding(name: str) -> None:
    """Blocks of baselines, micro-batches and folds draw the same nodes."""
    model, data = problem()
    settings = {"design": name, "n_steps": 2, "n_folds": 3, "baseline": baselines.Resampled(4)}
    whole = igc_dist.attribute(model, data, **settings)["x/igc"].values
    for cut in ({"baseline_block": 3}, {"micro_batch": 5}, {"n_folds": 4, "output_block": 1}):
        found = igc_dist.attribute(model, data, **{**settings, **cut})["x/igc"].values
        np.testing.assert_allclose(found, whole, rtol=1e-11, atol=1e-13)


def test_the_grid_is_the_default() -> None:
    model, data = problem()
    expected = igc_dist.attribute(model, data, n_steps=3)["x/igc"].values
    for design in ("grid", Grid(rule("midpoint", 3))):
        assert np.array_equal(igc_dist.attribute(model, data, n_steps=3, design=design)["x/igc"].values, expected)


@pytest.mark.pilot
@pytest.mark.parametrize(("name", "wanted"), {"stratified": 1, "random": 1, "shifted": 4}.items())
def test_a_design_that_draws_takes_few_nodes_by_default(name: str, wanted: int) -> None:
    """Whichever rule it is given beside; a number that is given is taken. Only `plan` compares it with the grid."""
    model, data = problem()
    for settings, n in (({}, wanted), ({"quadrature": "trapezoid"}, wanted), ({"n_steps": 32}, 32)):
        tree = igc_dist.attribute(model, data, design=name, n_folds=2, threads=1, **settings)
        assert tree.attrs["provenance"]["rule"] == f"{name}-{n}"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"statistics": ["moments"]}, "right on average only, but the statistic 'moments' is not linear"),
        ({"statistics": ["correlation", "pearson"]}, "'pearson' is not linear.*design=grid"),
        ({"statistics": ["ttest"]}, "'ttest' is not linear"),
        ({"samples": True}, "attributions of single samples are stored"),
        ({"method": "ig"}, "attributions of single samples are stored"),
        ({"design": "shiftd"}, "'shiftd' is unknown: choose one of grid, shifted, stratified, random"),
        ({"n_steps": 0}, "n_steps=0"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], words: str) -> None:
    model, data = problem()
    with pytest.raises(ConfigError, match=words):
        igc_dist.attribute(model, data, **{"design": "stratified", "n_steps": 1, **settings})


@pytest.mark.parametrize("method", ["bsc", "gradients", "ig_adaptive", "naive_correlation"])
def test_a_method_without_nodes_to_draw_is_refused(method: str) -> None:
    model, data = models.linear(), models.data(models.linear())
    with pytest.raises(ConfigError, match=r"design=stratified with attributor .* does not draw its nodes.*design=grid"):
        igc_dist.attribute(model, data, method=method, design="stratified")
