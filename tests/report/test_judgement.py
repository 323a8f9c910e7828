"""Whether numbers can be trusted: one rule for the table of the command, for Python and for the page."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from rich.console import Console
from torch import nn

import igc_dist
from igc_dist.report import judged, summary_table, verdicts, write_report
from igc_dist.report.judgement import coarse_outputs


def tree_of(design: str = "a.Grid", **columns: list[float]) -> xr.DataTree:
    tree = xr.DataTree(xr.Dataset({name: ("output", np.array(values)) for name, values in columns.items()}))
    tree.attrs["spec"] = {"attributor": {"quadrature": {"name": "midpoint-4"}, "design": {"kind": design}}}
    tree.attrs["provenance"] = {"rule": "midpoint-4"}
    return tree


@pytest.mark.parametrize(
    ("error", "correlation", "spread", "coarse"),
    [
        (0.04, 0.9, 0.1, False),
        (0.046, 0.9, 0.1, True),  # above 5 % of the correlation
        (-0.046, -0.9, 0.1, True),
        (0.04, 0.9, 0.03, True),  # above the standard error
        (0.986, 0.906, float("nan"), True),  # a standard error that does not exist switches nothing off
        (0.001, 0.9, float("nan"), False),
        (9e-5, 1e-5, 1e-5, False),  # rounding
        (float("nan"), float("nan"), float("nan"), False),  # no correlation: constant, which is said elsewhere
    ],
)
def test_an_error_is_large_beside_the_correlation_or_the_standard_error(
    error: float, correlation: float, spread: float, coarse: bool
) -> None:
    tree = tree_of(quadrature_error=[error], correlation=[correlation], igc_sum_se=[spread], igc_sum=[0.1])
    assert coarse_outputs(tree) == [coarse]
    assert verdicts(tree) == ["quadrature error" if coarse else ""]
    del tree["igc_sum_se"]  # an unlucky statistic has none: the part of the correlation is judged
    assert coarse_outputs(tree) == [abs(error) > max(0.05 * abs(correlation), 1e-4)]


def test_drawn_nodes_are_judged_by_the_noise_that_the_standard_error_holds() -> None:
    tree = tree_of("a.Stratified", quadrature_error=[0.06, 0.10], correlation=[0.9, 0.9], igc_sum_se=[0.03, 0.03])
    assert coarse_outputs(tree) == [False, True]
    assert "draw more nodes (n_steps, n_draws)" in next(judged(tree))[1]


def test_outputs_that_no_gradient_reaches_are_told_apart() -> None:
    tree = tree_of(quadrature_error=[-0.7, 0.2], correlation=[0.7, 0.6], igc_sum_se=[0.0, 0.1], igc_sum=[0.0, 0.8])
    flat, coarse = (text for _, text in judged(tree))
    assert "The map of 1 of 2 outputs (0: sum of map 0," in flat
    assert "no gradient reaches it" in flat
    assert "1 of 2 outputs (1: sum of map 0.8000" in coarse


def test_results_without_any_correlation_are_told() -> None:
    both = tree_of(quadrature_error=[np.nan] * 2, correlation=[np.nan] * 2, constant=[1, 2])
    assert next(judged(both)) == (
        "note", "No output has a correlation, so maps are NaN: output 0 has a constant target."
    )  # fmt: skip
    assert list(judged(tree_of(quadrature_error=[np.nan, 0.0], correlation=[np.nan, 0.5], constant=[1, 0]))) == []


def test_without_a_correlation_the_residuals_are_judged() -> None:
    tree = tree_of(completeness_error=[0.2, 0.01], prediction_std=[1.0, 1.0])
    assert coarse_outputs(tree) == [True, False]
    assert "mean residual 0.2000, prediction SD 1.0000" in next(judged(tree))[1]
    assert coarse_outputs(tree_of(n=[3.0, 3.0])) == [False] * len(tree_of(n=[3.0, 3.0])["n"])


@pytest.mark.parametrize(
    ("attributor", "provenance", "advice"),
    [
        ({"quadrature": {}}, {}, "take twice the nodes (n_steps, now R), or quadrature=auto with a tolerance, quad"),
        ({"quadrature": {}}, {"quadrature_tol": "0.01"}, "take more nodes (n_steps, now R), or a smaller quadrature.t"),
        ({"n_steps": 7}, {}, "take twice the steps (method.attributor.n_steps, now 7)"),
        ({"tol": 0.1}, {}, "take a smaller tolerance (method.attributor.tol, now 0.1)"),
        ({"attributor": {"n_steps": 7}}, {}, "take twice the steps (method.attributor.attributor.n_steps, now 7)"),
        ({}, {}, "take more nodes, or another method"),
    ],
)
def test_the_advice_names_a_setting_that_the_method_has(
    attributor: dict[str, Any], provenance: dict[str, str], advice: str
) -> None:
    tree = tree_of(quadrature_error=[0.5], correlation=[0.5])
    tree.attrs |= {"spec": {"attributor": attributor}, "provenance": {"rule": "R", **provenance}}
    assert advice in next(judged(tree))[1]


def rare(n: int = 24) -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """Two outputs: the first one's label has one positive sample, and the other's many."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 2)).double()
    x = torch.randn(n, 3).double()
    y = torch.zeros(n, 2).double()
    y[5, 0], y[::2, 1] = 1, 1
    return net, (x, y)


def test_table_python_and_page_agree(tmp_path: Path) -> None:
    """A rare label with few nodes has no standard error, and is found nevertheless; the reason is given."""
    with pytest.warns(igc_dist.AccuracyWarning, match=r"too large in .* of 2 outputs \(0: sum of map") as caught:
        tree = igc_dist.attribute(*rare(), n_steps=1, n_folds=4, threads=1)
    # at the line of the call, or in what checks types in tests, which is around it
    assert {Path(w.filename).name for w in caught} <= {Path(__file__).name, "_decorator.py"}
    assert np.isnan(tree["correlation_se"].values[0])
    assert coarse_outputs(tree)[0]
    reason = "No standard error for 1 of 2 outputs (0): it needs positives in at least two folds; has 1."
    assert [text for kind, text in judged(tree.isel(output=[1, 0])) if kind == "note"] == [reason], "of a selection"
    table = io.StringIO()
    Console(file=table, width=200).print(summary_table(tree))
    page = write_report(tree, tmp_path, 1).read_text(encoding="utf-8")
    for text in (" ".join(table.getvalue().split()), page):
        assert reason in text
        assert "The quadrature error is too large in" in text
        assert "take twice the nodes (n_steps, now midpoint-1)" in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fine = igc_dist.attribute(*rare(), n_steps=128, n_folds=4, threads=1)
    assert [text for _, text in judged(fine)] == [reason]


@pytest.mark.parametrize("folds", [1, 2])
def test_a_standard_error_that_does_not_exist_is_explained(folds: int) -> None:
    """One fold has none at all; a target that differs in one fold only has none for its output."""
    model, (x, y) = rare()
    y[:, 0] = 0.5
    y[3, 0] = 2.5
    tree = igc_dist.attribute(model, (x, y), n_steps=2, n_folds=folds, threads=1)
    told = [text for kind, text in judged(tree) if kind == "note"]
    assert told == [
        "No standard error for 2 of 2 outputs (0, 1): it needs at least two folds; has 1."
        if folds == 1
        else "No standard error for 1 of 2 outputs (0): it needs targets that differ in at least two folds; has 1."
    ]
