"""Features in one dimension on the page: a table with intervals and areas, bars with names, samples beside bars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.stats import t as student

from igc_dist.report import interval, write_report
from igc_dist.report.contents import map_names
from igc_dist.report.drawing import draw_maps
from igc_dist.report.features import feature_tables
from igc_dist.report.figures import draw_all
from igc_dist.report.maps import read_maps
from igc_dist.report.rows import Row
from igc_dist.report.samples import strip
from igc_dist.report.slicing import slice_rows, sliced_map
from tests.report.test_report import Page

FOLDS = 5
T = float(student.ppf(0.975, FOLDS - 1))


def segmented(**arrays: np.ndarray) -> xr.DataTree:
    """Two outputs over four segments, with areas; two slices."""
    igc = np.array([[0.1, -0.4, 0.25, 0.0], [0.3, 0.2, -0.1, 0.05]])
    area = np.broadcast_to([0.5, 0.25, 0.2, 0.05], (2, 4))
    values = {"igc": igc, "igc_se": 0.1 * igc + 0.01, "area": area, "area_se": 0.01 * area}
    values |= {"igc_per_area": igc / area, "igc_per_area_se": 0.2 * igc / area + 0.1, **arrays}
    group = xr.Dataset(
        {name: (("output", "segment"), each) for name, each in values.items()},
        {"segment": ["sky", "<b>sea</b>", "sand", "sign"]},
    )
    root = xr.Dataset(
        {name: ("output", [0.8, 0.6]) for name in ("correlation", "igc_sum")}
        | {name: ("output", [0.02, 0.03]) for name in ("correlation_se", "igc_sum_se")},
        {"output": ["cat", "dog"]},
        {"budget": {"folds": FOLDS}, "status": "complete", "method": "igc", "schema": 5},
    )
    dims, one = ("slice", "output"), np.array([[0.7, 0.5], [0.4, 0.9]])
    sliced = {"n": np.array([[30, 30], [10, 10]]), "correlation": one, "correlation_se": 0.1 * one}
    sliced |= {"igc_sum": one + 0.01, "igc_sum_se": 0.2 * one}
    parts = xr.Dataset({name: (dims, each) for name, each in sliced.items()}, {"slice": ["north", "south"]})
    return xr.DataTree.from_dict({"/": root, "/x": group, "/slices": parts})


def test_each_segment_has_value_interval_and_area(tmp_path: Path) -> None:
    """Of each output by value; the interval is that of `interval`; names are text."""
    tree = segmented()
    page = Page(write_report(tree, tmp_path).read_text(encoding="utf-8"))
    at = page.rows.index(["output", "segment", "IGC", "95 % interval", "area", "for each unit of area", "95 % of it"])
    rows, names = page.rows[at + 1 : at + 9], tree["x/segment"].values.tolist()
    order = [2, 0, 3, 1, 0, 1, 3, 2]
    assert [row[1] for row in rows] == [names[each] for each in order]
    assert [row[0] for row in rows] == ["cat"] * 4 + ["dog"] * 4
    low, high = (end.values for end in interval(tree, "x/igc_per_area"))
    for row, each, k in zip(rows, order, [0] * 4 + [1] * 4, strict=True):
        igc, se, area = (float(tree[f"x/{name}"].values[k, each]) for name in ("igc", "igc_se", "area"))
        assert (float(row[2]), float(row[4])) == pytest.approx((igc, area), abs=1e-4)
        assert [*map(float, row[3].split(" to "))] == pytest.approx([igc - T * se, igc + T * se], abs=1e-4)
        assert float(row[5]) == pytest.approx(igc / area, abs=1e-4)
        assert [*map(float, row[6].split(" to "))] == pytest.approx([low[k, each], high[k, each]], abs=1e-4)


def test_many_features_are_cut_and_images_have_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("igc_dist.report.features.TOP", 2)
    tree = segmented()
    (table,) = feature_tables(tree, ["x"], 1).values()
    assert [row["feature"] for row in table["rows"]] == ["sand", "<b>sea</b>"]
    assert (table["left"], table["what"]) == (2, "segment")
    tree["y"] = xr.DataTree(xr.Dataset({"igc": (("output", "row", "column"), np.zeros((2, 3, 3)))}))
    assert [*feature_tables(tree, ["x", "y"], 1)] == ["x"]


def test_bars_say_what_they_are_and_how_sure() -> None:
    """Names of both axes; whiskers are 95 % intervals with Student's t of the folds."""
    maps = read_maps(segmented(), "x", "igc", 2)
    axes = draw_maps(maps).axes
    assert (axes[0].get_ylabel(), axes[0].get_xlabel()) == ("IGC\npart of the correlation", "segment")
    assert axes[1].get_ylabel() == ""
    ends = np.stack([segment[:, 1] for segment in axes[1].collections[0].get_segments()])
    assert maps.errors is not None
    np.testing.assert_allclose(np.diff(ends)[:, 0], 2 * T * maps.errors[1], atol=1e-12)


