"""Confidence intervals by Student's t with the number of folds, from Python and in the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import igc_dist
from igc_dist.records import ConfigError
from igc_dist.report import write_report
from igc_dist.report.contents import number
from igc_dist.report.intervals import folds_of, quantile

T = {1: 12.70620474, 2: 4.30265273, 7: 2.36462425, 31: 2.03951345}
"""Quantiles of Student's t at 97.5 % by degrees of freedom, from tables."""


def attributed(n: int = 24, n_folds: int = 8) -> xr.DataTree:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x = torch.randn(n, 3).double()
    y = net(x).detach() + torch.randn(n, 2).double()
    return igc_dist.attribute(net, (x, y), n_steps=4, n_folds=n_folds, threads=1)


def test_an_interval_is_the_value_and_its_error_times_t() -> None:
    tree = attributed()
    for name in ("x/igc", "igc_sum", "correlation"):
        group = tree["x"] if name == "x/igc" else tree
        short = name.split("/")[-1]
        low, high = igc_dist.interval(tree, name)
        assert (low.name, high.name, low.dims) == (f"{short}_ci_low", f"{short}_ci_high", group[short].dims)
        np.testing.assert_allclose(low, group[short] - T[7] * group[f"{short}_se"], rtol=1e-7)
        np.testing.assert_allclose(high, group[short] + T[7] * group[f"{short}_se"], rtol=1e-7)
    narrow = igc_dist.interval(tree, "igc_sum", 0.5)
    assert (narrow[0] > igc_dist.interval(tree, "igc_sum")[0]).all()


@pytest.mark.parametrize("n_folds", [2, 3, 8, 32])
def test_degrees_of_freedom_are_the_folds_less_one(n_folds: int) -> None:
    np.testing.assert_allclose(quantile(attributed(32, n_folds)), [T[n_folds - 1]] * 2, rtol=1e-7)


def test_folds_count_where_they_hold_samples_of_the_output() -> None:
    tree = attributed()
    counts = np.cumsum([[3, 3], [3, 0], [3, 3], [0, 0]], axis=0)
    tree["convergence"] = xr.DataTree(xr.Dataset({"n": (("fold", "output"), counts)}))
    assert folds_of(tree).tolist() == [3, 2]
    np.testing.assert_allclose(quantile(tree), [T[2], T[1]], rtol=1e-7)


def test_one_fold_has_no_interval() -> None:
    low, high = igc_dist.interval(attributed(n_folds=1), "igc_sum")
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_what_has_no_interval_is_refused() -> None:
    tree = attributed()
    with pytest.raises(ConfigError, match=r"'n' has no standard error here: choose from .*correlation"):
        igc_dist.interval(tree, "n")
    for level in (0.0, 1.0, 95.0):
        with pytest.raises(ConfigError, match="give a number between 0 and 1"):
            igc_dist.interval(tree, "igc_sum", level)


def test_the_page_shows_the_same_interval(tmp_path: Path) -> None:
    tree = attributed()
    page = write_report(tree, tmp_path, 1).read_text(encoding="utf-8")
    for end in igc_dist.interval(tree, "igc_sum"):
        assert number(float(end[0])) in page
    assert "95 % interval</th>" in page
