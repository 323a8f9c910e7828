"""`.igc.plot`: pictures show the numbers of the tree, on axes of their own or of the user, whose settings stay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib import pyplot

import igc_dist
from igc_dist.records import ConfigError
from igc_dist.report import interval
from igc_dist.report.overlays import OPAQUE, tinted
from tests.report.test_report import DEAD, NAMES, SCRIPT, store

X = torch.randn(40, 3, 6, 5, generator=torch.Generator().manual_seed(0))
Y = torch.stack([X[:, 0].sum((1, 2)), -X[:, 1, 2, 2], X.sum((1, 2, 3))], 1)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    assert callable(igc_dist.open)  # the door to `.igc`
    with matplotlib.rc_context({"backend": "Agg"}):
        yield
        pyplot.close("all")


def result(**settings: Any) -> xr.DataTree:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(90, 3))
    return igc_dist.attribute(net, (X, Y), n_steps=2, n_folds=4, threads=1, **settings)


def shown(axes: Any) -> np.ndarray:
    return np.ma.filled(axes.images[0].get_array(), np.nan)


def test_maps_are_those_of_the_tree() -> None:
    tree = store()
    panels = tree.igc.plot.maps(input="x")
    assert len(panels) == len(NAMES)
    for place, axes in enumerate(panels):
        np.testing.assert_array_equal(shown(axes), tree["x/igc"].values[place])
    (one,) = tree.igc.plot.maps("ig_mean", input="x", outputs=[3])
    np.testing.assert_array_equal(shown(one), tree["x/ig_mean"].values[3])
    bars = tree.igc.plot.maps(input="table", outputs=[0])[0]
    heights = [patch.get_height() for patch in bars.patches]
    np.testing.assert_array_equal(heights, tree["table/igc"].values[0])


def test_axes_of_the_user_keep_their_settings_and_get_whole_names() -> None:
    """A "$" of a name is no mathematics, names are not cut, and neither settings nor figure are others afterwards."""
    long = "$x_{$ " + "a name of more than twenty-six letters"
    tree = store(names=["plain", long, "c", "_d", "e"])
    figure, grid = pyplot.subplots(2, 3, figsize=(20, 10), layout="constrained", facecolor="0.9")
    figure.canvas.draw()  # ticks are made now, with the settings of the user
    before = dict(matplotlib.rcParams)
    plot = tree.igc.plot
    assert plot.maps(input="x", outputs=[1], ax=grid[0, 0]) is grid[0, 0]
    plot.completeness(ax=grid[0, 1])
    plot.convergence(ax=grid[0, 2])
    plot.segments(input="table", outputs=[1], ax=grid[1, 0])
    plot.maps(input="rgb", outputs=[0, 1], ax=grid[1, 1:])
    assert dict(matplotlib.rcParams) == before
    assert figure.get_facecolor() == (0.9, 0.9, 0.9, 1.0)
    for axes in (grid[0, 0], grid[1, 0], grid[1, 2]):
        assert axes.get_title(loc="left") == long
    assert [text.get_text() for text in grid[0, 2].get_legend().get_texts()] == ["plain", long, "c", "_d", "e"]
    np.testing.assert_array_equal(shown(grid[0, 0]), tree["x/igc"].values[1])
    for title, line in {"correlation": grid[0, 1].lines[0], "igc_sum": grid[0, 1].lines[1]}.items():
        np.testing.assert_array_equal(line.get_xdata(), tree[title].values)
    figure.canvas.draw()  # what is between two "$" would raise here


def test_a_backend_that_is_interactive_from_the_first_figure_on_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of notebooks, which shows no picture afterwards if the mode is put back."""
    made = pyplot.figure

    def first(**settings: Any) -> Any:
        matplotlib.interactive(True)
        return made(**settings)

    monkeypatch.setattr(pyplot, "figure", first)
    assert not matplotlib.is_interactive()
    try:
        result().igc.plot.completeness()
        assert matplotlib.is_interactive()
    finally:
        matplotlib.interactive(False)


def test_whole_pictures_have_all_their_panels() -> None:
    plot = store().igc.plot
    assert len(plot.completeness()) == len(plot.convergence()) == 3
    names = [text.get_text() for text in plot.completeness(outputs=[1, 0])[0].get_yticklabels()]
    assert names == [SCRIPT, "plain"]
    given = pyplot.subplots(1, 3)[1]
    plot.completeness(ax=given)
    np.testing.assert_array_equal([patch.get_width() for patch in given[2].patches],
                                  np.nan_to_num(store()["quadrature_error"]))  # fmt: skip


