"""The gallery: what is laid out where, and the command that makes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import igc_dist
from igc_dist import config
from igc_dist.report import gallery, write_gallery
from igc_dist.report.gallery import ROWS, Column, column_of, draw_gallery, picture
from igc_dist.report.panels import house_style
from tests.cli.test_cli import forked
from tests.commands import TINY


def store(seed: int, method: str, shape: dict[str, int], n: int = 4, names: str = "abc") -> xr.DataTree:
    """Samples of three outputs, as a store holds them."""
    rng = np.random.default_rng(seed)
    target = xr.DataArray(np.eye(3)[[2, 0, 1, 0] * (n // 4)], dims=("sample", "output"))
    samples = xr.Dataset({"target": target, "delta": 0.001 * target, "index": ("sample", np.arange(n))})
    values = xr.DataArray(rng.standard_normal((n, 3, *shape.values())), dims=("sample", "output", *shape))
    root = xr.Dataset(coords={"output": list(names)})
    tree = xr.DataTree.from_dict({"/": root, "/samples": samples, "/samples/x": xr.Dataset({"attribution": values})})
    tree.attrs = {
        "method": method,
        "cost": {"forwards": 1234, "gradient_evaluations": 5},
        "sums_to_prediction": method == "ig",
    }
    return tree


IMAGE, GREY, LINE = {"channel": 2, "height": 5, "width": 6}, {"height": 5, "width": 6}, {"feature": 7}


def maps_of(figure: Figure) -> list[Any]:
    return [axes.images[0] for axes in figure.axes]


def test_a_column_has_the_map_of_the_target() -> None:
    """Channels summed, whichever output the target names; what is beside the method; its costs."""
    tree = store(0, "ig", IMAGE)
    values = tree["samples/x/attribution"].values
    column = column_of("method=ig baseline=blur  seed=2", tree, np.array([2, 0, 1, 0]))
    np.testing.assert_allclose(column.maps, [values[n, j].sum(0) for n, j in enumerate([2, 0, 1, 0])])
    assert (column.title, column.beside) == ("IG", "baseline=blur seed=2")
    assert list(column.costs.values()) == ["1,234", "5", "0.0010"]
    assert (
        list(column_of("method=gradients", store(0, "gradients", GREY), np.zeros(4, int)).costs.values())[-1]
        == "not complete"
    )


def test_layout() -> None:
    """A row of panels per sample, the input first; each map on a symmetric scale of its own; undefined cells are
    hatched."""
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal((3, 5, 6)), 100 * rng.standard_normal((3, 5, 6))
    two[1, 0, 0] = np.nan
    images = rng.random((3, 1, 5, 6))
    with house_style():
        figure = draw_gallery(
            images, [Column("first", "", one, {}), Column("second", "baseline=blur", two, {})], ["5", "0", "4"]
        )
    drawn = maps_of(figure)
    assert len(drawn) == 3 * (1 + 2)
    for row in range(3):
        image, a, b = drawn[3 * row : 3 * row + 3]
        np.testing.assert_array_equal(image.get_array(), images[row, 0])
        for found, expected in ((a, one[row]), (b, two[row])):
            np.testing.assert_array_equal(np.ma.filled(found.get_array(), np.nan), expected)
            limit = np.nanmax(abs(expected))
            np.testing.assert_allclose(found.get_clim(), (-limit, limit))
    assert [axes.get_title() for axes in figure.axes[:4]] == ["input", "first", "second\nblur", ""]
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["5", "0", "4"]
    boxes = [axes.get_position() for axes in figure.axes]
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    hatched = [bool([patch for patch in axes.patches if patch.get_hatch()]) for axes in figure.axes]
    assert hatched == [False] * 5 + [True] + [False] * 3


def test_names_of_rows_are_whole_in_a_folder_that_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long names are wrapped, and the space for them grows: no letter lies outside of the picture."""
    tree = store(0, "ig", IMAGE, names=["a", "vacuum cleaner upright bagless", "W" * 60])  # type: ignore[arg-type]
    drawn: list[Figure] = []
    monkeypatch.setattr(gallery, "draw_gallery", lambda *parts: drawn.append(draw_gallery(*parts)) or drawn[0])
    page = write_gallery({"method=ig": tree}, lambda index: np.zeros((len(index), 2, 5, 6)), tmp_path / "new" / "one")
    assert page == tmp_path / "new" / "one" / "gallery.html"
    figure = drawn[0]
    names = [axes.yaxis.label for axes in figure.axes[::2]]
    assert [name.get_text() for name in names[:2]] == ["W" * 18 + "\n" + "W" * 18 + "\n" + "W" * 18, "a"]
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    assert all(name.get_window_extent(renderer).x0 >= 0 for name in names)


def test_pictures_of_inputs() -> None:
    """Colours from 0 to 1, other channels summed, a vector as a strip."""
    rng = np.random.default_rng(0)
    colours = rng.random((3, 4, 5))
    seen = picture(7 * colours - 2)
    np.testing.assert_allclose(seen, np.moveaxis((colours - colours.min()) / (colours.max() - colours.min()), 0, 2))
    np.testing.assert_allclose(picture(colours[:2]), colours[:2].sum(0))
    assert picture(colours[0, 0]).shape == (1, 5)
    assert not picture(np.ones((3, 2, 2))).any()