def test_standard_errors_of_images_are_on_demand(tmp_path: Path) -> None:
    """The figure of maps has one panel for each output and one scale; their errors are a figure of their own."""
    tree = segmented()
    arrays = {name: (("output", "row", "column"), np.full((2, 3, 3), 0.1)) for name in ("igc", "igc_se")}
    tree["x"] = xr.DataTree(xr.Dataset(arrays))
    maps = read_maps(tree, "x", "igc", 2)
    assert [len(draw_maps(maps, beside=beside).axes) for beside in (False, True)] == [3, 6]
    drawn = draw_all(tree, tmp_path)
    (errors,) = drawn.others["x"]
    assert errors.width == drawn.main["x"].width
    assert errors.title == "standard error of IGC"
    assert errors.caption.startswith("standard error of IGC of input x. ")


def test_slices_and_differences_have_intervals(tmp_path: Path) -> None:
    """The errors of a difference add in squares."""
    tree = segmented()
    found = slice_rows(tree, 99)
    assert found is not None
    assert found["heads"] == ["n", "correlation", "95 % of correlation", "sum of map", "95 % of sum of map"]
    half = T * np.hypot(0.1 * 0.4, 0.1 * 0.7)
    for row in found["apart"]["rows"], Page(write_report(tree, tmp_path).read_text()).rows:
        cells = [[each["label"], *each["numbers"]] if isinstance(each, dict) else each for each in row]
        its = next(each for each in cells if each[0] == "south - north, output cat")
        assert float(its[1]) == pytest.approx(-0.3, abs=1e-4)
        assert [*map(float, its[2].split(" to "))] == pytest.approx([-0.3 - half, -0.3 + half], abs=1e-4)
    north = found["rows"][0]
    assert (north["label"], north["numbers"][0]) == ("north, output cat", "30")
    assert [*map(float, north["numbers"][2].split(" to "))] == pytest.approx([0.7 - T * 0.07, 0.7 + T * 0.07], abs=1e-4)


def test_a_sample_of_segments_is_beside_its_bars() -> None:
    """Its largest features by value, with their names; data that is no picture has bars alone."""
    attribution = xr.DataArray([0.1, -2.0, 1.0], dims="segment", coords={"segment": ["a", "b", "c"]})
    rest = {"index": 0, "place": 0, "names": ["cat"], "target": 1.0, "predictions": np.ones(1)}
    for image, count in ((np.ones((3, 8, 8)), 2), (np.ones(7), 1), (None, 1)):
        row = Row(**rest, confidence=None, residual=None, attribution=attribution, image=image)
        axes = strip(row).axes
        assert len(axes) == count
        assert [text.get_text() for text in axes[-1].get_yticklabels()] == ["c", "a", "b"]
        assert [patch.get_width() for patch in axes[-1].patches] == [1.0, 0.1, -2.0]


def test_areas_are_not_what_a_reader_looks_at_first() -> None:
    """Whatever the map is called: neither in the figures nor beside slices."""
    tree = segmented()
    group = tree["x"].to_dataset().rename({name: name.replace("igc", "bsc") for name in tree["x"] if "igc" in name})
    tree["x"] = xr.DataTree(group)
    tree["slices/x"] = xr.DataTree(xr.concat([group, group], "slice"))
    assert map_names(group) == ["bsc", "area", "bsc_per_area"]
    assert sliced_map(tree, "x") == "bsc"