def test_slices_and_their_differences() -> None:
    """A row for each output: the slices, then each less the first; the errors of differences add in squares."""
    which = np.array(["b", "a", "c", "a"] * 10)
    tree = result(slices=which)
    panels = tree.igc.plot.slices(outputs=[2, 0])
    heads = [axes.get_title(loc="left") for axes in panels]
    assert heads[:5] == [f"output 2: {head}" for head in ("a", "b", "c", "b - a", "c - a")]
    parts = tree["slices/x/igc"].values.sum(2)  # over channels
    for row, output in enumerate((2, 0)):
        a, b, c = parts[:, output]
        for axes, values in zip(panels[5 * row :], (a, b, c, b - a, c - a), strict=False):
            np.testing.assert_array_equal(shown(axes), values)
    assert len({axes.images[0].get_clim() for axes in panels}) == 1
    sums = result(slices=which, reduce=igc_dist.features.Segments(np.arange(30).reshape(6, 5) // 10))
    bars = sums.igc.plot.slices(outputs=[1], ax=pyplot.subplots(1, 5)[1])
    spread = sums["slices/x/igc_se"].values[:2, 1]
    ends = np.stack([segment[:, 1] for segment in bars[3].collections[0].get_segments()])
    np.testing.assert_allclose(np.diff(ends)[:, 0] / 2, 3.182446305284263 * np.hypot(*spread))  # t of three degrees


def test_segments_are_ranked_with_their_intervals() -> None:
    """The largest magnitudes, by value, with the interval that `interval` gives."""
    tree = result(reduce=igc_dist.features.Segments(np.arange(30).reshape(6, 5) // 5))
    (axes,) = tree.igc.plot.segments(outputs=[1], top=4, level=0.8)
    values = tree["x/igc"].values[1]
    kept = np.argsort(-np.abs(values))[:4]
    kept = kept[np.argsort(-values[kept])]
    np.testing.assert_array_equal([patch.get_width() for patch in axes.patches], values[kept])
    assert [text.get_text() for text in axes.get_yticklabels()] == [f"segment {q}" for q in kept]
    assert axes.get_title(loc="left") == "output 1 (4 of 6 drawn)"
    low, high = (end.values[1, kept] for end in interval(tree, "x/igc", 0.8))
    lines = [segment[:, 0] for segment in axes.collections[0].get_segments()]
    np.testing.assert_allclose(lines, np.stack([low, high], 1))


def test_an_overlay_is_the_attribution_of_the_sample_over_it() -> None:
    """Red where it speaks for the output, blue where against, transparent where it is zero; the target's by default."""
    tree = result(method="ig")
    axes = tree.igc.plot.overlay((X, Y), 7)
    output = int(Y[7].argmax())
    values = tree["samples/x/attribution"].values[7, output].astype(np.float64).sum(0)
    np.testing.assert_array_equal(axes.images[1].get_array(), tinted(values))
    grey = np.moveaxis(X[7].numpy(), 0, -1).astype(np.float64) @ [0.299, 0.587, 0.114]
    assert np.corrcoef(axes.images[0].get_array().ravel(), grey.ravel())[0, 1] == pytest.approx(1.0)
    assert axes.get_title(loc="left") == f"sample 7, output {output}"
    made = tinted(np.array([[0.0, -2.0, 2.0, np.nan]]))
    np.testing.assert_allclose(made[0, :, 3], [0, OPAQUE, OPAQUE, 0])
    assert made[0, 1, 2] > made[0, 1, 0]
    assert made[0, 2, 0] > made[0, 2, 2]
    folded = result().igc.plot
    np.testing.assert_array_equal(
        folded.overlay((X, Y), 0, output=2).images[1].get_array(), tinted(result()["x/igc"].values[2].sum(0))
    )
    with pytest.raises(ConfigError, match="give output="):
        folded.overlay((X, Y), 0)
    with pytest.raises(ConfigError, match="sample 99 is none of the 40"):
        tree.igc.plot.overlay((X, Y), 99)


def test_curves_are_means_over_samples() -> None:
    curves = np.random.default_rng(0).random((6, 2, 5))
    curves[3] = np.nan
    at = np.linspace(0, 1, 5)
    scores = xr.Dataset({"insertion_curve": (("sample", "output", "insertion_fraction"), curves)})
    scores = scores.assign_coords(insertion_fraction=at, output=["a", "$b"])
    (axes,) = store().igc.plot.curves(scores)
    for line, values in zip(axes.lines, np.nanmean(curves, 0), strict=True):
        np.testing.assert_allclose(line.get_ydata(), values)
        np.testing.assert_array_equal(line.get_xdata(), at)
    reach = 2.776445 * np.nanstd(curves[:, 0], 0, ddof=1) / np.sqrt(5)  # Student's t of 4 degrees of freedom, 95 %
    top = [axes.collections[0].get_paths()[0].vertices[:, 1].max(), (np.nanmean(curves[:, 0], 0) + reach).max()]
    assert top[0] == pytest.approx(top[1])
    (single,) = store().igc.plot.curves(scores.isel(output=0))
    np.testing.assert_allclose(single.lines[0].get_ydata(), np.nanmean(curves[:, 0], 0))


def test_what_cannot_be_drawn_is_said() -> None:
    tree, samples = store(), result(method="ig")
    sums = result(reduce=igc_dist.features.Segments(np.arange(30).reshape(6, 5) // 5))
    for words, draw in {
        "no array 'ig_men' .did you mean 'ig_mean'": lambda: tree.igc.plot.maps("ig_men", input="x"),
        "input 'y' is none of the result": lambda: tree.igc.plot.maps(input="y"),
        "ax holds 2, this picture takes 5 matplotlib axes": lambda: tree.igc.plot.maps(
            input="x", ax=pyplot.subplots(1, 2)[1]
        ),
        "ax holds 1, .* takes 1 or 3": lambda: tree.igc.plot.completeness(ax="left"),
        "no slices of input 'x'": lambda: tree.igc.plot.slices(input="x"),
        "holds no curves: give plot.curves": lambda: tree.igc.plot.curves(),
        "have 2 dimensions, segments have one": lambda: tree.igc.plot.segments(input="x"),
        "only attributions of samples": lambda: samples.igc.plot.maps(),
        "need not sum to the correlation": lambda: samples.igc.plot.completeness(),
        "have 1 inputs, those of the result age, rgb, table, x": lambda: tree.igc.plot.overlay((X, Y), 0, output=0),
        "has no height and width": lambda: sums.igc.plot.overlay((X, Y), 0, output=0),
    }.items():
        with pytest.raises(ConfigError, match=words):
            draw()
    assert np.isnan(shown(tree.igc.plot.maps(input="x")[DEAD])).all()
