"""The page of several runs: each row has the numbers of its own run, and differences are those of their outputs."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import igc_dist
from igc_dist.records import ConfigError
from igc_dist.report import write_sweep
from igc_dist.report.sweep import differences_of
from tests.commands import SMALL, command
from tests.report.test_report import SCRIPT, Page, store


def runs() -> dict[str, xr.DataTree]:
    """Three runs: the last has its outputs in another order, and one of its own."""
    found = {name: store(seed) for seed, name in enumerate(("one", f"two {SCRIPT}", "three"))}
    return found | {"three": store(2, ["[red]_a[/red]\x1b[31m", "other", "dead", "plain"])}


def test_each_row_is_of_its_run(tmp_path: Path) -> None:
    """Also in the table beside the page, which has all settings that differ; names of others are text."""
    trees = runs()
    text = write_sweep(trees, tmp_path / "new").read_text()
    page = Page(text)
    with (tmp_path / "new/sweep.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    for seed, (line, tree) in enumerate(zip(lines, trees.values(), strict=True)):
        assert float(line["correlation"]) == pytest.approx(np.nanmean(tree["correlation"].values), rel=1e-12)
        assert float(line["error"]) == pytest.approx(np.nanmax(np.abs(tree["quadrature_error"].values)), rel=1e-12)
        assert line["seed"] == str(seed)
        assert int(line["outputs"]) == tree.sizes["output"]
        assert any(f"seed: {seed}" in " ".join(row) for row in page.rows)
    assert "<script" not in text
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == 3
    assert all(str(attrs["src"]).startswith("data:image/png;base64,") for attrs in pictures)


def test_differences_are_of_outputs_of_one_name() -> None:
    """``b - a -+ t sqrt(SE^2 + SE'^2)`` with Student's t of three degrees of freedom, that of four folds."""
    trees = runs()
    found = differences_of("three", trees)
    one, three = trees["one"], trees["three"]
    assert [each["output"] for each in found] == ["plain", "[red]_a[/red]\\x1b[31m"]
    for each, (a, b) in zip(found, ((0, 3), (3, 0)), strict=True):
        gap = float(three["correlation"][b] - one["correlation"][a])
        half = 3.182446305284263 * math.hypot(0.03, 0.03)
        assert (each["gap"], each["low"], each["high"]) == pytest.approx((gap, gap - half, gap + half), rel=1e-9)
    assert differences_of("one", trees) == []


def test_runs_of_one_correlation_differ_in_their_sums() -> None:
    """Methods do not change what the model predicts."""
    trees = {"one": store(0), "two": store(0)}
    trees["two"]["igc_sum"] = trees["two"]["igc_sum"] + 0.25
    assert [each["gap"] for each in differences_of("two", trees)][:2] == pytest.approx([0.25, 0.25])


def attributed(net: torch.nn.Module, method: str = "igc", seed: int = 0) -> xr.DataTree:
    x = torch.randn(90, 4, generator=torch.Generator().manual_seed(1))
    y = x @ torch.arange(8.0).reshape(4, 2) + torch.randn(90, 2, generator=torch.Generator().manual_seed(2)) ** 3 * 3
    return igc_dist.attribute(net, (x, y), method=method, n_steps=2, n_folds=6, threads=1, seed=seed)


def jackknifed(trees: list[xr.DataTree], k: int) -> float:
    """Half of the interval of a difference of correlations, from the samples: each fold is left out once."""
    rows = [tree["shards/predict"].to_dataset() for tree in trees]  # in the order of the folds
    y = rows[0]["target"].values[:, k]
    folds = np.arange(len(y)) // int(trees[0].attrs["spec"]["plan"]["fold_size"])

    def gap(kept: np.ndarray) -> float:
        one, two = (np.corrcoef(row["prediction"].values[kept, k], y[kept])[0, 1] for row in rows)
        return float(two - one)

    left = np.array([gap(folds != fold) for fold in range(6)])
    return 2.570581835636314 * math.sqrt(5 / 6 * ((left - left.mean()) ** 2).sum())  # t of five degrees of freedom


def test_runs_over_the_same_folds_are_paired() -> None:
    """Two models on the same data, two methods on one model; other folds are not paired."""
    torch.manual_seed(0)
    nets = [torch.nn.Linear(4, 2), torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Tanh())]
    trees = {str(place): attributed(net) for place, net in enumerate(nets)}
    found = differences_of("1", trees)
    for k, each in enumerate(found):
        assert each["paired"]
        assert each["high"] - each["gap"] == pytest.approx(jackknifed([*trees.values()], k), rel=0.02)
    assert not differences_of("2", {"0": trees["0"], "2": attributed(nets[1], seed=1)})[0]["paired"]
    same = {"igc": trees["1"], "bsc": attributed(nets[1], "bsc")}
    (sums, _), half = (
        differences_of("bsc", same),
        np.hypot(*(tree[f"{m}_sum_se"].values[0] for m, tree in same.items())),
    )
    assert sums["gap"] == pytest.approx(float(same["bsc"]["bsc_sum"][0] - same["igc"]["igc_sum"][0]))
    assert sums["paired"]
    assert sums["high"] - sums["gap"] < 2.57 * half / 2


def test_one_run_has_no_page(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="was given one: give two or more"):
        write_sweep({"one": store()}, tmp_path)


@pytest.mark.slow
@pytest.mark.e2e
def test_a_sweep_ends_with_its_page(tmp_path: Path) -> None:
    """And compare writes the same one where it is told to."""
    small = [word for word in SMALL if not word.startswith("report")]
    done = command("-m", *small, "seed=0,1", "report.max_outputs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = tmp_path / "outputs/sweep/sweep.html"
    assert "2 runs" in page.read_text()
    stores = sorted((tmp_path / "outputs/sweep").glob("*/store.zarr"))
    again = command("compare", *stores, "--to", "again", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again/sweep.html").read_text() == page.read_text()
