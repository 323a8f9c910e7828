"""Features that count in one slice only are found, with the slices, the kind, and in the order of their size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import igc_dist
from igc_dist.results import Level, spurious, spurious_in
from igc_dist.results.extremes import _found
from igc_dist.results.folds import Estimate

SITES = np.array(["a", "b", "c"])


def planted(n: int = 1800, seed: int = 0, **settings: Any) -> xr.DataTree:
    """``f = u0 + u1 + u2 + u3``. u0 counts everywhere; u1 is noise in slice b; u2 is turned round in slice c; u3 is
    half as much in b."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(n, 4, generator=generator)
    site = np.arange(n) % 3
    effect = torch.tensor([[1.0, 1, 1, 1], [1, 0, 1, 0.3], [1, 1, -1, 1]])[site]
    y = (effect * u).sum(1, keepdim=True) + 0.5 * torch.randn(n, 1, generator=generator)
    model = torch.nn.Linear(4, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    wishes = {"slices": SITES[site], "n_steps": 1, "n_folds": 16, "threads": 1}
    return igc_dist.attribute(model, (u, y), **wishes | settings)


def test_planted_features_are_found_and_ranked() -> None:
    tree = planted()
    found = spurious(tree)
    assert found["x/kind"].values[0, 1:3].tolist() == ["absent", "reversed"]
    assert found["x/kind"].values[0, 0] != "absent"
    assert found["x/kind"].values[0, 3] == "weaker"
    assert found["x/low"].values[0, 1:].tolist() == ["b", "c", "b"]
    assert found["x/high"].values[0, 2] in "ab"
    rows = spurious_in(found)
    assert [row["feature"] for row in rows] == ["2", "1"]
    assert rows[0]["at_least"] > rows[1]["at_least"] > 0.1
    maps = tree["slices/x/igc"].sel(slice="c").values[0]
    assert rows[0]["value_low"] == maps[2] < -0.2
    assert rows[1]["value_low_ci_low"] < 0 < rows[1]["value_low_ci_high"]
    assert spurious_in(found, 1) == rows[:1]
    assert [row["feature"] for row in spurious_in(tree.igc.ask.spurious(["a", "b"]))] == ["1"]


def test_nothing_is_found_where_slices_are_alike() -> None:
    """In less than one output of twenty, although the extreme pair of eight slices is taken."""
    rng, labels = np.random.default_rng(0), np.array([*"abcdefgh"], dtype=object)
    folds = 0.3 + rng.standard_normal((32, 8, 400, 5))
    centred = (folds - folds.mean(0)) / np.sqrt(32 * 31)
    part = Estimate(folds.mean(0), centred, np.full((8, 400, 5), 31.0))
    wrong = (_found({"x": part}, labels, Level())["x"]["p_fdr"] <= 0.05).any(1).mean()
    assert wrong <= 0.06
    plain = (np.abs(part[0].value - part[1].value) > 2.04 * part[0].minus(part[1], paired=True).se).mean()
    assert 0.03 < plain < 0.07  # the simulation is right: a fixed pair is wrong in one of twenty


def test_slices_without_a_value_are_not_taken() -> None:
    """A slice whose target is constant has no map."""
    value, deviations = np.array([np.nan, 0.5, 0.1]).reshape(3, 1, 1), np.zeros((4, 3, 1, 1))
    part = Estimate(value, deviations, np.full((3, 1, 1), 3.0))
    part.deviations[:, 0] = np.nan
    found = _found({"x": part}, SITES.astype(object), Level())["x"]
    assert (found["high"].item(), found["low"].item()) == ("b", "c")
    alone = Estimate(part.value[:2], part.deviations[:, :2], part.freedom[:2])
    found = _found({"x": alone}, SITES[:2].astype(object), Level())["x"]
    assert found["kind"].item() == ""
    assert np.isnan(found["p"]).all()


@pytest.mark.parametrize("turned", [1.0, -1.0])
def test_signs_do_not_matter(turned: float) -> None:
    """A feature that works against the agreement in one slice only is as spurious."""
    rng = np.random.default_rng(0)
    value = turned * np.array([[[0.6]], [[0.0]]])
    deviations = 0.01 * rng.standard_normal((16, 2, 1, 1))
    found = _found({"x": Estimate(value, deviations, np.full((2, 1, 1), 15.0))}, SITES[:2].astype(object), Level())["x"]
    assert (found["high"].item(), found["kind"].item()) == ("a", "absent")
    np.testing.assert_allclose(found["difference"], turned * 0.6)
