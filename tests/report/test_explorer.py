"""The numbers of maps that a page holds for its script."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from igc_dist.report import write_report
from igc_dist.report.explorer import BYTES, embedded, explored, script


def outputs_of(outputs: int, height: int = 4, width: int = 5, folds: int = 6) -> xr.DataTree:
    """Output k: a correlation of k / outputs with a standard error of 0.2 for the first half, else 0.001; k + 1 in cell
    k of its map, else 0, with a standard error of a tenth."""
    k = np.arange(outputs)
    maps = np.zeros((outputs, height * width))
    maps[k, k % (height * width)] = k + 1
    maps = maps.reshape(outputs, height, width)
    names = [f"name {each}" for each in k]
    counts = np.arange(1, folds + 1)[:, None] * np.full((1, outputs), 10.0)
    return xr.DataTree.from_dict(
        {
            "/": xr.Dataset(
                {
                    "n": ("output", np.full(outputs, 10 * folds)),
                    "correlation": ("output", k / outputs),
                    "correlation_se": ("output", np.where(k < outputs // 2, 9.0, 1e-3)),
                },
                coords={"output": names},
                attrs={"schema": 5, "status": "complete", "method": "igc", "spec": {}},
            ),
            "/x": xr.Dataset(
                {"igc": (("output", "row", "column"), maps), "igc_se": (("output", "row", "column"), maps / 10)}
            ),
            "/convergence": xr.Dataset({"n": (("fold", "output"), counts)}),
        }
    )


def numbers(text: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.int8).reshape(-1, *shape).astype(float)


def test_a_number_is_kept_to_a_step_of_its_map() -> None:
    """``|v - m s / 127| <= m / 254``; NaN is a number of its own; half widths are t times the standard error."""
    random = np.random.default_rng(0)
    values = random.normal(size=(3, 4, 5)) * [[[1e-6]], [[1.0]], [[1e6]]]
    errors = np.abs(random.normal(size=(3, 4, 5)))
    values[1, 2, 3] = np.nan
    tree = outputs_of(3)
    tree["x"] = xr.DataTree(
        xr.Dataset({"igc": (("output", "row", "column"), values), "igc_se": (("output", "row", "column"), errors)})
    )
    (found,) = explored(tree, ["x"])["maps"]
    steps, most = numbers(found["values"], (4, 5)), np.array(found["most"])[:, None, None]
    assert steps[1, 2, 3] == -128
    largest = np.nanmax(np.abs(values), (1, 2))
    np.testing.assert_allclose(found["most"], largest, rtol=1e-3)
    off = np.abs(np.where(np.isnan(values), 0, values - most * steps / 127))
    assert np.all(off <= 1.01 * largest[:, None, None] * (1 / 254 + 1e-3))
    widths = errors * stats.t.ppf(0.975, 5)
    kept = np.array(found["widest"])[:, None, None] * numbers(found["errors"], (4, 5)) / 127
    np.testing.assert_allclose(kept, widths, atol=widths.max() * (1 / 254 + 1e-3))
    assert (found["shape"], found["patch"], found["signed"], found["count"]) == ((4, 5), 1, True, 3)


def test_a_large_map_is_its_sums_over_patches() -> None:
    """Of squares, with those at the border smaller; the sum of the map stays, and there is no interval."""
    tree = outputs_of(2, 130, 90)
    (found,) = explored(tree, ["x"])["maps"]
    assert (found["shape"], found["patch"], found["errors"]) == ((44, 30), 3, None)
    values = np.pad(tree["x/igc"].values, ((0, 0), (0, 2), (0, 0)))
    expected = np.array(
        [[[v[3 * i : 3 * i + 3, 3 * j : 3 * j + 3].sum() for j in range(30)] for i in range(44)] for v in values]
    )
    kept = np.array(found["most"])[:, None, None] * numbers(found["values"], (44, 30)) / 127
    np.testing.assert_allclose(kept, expected, atol=expected.max() / 200)


def test_a_page_holds_as_many_maps_as_fit() -> None:
    (found,) = explored(outputs_of(300, 64, 64), ["x"])["maps"]
    assert found["count"] == BYTES // (2 * 64 * 64)
    assert len(numbers(found["values"], (64, 64))) == found["count"] == len(found["most"])


def test_what_a_store_says_cannot_leave_its_element() -> None:
    text = embedded({"outputs": ["</script><script>alert(1)</script>", "a & b"]})
    assert "<" not in text
    assert json.loads(text)["outputs"] == ["</script><script>alert(1)</script>", "a & b"]


def test_only_the_script_of_the_page_may_run(tmp_path: Path) -> None:
    """By its digest; the page reads without it, so what it adds is hidden before."""
    html = write_report(outputs_of(2), tmp_path).read_text(encoding="utf-8")
    text, source = script()
    assert re.findall(r"script-src ('[^']*')", html.replace("&#39;", "'")) == [source]
    assert html.count("<script") == 2
    assert f"<script>{text}</script>" in html
    assert re.search(r'<section id="viewer"[^>]* hidden>', html)


@pytest.mark.parametrize("k", [0, 3])
def test_rows_say_what_they_are(k: int, tmp_path: Path) -> None:
    """Whether an output has a correlation, and whether its interval excludes zero."""
    html = write_report(outputs_of(4), tmp_path).read_text(encoding="utf-8")
    row = re.search(rf'<tr[^>]*data-place="{k}"[^>]*>', html)
    assert row is not None
    assert ('data-significant="1"' in row[0]) == (k >= 2)
    assert 'data-defined="1"' in row[0]


def test_inputs_without_maps_need_no_numbers() -> None:
    tree: Any = outputs_of(2)
    del tree["x"]
    assert explored(tree, [])["maps"] == []