def test_a_page_of_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are called by their targets; maps of other shapes side by side; at most 16 samples, as is said; the same
    bytes again."""
    trees = {
        "method=ig": store(0, "ig", IMAGE, 20),
        "method=ig reduce=xrai": store(1, "ig", GREY, 20),
        "line": store(2, "x<y", LINE, 20),
    }
    asked: list[list[int]] = []

    def fetch(index: list[int]) -> np.ndarray:
        asked.append(index)
        return np.random.default_rng(3).random((len(index), 2, 5, 6))

    rows: list[list[str]] = []
    monkeypatch.setattr(gallery, "draw_gallery", lambda *parts: rows.append(parts[2]) or draw_gallery(*parts))
    page = write_gallery(trees, fetch, tmp_path)
    assert rows == [list("caba" * (ROWS // 4))]
    assert asked == [list(range(ROWS))]
    text = page.read_text()
    assert f"The first {ROWS} of 20 samples are drawn." in text
    assert "reduce=xrai" in text
    assert "x&lt;y" in text
    assert "x<y" not in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    first = (tmp_path / "gallery.png").read_bytes()
    assert write_gallery(trees, fetch, tmp_path) == page
    assert (tmp_path / "gallery.png").read_bytes() == first


def test_what_does_not_go_together(tmp_path: Path) -> None:
    one = store(0, "ig", GREY)
    for other in (store(0, "ig", GREY, 8), store(0, "ig", GREY, names="abd")):
        with pytest.raises(ValueError, match="the store of b has other samples or outputs than the first one"):
            write_gallery({"a": one, "b": other}, lambda index: np.zeros((len(index), 1, 5, 6)), tmp_path)
    with pytest.raises(ValueError, match="one method at least"):
        write_gallery({}, lambda index: np.zeros(0), tmp_path)


def test_every_method_per_sample_is_shown() -> None:
    """The gallery lists each preset of conf/method that gives attributions per sample."""
    from tests.config.test_conf import composed

    shown = {
        part.removeprefix("method=")
        for entry in composed("experiment=gallery").gallery
        for part in entry.split()
        if "method=" in part
    }
    names = [path.stem for path in (config.folder() / "method").glob("*.yaml")]
    assert shown == {name for name in names if config.preset(name).samples}


SOME = "gallery=['method=gradients','method=ig baseline=black_white reduce=xrai_small','method=ig_adaptive']"


@pytest.mark.e2e
@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    """One store for each, one picture with nothing empty; the second time nothing is computed; what fails is left out,
    and told."""
    small = ("experiment=gallery", "data.build.n=3", "quadrature.n_steps=4")
    code, said = forked(tmp_path, *small, SOME)
    assert code == 0, said
    folder = tmp_path / "outputs" / "gallery"
    stores = sorted(folder.rglob("store.zarr"))
    names = ["method=gradients", "method=ig,baseline=black_white,reduce=xrai_small", "method=ig_adaptive"]
    assert [path.parent.name for path in stores] == names
    assert [igc_dist.open(path)["samples/x/attribution"].sizes["sample"] for path in stores] == [3, 3, 3]
    assert f"stores: 3 of 3 in {folder}" in said
    png = matplotlib.image.imread(folder / "gallery.png")[..., :3]
    height, width = png.shape[:2]
    for row in range(3):  # where `draw_gallery` puts its panels, in inches
        for column in range(4):
            top, left = int(144 * (0.62 + row * 1.03)), int(144 * (0.5 + column * 1.03))
            panel = png[top + 4 : top + 130, left + 4 : left + 130]
            assert panel.shape == (126, 126, 3), (height, width)
            assert len(np.unique(panel.reshape(-1, 3), axis=0)) > 2, (row, column)
    written = {p: p.stat().st_mtime_ns for path in stores for p in path.rglob("*")}
    code, said = forked(tmp_path, *small, SOME.replace("']", "','method=ig baseline=samples baseline.k=9']"))
    assert code == 2
    assert said.count("is complete: nothing to do") == 3
    assert "baseline.k=9 rows cannot be drawn from 3 usable samples" in said
    assert f"stores: 3 of 4 in {folder}" in said
    assert {p: p.stat().st_mtime_ns for p in written} == written
    code, said = forked(tmp_path, "plan", *small, SOME)
    assert (code, said.count("gradient evaluations")) == (0, 3), said
    for wrong, words in (
        ("gallery=['method=igx']", "igx"),
        ("gallery=['method=ig','method=ig']", "give each method once"),
    ):
        code, said = forked(tmp_path, *small, wrong)
        assert (code, words in said, "Traceback" in said) == (2, True, False), said


@pytest.mark.e2e
@pytest.mark.slow
def test_a_gallery_on_two_ranks(tmp_path: Path) -> None:
    """The launcher's ranks work together on each method, and the first one draws, also when a method failed."""
    small = ("experiment=gallery", "data.build.n=3", "quadrature.n_steps=4", "fabric.devices=2")
    code, said = forked(
        tmp_path, *small, "gallery=['method=gradients','method=ig baseline=samples baseline.k=9','method=ig']"
    )
    assert code == 2, said
    assert (tmp_path / "outputs" / "gallery" / "gallery.png").exists()
    path = tmp_path / "outputs" / "gallery" / "method=ig" / "store.zarr"
    assert igc_dist.open(path).attrs["provenance"]["ranks"] == 2


@pytest.mark.e2e
def test_a_sample_that_cannot_be_read_has_an_empty_panel(tmp_path: Path) -> None:
    build = "data.build={_target_: tests.ranks.Torn, n: 9}"
    small = (*TINY[:3], build, "experiment=gallery", "quadrature.n_steps=2", "on_bad_sample=skip")
    code, said = forked(tmp_path, *small, "gallery=['method=ig']")
    assert code == 0, said
    assert "stores: 1 of 1" in said
