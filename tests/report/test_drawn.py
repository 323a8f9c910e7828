"""What a page draws of much, and what it says of the rest."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
import xarray as xr

import igc_dist
from igc_dist.report import figures, write_report
from igc_dist.report.figures import MOST_INPUTS, MOST_MAPS, Drawings, draw_all, drawn_inputs
from igc_dist.report.maps import defined, read_maps
from tests.report.test_report import DEAD, NAMES, Page, maps, store


def many(count: int) -> xr.DataTree:
    """A store of `count` inputs, x1 with the smallest maps."""
    tree = store(names=["a", "b"]).drop_nodes(["x", "rgb", "table", "age"])
    for place in range(1, count + 1):
        tree[f"x{place}"] = xr.DataTree(maps(place, 2, {"feature": 3}).drop_vars("igc_se"))
        tree[f"x{place}/igc"].values[:] = place * np.array([1.0, -1.0, 1.0])
    return tree


def test_of_many_inputs_the_largest_are_drawn(tmp_path: Path) -> None:
    """The page says how many, and lists the others with their sizes."""
    tree, gone = many(MOST_INPUTS + 3), ["x1", "x2", "x3"]
    assert sorted(drawn_inputs(tree)) == sorted({*tree.children} - {*gone, "convergence", "samples", "shards"})
    assert len(drawn_inputs(many(MOST_INPUTS))) == MOST_INPUTS
    page = Page(write_report(tree, tmp_path).read_text(encoding="utf-8"))
    assert f"Of 15 inputs, the {MOST_INPUTS} with the largest maps are drawn." in page.text
    rows = page.rows[page.rows.index(["input", "size of map"]) :]
    assert rows[1:4] == [["x1", "3.0000"], ["x2", "6.0000"], ["x3", "9.0000"]]
    assert sum(tag == "img" for tag, _ in page.tags) == MOST_INPUTS + 2
    assert len(list((tmp_path / "figures").iterdir())) == MOST_INPUTS + 2
    assert "and 7 more" in page.text[: page.text.index("How to read this")]


@pytest.mark.slow
def test_of_many_inputs_with_several_maps_fewer_are_drawn(tmp_path: Path) -> None:
    tree = many(MOST_INPUTS + 3)
    for place in range(1, MOST_INPUTS + 4):
        for name in ("igac", "ig_mean", "ig_std"):
            tree[f"x{place}/{name}"] = tree[f"x{place}/igc"].copy()
    assert drawn_inputs(tree) == ["x15", "x14", "x13", "x12", "x11", "x10"]
    page = Page(write_report(tree, tmp_path).read_text(encoding="utf-8"))
    assert "Of 15 inputs, the 6 with the largest maps are drawn." in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == MOST_MAPS + 2


@pytest.mark.slow
def test_undefined_outputs_are_named_and_not_drawn(tmp_path: Path) -> None:
    """Hatched panels take no space; an array that has nothing at all keeps its panels, with the reason."""
    read = read_maps(store(), "x", "igc", 32)
    kept = defined(read)
    others = [place for place in range(len(NAMES)) if place != DEAD]
    np.testing.assert_array_equal(kept.values, read.values[others])
    np.testing.assert_array_equal(kept.errors, read.errors[others])  # type: ignore[index]
    assert kept.labels == [read.labels[place] for place in others]
    assert kept.note == "Undefined, so not drawn: $x_{ (constant target)."
    drawing = draw_all(store(), tmp_path).main["x"]
    assert kept.note in drawing.caption
    assert "left out" not in drawing.caption
    empty = store()
    empty["x/igc"].values[:] = np.nan
    assert defined(read_maps(empty, "x", "igc", 32)).labels == read.labels
    whole = store()
    whole["x/ig_mean"].values[:] = 1.0
    assert defined(read_maps(whole, "x", "ig_mean", 32)).note == ""


@pytest.mark.parametrize("count", [2, 6])
@pytest.mark.slow
def test_slices_are_drawn_beside_each_other(tmp_path: Path, count: int) -> None:
    tree = store(names=["a", "b"])
    parts = xr.concat([maps(s, 2, {"row": 6, "column": 5}) for s in range(count)], "slice")
    names = [f"s{s}" for s in range(count)]
    own = xr.Dataset({"n": (("slice", "output"), np.ones((count, 2)))}, coords={"slice": names})
    tree["slices"] = xr.DataTree.from_dict({"/": own, "/x": parts})
    drawn: Drawings = draw_all(tree, tmp_path)
    assert list(drawn.slices) == ["x"]
    assert "IGC of input x in each slice, then less that of s0, all on one scale." in drawn.slices["x"].caption
    assert ("The first 4 of 6 slices are drawn." in drawn.slices["x"].caption) == (count == 6)
    wide = matplotlib.image.imread(drawn.slices["x"].path).shape[1] / figures.DPI
    assert wide <= 11.1
    assert len(Page(write_report(tree, tmp_path).read_text(encoding="utf-8")).tags) > 0


def test_a_page_does_not_read_whole_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of all outputs and tables of all samples may be larger than memory: what is not drawn is not kept."""
    monkeypatch.setattr(figures, "MOST_INPUTS", 0)
    monkeypatch.setattr(figures, "AT_ONCE", 8)
    path = tmp_path / "a.zarr"
    igc_dist.attribute(
        torch.nn.Linear(5, 3), (torch.rand(24, 5), torch.randn(24, 3)), samples=True, n_folds=4, n_steps=1, store=path
    )
    tree, whole = igc_dist.open(path), igc_dist.open(path)
    assert figures.magnitudes(tree) == {"x": pytest.approx(float(abs(whole["x/igc"].values).sum()) / 3)}
    write_report(tree, tmp_path, max_outputs=1)
    kept = {
        f"{node.path}/{name}" for node in tree.subtree for name, array in node.variables.items() if array._in_memory
    }
    large = (
        "/x/igc",
        "/x/igc_se",
        "/samples/target",
        "/samples/prediction",
        "/samples/delta",
        "/samples/x/attribution",
    )
    assert not kept & {*large}
