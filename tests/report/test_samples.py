"""Samples on a page: each beside the numbers of its own row, and no picture of it where none is wanted."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
import xarray as xr

import igc_dist
from igc_dist.report import write_report
from igc_dist.report.overlays import clipped_norm
from igc_dist.report.samples import MOST, draw_samples
from tests.report.test_report import SCRIPT, Page

X = torch.rand(20, 3, 6, 5, generator=torch.Generator().manual_seed(0))
Y = torch.eye(4)[torch.arange(20) % 4]


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(90, 4), torch.nn.Tanh())
    named = igc_dist.Targets(names=["one", "two", SCRIPT, "$x_{"])
    tree = igc_dist.attribute(net, (X, Y), method="ig", n_steps=4, n_folds=4, threads=1, target=named)
    tree["samples/metrics"] = xr.DataTree(xr.Dataset({"gini": (("sample", "output"), np.zeros((20, 4)))}))  # no input
    return tree


def test_each_row_has_the_numbers_of_its_sample(tree: xr.DataTree, tmp_path: Path) -> None:
    """The largest predictions, the target and what the map misses; the first 16, as is said; names are text."""
    path = tree.igc.report(tmp_path, data=(X, Y))
    page = Page(path.read_text(encoding="utf-8"))
    rows = page.rows[page.rows.index(["sample", "picture", "target", "largest predictions", "residual"]) + 1 :][:MOST]
    names, samples = ["one", "two", SCRIPT, "$x_{"], tree["samples"].to_dataset()
    for i, row in enumerate(rows):
        order = np.argsort(-samples["prediction"].values[i])[:3]
        assert row[0] == str(i)
        assert row[2] == names[i % 4]
        assert row[3].startswith(f"{names[order[0]]} ({samples['prediction'].values[i, order[0]]:.2f}"[:-1])
        places = [row[3].index(f"{names[k]} (") for k in order]
        assert places == sorted(places)
        assert float(row[4]) == pytest.approx(float(samples["delta"].values[i, i % 4]), abs=1e-4)
    assert "The first 16 of 20 samples" in page.text
    assert path.read_text(encoding="utf-8").count("<script") == 2  # the page's own
    pictures = [attrs for tag, attrs in page.tags if tag == "img" and "red speaks for it" in str(attrs["alt"])]
    assert len(pictures) == MOST
    assert str(pictures[3]["alt"]).startswith("sample, map and overlay of sample 3 for $x_{:")


def test_pictures_of_samples_are_kept_out(tree: xr.DataTree, tmp_path: Path) -> None:
    """Without data a strip has one panel, with it three; a sample that cannot be read has its map."""

    def width(name: str) -> int:
        return int(matplotlib.image.imread(tmp_path / name).shape[1])

    shown = draw_samples(tree, tmp_path, None)
    assert [each.index for each in shown] == list(range(MOST))
    assert shown[0].drawing.caption == "map of sample 0 for one: red speaks for it, blue against it"
    alone = width("sample-0.png")
    images = X[:MOST].numpy().copy()
    images[1] = np.nan
    draw_samples(tree, tmp_path, lambda index: images[index])
    assert width("sample-0.png") == pytest.approx(3 * alone, abs=2)
    assert width("sample-1.png") == alone
    assert "overlay" not in write_report(tree, tmp_path / "page").read_text(encoding="utf-8")


def test_colours_end_at_the_percentile() -> None:
    values = np.arange(-50.0, 51.0)
    assert clipped_norm(values).vmax == np.percentile(np.abs(values), 99)
    assert clipped_norm(np.array([0.0] * 200 + [3.0])).vmax == 3.0
    assert clipped_norm(np.array([np.nan])).vmax == 1.0
