"""`.igc` on a tree: the same numbers as in the tree, and clear words where there are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import igc_dist
from igc_dist.records import ConfigError
from tests.report.test_report import DEAD, SCRIPT, store


def result(**settings: object) -> xr.DataTree:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=draw)
    return igc_dist.attribute(torch.nn.Linear(3, 2), (x, x[:, :2]), n_steps=2, n_folds=4, threads=1, **settings)  # type: ignore[arg-type]


def test_summary_and_intervals_have_the_numbers_of_the_tree(tmp_path: Path) -> None:
    made = result(store=tmp_path / "s.zarr")
    for tree in (made, igc_dist.open(tmp_path / "s.zarr"), made.copy()):
        table, ends = tree.igc.summary(0.9), tree.igc.ci(0.9)
        assert [*table.index] == ["0", "1"]
        assert (table["n"] == 40).all()
        for name in ("correlation", "igc_sum", "quadrature_error"):
            np.testing.assert_array_equal(table[name], tree[name])
        low, high = igc_dist.interval(tree, "igc_sum", 0.9)
        np.testing.assert_array_equal(table["igc_sum_ci_low"], low)
        np.testing.assert_array_equal(ends["igc_sum_ci_high"], high)
        xr.testing.assert_identical(ends["x/igc_ci_low"], igc_dist.interval(tree, "x/igc", 0.9)[0])
        assert ends["x/igc_ci_low"].dims == tree["x/igc"].dims
        assert repr(tree.igc) == "<igc: IGC of 2 outputs, 40 samples, inputs x>"
    assert made.igc.report(tmp_path / "page").name == "report.html"
    assert [*made.igc.summary(outputs=[1]).index] == ["1"]


def test_the_array_of_an_input_keeps_its_name() -> None:
    tree = store()
    xr.testing.assert_identical(tree["x"].igc, tree["x/igc"])


def test_names_are_escaped_and_dead_outputs_are_flagged() -> None:
    tree = store()
    table = tree.igc.summary()
    assert [*table][:5] == ["n", "correlation", "correlation_ci_low", "correlation_ci_high", "correlation_se"]
    assert table["flag"].iloc[DEAD] == "constant target"
    assert np.isnan(table["correlation"].iloc[DEAD])
    page = tree.igc._repr_html_()
    assert SCRIPT not in page
    assert "&lt;script&gt;" in page


def test_what_cannot_be_asked_is_said() -> None:
    tree, plain = store(), xr.DataTree(xr.Dataset({"a": ("output", [1.0])}))
    with pytest.raises(ConfigError, match="no result of igc_dist"):
        plain.igc.summary()
    with pytest.raises(ConfigError, match=r"a group of a result: .*tree\.root\.igc"):
        tree["convergence"].igc.ci()
    assert "no result" in repr(plain.igc)
    assert "no result" in plain.igc._repr_html_()
    with pytest.raises(ConfigError, match="did you mean 'plain'"):
        tree.igc.summary(outputs=["plane"])
    with pytest.raises(ConfigError, match="between 0 and 1"):
        tree.igc.ci(95.0)
    bare = tree.drop_nodes(["rgb", "table", "age", "x"])
    bare.dataset = bare.to_dataset().drop_vars(["correlation_se", "igc_sum_se"])
    with pytest.raises(ConfigError, match="two folds or more"):
        bare.igc.ci()
