"""The report of a store: what the page says, what the figures show, what the tables compare."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Console, RenderableType

from igc_dist.records import printable
from igc_dist.report import compare, info, inputs, labels, summary_table, write_report
from igc_dist.report.charts import convergence_figure
from igc_dist.report.comparison import difference, map_differences, spec_differences
from igc_dist.report.contents import kept, map_names, number
from igc_dist.report.drawing import draw_maps
from igc_dist.report.explorer import script
from igc_dist.report.figures import draw_all, draw_convergence
from igc_dist.report.maps import fold_features, read_maps
from igc_dist.report.page import facts, name_of, provenance_rows
from igc_dist.report.panels import draw_part, house_style, positive_norm, short, symmetric_norm

SCRIPT = "<script>alert(1)</script>"
NAMES = ["plain", SCRIPT, "$x_{", "[red]_a[/red]\x1b[31m", "_日本"]
DEAD = 2  # the output whose target is constant


def root(seed: int = 0, names: list[Any] = NAMES) -> xr.Dataset:
    """The root of a finished IGC store; the identity of completeness holds exactly."""
    draw, count = np.random.default_rng(seed), len(names)
    correlation, baseline, quadrature = (
        draw.uniform(0.2, 0.9, count),
        draw.normal(size=count) * 0.02,
        draw.normal(size=count) * 1e-4,
    )
    constant = np.zeros(count, np.uint8)
    if count > DEAD:
        constant[DEAD] = 1
        for values in (correlation, baseline, quadrature):
            values[DEAD] = np.nan
    columns = {
        "n": np.full(count, 120),
        "correlation": correlation,
        "correlation_se": np.full(count, 0.03),
        "target_mean": draw.normal(size=count),
        "target_std": 1.0 - constant,
        "igc_sum": correlation - baseline + quadrature,
        "igc_sum_se": np.full(count, 0.04),
        "baseline_term": baseline,
        "igc_error": quadrature - baseline,
        "quadrature_error": quadrature,
        "constant": constant,
    }
    return xr.Dataset({name: ("output", values) for name, values in columns.items()}, coords={"output": names})


def maps(seed: int, count: int, sizes: dict[str, int], names: tuple[str, ...] = ("igc",)) -> xr.Dataset:
    """Arrays over outputs and features with standard errors; the dead output is NaN."""
    draw, group = np.random.default_rng(seed), {}
    for name in names:
        values = draw.normal(size=(count, *sizes.values())) * 0.1
        values[DEAD : DEAD + 1] = np.nan
        group[name] = (("output", *sizes), values)
        group[f"{name}_se"] = (("output", *sizes), np.abs(values) * 0.2 + 0.001)
    return xr.Dataset(group)


def store(seed: int = 0, names: list[Any] = NAMES, folds: int = 4) -> xr.DataTree:
    """A small store with inputs of two, three, one and no feature dimensions."""
    count, draw = len(names), np.random.default_rng(seed + 9)
    curves = {
        name: (("fold", "output"), draw.uniform(size=(folds, count)))
        for name in ("correlation", "igc_sum", "map_distance")
    }
    curves["map_distance"][1][-1] = 0.0
    tree = xr.DataTree.from_dict(
        {
            "/": root(seed, names),
            "/x": maps(seed + 1, count, {"row": 6, "column": 5}, ("igc", "ig_mean")).assign(
                ig_std=(("output", "row"), np.ones((count, 6)))
            ),
            "/rgb": maps(seed + 2, count, {"channel": 3, "height": 4, "width": 4}),
            "/table": maps(seed + 3, count, {"feature": 3}).assign_coords(feature=["age", SCRIPT, "$"]),
            "/age": maps(seed + 4, count, {}),
            "/convergence": xr.Dataset(
                {"n": ("fold", 30 * np.arange(1, folds + 1)), **curves}, coords={"fold": np.arange(folds)}
            ),
            "/samples": xr.Dataset({"target": (("sample", "output"), np.zeros((7, count)))}),
            "/shards/0": xr.Dataset(),
            "/shards/1": xr.Dataset(),
        }
    )
    tree.attrs = {
        "schema": 2,
        "status": "complete",
        "method": "igc",
        "spec": {
            "model": {"_target_": "zoo.Net", "note": SCRIPT},
            "data": "digits & more",
            "quadrature": {"steps": 16},
            "seed": seed,
        },
        "spec_hash": "abc123",
        "provenance": {
            "versions": {"torch": "2.13"},
            "ranks": [{"rank": 0, "shards": 1}, {"rank": 1, "host": SCRIPT}],
            "url": "https://x.y",
        },
        "skipped": [{"index": 17, "reason": f"not finite {SCRIPT}"}],
    }
    return tree


def gradients() -> xr.DataTree:
    """A store of a method that is not complete: no sums, other array names, no convergence."""
    tree = store().drop_nodes(["convergence", "samples", "shards", "rgb", "table", "age"])
    tree.dataset = tree.to_dataset().drop_vars(
        ["igc_sum", "igc_sum_se", "baseline_term", "igc_error", "quadrature_error"]
    )
    tree["x"].dataset = (
        tree["x"]
        .to_dataset()
        .drop_vars("ig_std")
        .rename(igc="gradient_mean", igc_se="gradient_mean_se")
        .drop_vars("output")
    )
    tree.attrs["method"] = "gradient"
    return tree


class Page(HTMLParser):
    """A parsed page: its tags with attributes, the text, and the cells of every table row."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.cell = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.cell:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(store(), tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page(written.read_text(encoding="utf-8"))


def shown(renderable: RenderableType) -> str:
    """What a terminal would get."""
    console = Console(file=io.StringIO(), width=240, force_terminal=False, color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def images(figure: Figure, title: str) -> list[Any]:
    """The images of the panels that are (or are not) standard errors."""
    panels = [axes for axes in figure.axes if axes.images]
    return [
        axes.images[0]
        for axes in panels
        if (axes.get_title(loc="left") == "standard error") == (title == "standard error")
    ]


# ---- the page


def test_page_and_figures_are_written(written: Path, page: Page) -> None:
    """Every figure lies beside the page as a PNG file and inside it as a data URI; nothing half-written is left."""
    files = sorted(path.name for path in (written.parent / "figures").iterdir())
    assert written.name == "report.html"
    assert [path.name for path in written.parent.iterdir() if path.is_file()] == ["report.html"]
    assert all((written.parent / "figures" / name).read_bytes().startswith(b"\x89PNG") for name in files)
    assert {
        "completeness.png",
        "convergence.png",
        "maps-4-x-igc.png",
        "maps-4-x-ig_mean.png",
        "maps-1-age-igc.png",
    } <= set(files)
    assert sum(tag == "img" for tag, _ in page.tags) == len(files) == 11


def test_page_loads_nothing(written: Path, page: Page) -> None:
    """No style sheet, no script, no image from outside: the page reads the same in ten years and leaks nothing."""
    assert [attrs for tag, attrs in page.tags if tag == "script"] == [
        {"type": "application/json", "id": "maps-data"},
        {},
    ]
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed", "base", "form"}
    for tag, attrs in page.tags:
        for name in {"src", "href", "action", "srcset", "data", "poster", "background"} & attrs.keys():
            assert str(attrs[name]).startswith("data:image/png;base64," if tag == "img" else "#"), (tag, attrs)
        assert not any(name.startswith("on") for name in attrs)
    html = written.read_text(encoding="utf-8")
    assert "url(" not in html
    assert "@import" not in html
    policy = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy == [f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {script()[1]}"]


def test_hostile_strings_are_text(written: Path, page: Page) -> None:
    """Names, spec, reasons and ranks that look like markup are shown, not obeyed."""
    html = written.read_text(encoding="utf-8")
    assert html.count("<script") == 2  # the page's own
    assert "\x1b" not in html
    rows = {cell for row in page.rows for cell in row}
    assert {SCRIPT, "$x_{", "[red]_a[/red]\\x1b[31m", "_日本", f"not finite {SCRIPT}"} <= rows
    assert "digits & more" in page.text
    assert json.dumps(SCRIPT) in page.text


def test_identity_is_printed_with_its_numbers(page: Page) -> None:
    """The completeness table holds, per output, the sum and its three parts, and they add up as the sentence above it
    says."""
    tree = store()
    assert "sum of map = correlation \N{MINUS SIGN} baseline term + quadrature error" in page.text
    head = page.rows.index(["output", "flag", "sum of map", "correlation", "baseline term", "quadrature error"])
    for index, row in enumerate(page.rows[head + 1 : head + 1 + len(NAMES)]):
        expected = [
            float(tree[name].values[index]) for name in ("igc_sum", "correlation", "baseline_term", "quadrature_error")
        ]
        assert row == [printable(NAMES[index]), "constant target" if index == DEAD else "", *map(number, expected)]
        if index != DEAD:
            total, correlation, baseline, quadrature = map(float, row[2:])
            assert total == pytest.approx(correlation - baseline + quadrature, abs=2e-4)


def test_headline_ranks_and_counts(page: Page) -> None:
    """The page opens with what was attributed over what, and says what every rank did and what the store kept."""
    facts = page.text[: page.text.index("How to read this")]
    for fact in (
        "Report: IGC",
        "Net",
        "digits & more",
        "120",
        "5",
        "age (one number), rgb (3 x 4 x 4), table (3), x (6 x 5)",
        "complete",
    ):
        assert fact in facts
    assert list(inputs(store())) == ["age", "rgb", "table", "x"]
    assert ["rank", "shards", "host"] in page.rows
    assert ["1", "", SCRIPT] in page.rows
    assert ["shards kept", "2"] in page.rows
    assert ["samples kept", "7"] in page.rows
    assert ["versions.torch", "2.13"] in page.rows
    assert ["17", f"not finite {SCRIPT}"] in page.rows


def test_notices_name_what_spoils_the_numbers(tmp_path: Path) -> None:
    """An unfinished run, constant outputs, coarse quadrature and skipped samples are said before any number."""
    tree = store()
    tree.attrs["status"] = "running"
    tree["constant"].values[:] = [0, 0, 1, 2, 3]
    tree["quadrature_error"].values[0] = -0.05
    text = Page(write_report(tree, tmp_path, 1).read_text(encoding="utf-8")).text
    text = text[: text.index("How to read this")]
    assert "status is running" in text
    assert "Constant target in 2 of 5 outputs ($x_{, _日本)" in text
    assert "Constant prediction in 2 of 5 outputs ([red]_a[/red]\\x1b[31m, _日本)" in text
    assert "The quadrature error is too large in 1 of 5 outputs (plain" in text
    assert "1 sample was skipped" in text


@pytest.mark.slow
def test_notices_of_a_budget(tmp_path: Path) -> None:
    """How far the run went and why, what to add, that it fell back, that memory ran out: in the page and in `info`."""
    tree = store()
    tree.attrs |= {
        "budget": {
            "folds": 4,
            "of": 9,
            "reason": "rel_se",
            "advice": "standard errors are <b>3 %</b> of the maps at most",
        },
        "fallback": "32-true",
        "retried": [{"shard": 3, "micro_batch": [2, 1]}],
    }
    page = Page(write_report(tree, tmp_path, 1).read_text(encoding="utf-8")).text
    for words in ("4 of 9 folds were used, as the standard errors asked for are "
"reached", "Standard errors are <b>3 %</b> of the maps",
                  "all is in 32-true", "1 shards ran out of memory"):  # fmt: skip
        assert words in page
    assert "were used, as" not in Page(write_report(store(), tmp_path, 1).read_text(encoding="utf-8")).text
    told = shown(info(tree))
    for words in ("4 of 9 (rel_se)", "fell back to 32-true", "shard 3 at 2 x 1"):
        assert words in told


def test_clean_store_has_no_notice(tmp_path: Path) -> None:
    """No warning without a reason."""
    tree = store(names=["a"])
    tree.attrs["skipped"] = []
    text = write_report(tree, tmp_path).read_text(encoding="utf-8")
    assert 'class="notice' not in text


def test_left_out_outputs_are_owned_up_to(tmp_path: Path, page: Page) -> None:
    """With more outputs than max_outputs every figure says how many it leaves out; tables still list them all."""
    drawn = Page(write_report(store(), tmp_path, max_outputs=2).read_text(encoding="utf-8"))
    assert drawn.text.count("The first 2 of 5 outputs are drawn; 3 are left out") == 11
    assert printable(NAMES[4]) in {row[0] for row in drawn.rows}
    assert "left out" not in page.text
    with pytest.raises(ValueError, match="max_outputs is 0"):
        write_report(store(), tmp_path, max_outputs=0)


def test_incomplete_methods_have_no_sums(tmp_path: Path) -> None:
    """A store of gradients has a report without sums, says why, and leads with its first map."""
    path = write_report(gradients(), tmp_path)
    page = Page(path.read_text(encoding="utf-8"))
    text = page.text
    assert [tag for tag, _ in page.tags if tag in ("figure", "details")] == ["figure", *["details", "figure"] * 3]
    assert "need not sum to the correlation" in text
    assert "sum of map" not in text
    assert not (tmp_path / "figures" / "completeness.png").exists()
    assert not (tmp_path / "figures" / "convergence.png").exists()
    assert "gradient mean of input x" in text


def test_store_without_maps_or_attributes(tmp_path: Path) -> None:
    """The barest tree still gives a page, not a traceback."""
    tree = xr.DataTree.from_dict(
        {"/": xr.Dataset({"n": ("output", [3]), "correlation": ("output", [0.5])}), "/x": xr.Dataset()}
    )
    text = Page(write_report(tree, tmp_path).read_text(encoding="utf-8")).text
    assert "The store holds no map of this input." in text
    assert "Input x" in text


def test_per_sample_store(tmp_path: Path) -> None:
    """A store of single attributions has no map of the data set, and the page says where they are instead."""
    tree = store().drop_nodes(["x", "rgb", "table", "age", "convergence"])
    text = Page(write_report(tree, tmp_path).read_text(encoding="utf-8")).text
    assert (
        "The store holds no maps over the data set; its attributions are kept per sample, in the group samples." in text
    )


def test_kept_shards_are_counted_by_their_dimension() -> None:
    """Shards lie as members of their group, or stacked in one array per pass; both are counted, and the cost is
    listed."""
    tree = store()
    assert kept(tree) == {"shards": 2, "samples": 7}
    tree["shards"] = xr.DataTree.from_dict(
        {"attribute": xr.Dataset({"digest": ("part", np.zeros(32))}), "predict": xr.Dataset()}
    )
    tree.attrs["cost"] = {"shards": 32, "forwards": 120}
    assert kept(tree) == {"shards": 32, "samples": 7}
    assert provenance_rows(tree)["cost.forwards"] == "120"
    assert kept(gradients()) == {}


def test_one_fold_has_no_convergence(tmp_path: Path) -> None:
    """A curve of one point is no curve."""
    assert draw_convergence(store(folds=1), tmp_path, 32) is None
    assert draw_convergence(store(folds=2), tmp_path, 32) is not None


@pytest.mark.parametrize("per_output", [False, True])
def test_convergence_follows_every_output(per_output: bool) -> None:
    """One line per output over its own samples, all in the legend; the last map has no distance to itself to draw."""
    tree = store()
    group = tree["convergence"].to_dataset().drop_vars("output")
    if per_output:
        tree["convergence"].dataset = group.assign(n=group["n"] + xr.DataArray(np.arange(len(NAMES)), dims="output"))
    with house_style():
        figure = convergence_figure(tree, 32)
    assert figure is not None
    for axes, name in zip(figure.axes, ("correlation", "igc_sum", "map_distance"), strict=True):
        last = -1 if name == "map_distance" else None
        assert len(axes.get_lines()) == len(NAMES)
        for index, line in enumerate(axes.get_lines()):
            np.testing.assert_array_equal(line.get_ydata(), group[name].values[:last, index])
            np.testing.assert_array_equal(line.get_xdata(), group["n"].values[:last] + index * per_output)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [short(name, 18) for name in labels(tree)]
    assert figure.axes[2].get_yscale() == "log"


def test_many_outputs_converge_as_a_bundle() -> None:
    """Above ten outputs lines have no names but a median."""
    figure = convergence_figure(store(names=list(range(12))), 11)
    assert figure is not None
    assert not figure.legends
    lines = figure.axes[0].get_lines()
    assert len(lines) == 12
    np.testing.assert_allclose(lines[-1].get_ydata(), np.median([line.get_ydata() for line in lines[:-1]], axis=0))


def test_rounding_is_not_drawn_as_bars() -> None:
    """With shared baselines the baseline term is rounding; bars of 1e-17 would look like an effect."""
    axes = Figure().subplots()
    draw_part(axes, "baseline", np.array([2e-17, -1e-17, np.nan]))
    assert [text.get_text() for text in axes.texts] == ["zero, up to rounding"]
    assert not axes.patches
    axes.texts[0].remove()
    draw_part(axes, "baseline", np.array([np.nan]))
    assert [text.get_text() for text in axes.texts] == ["undefined"]
    draw_part(axes, "baseline", np.array([2e-5, -1e-17, np.nan]))
    assert [patch.get_width() for patch in axes.patches] == [2e-5, -1e-17, 0.0]


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("digits", "digits"),
        ({"name": "v1.2", "_target_": "zoo.Net"}, "v1.2"),
        ({"class": "zoo.Net", "digest": "ab"}, "Net"),
        ({"module": {"class": "zoo.Net"}, "compiled": False}, "Net"),
        ({"kind": "zoo.Zeros", "value": 0.0}, "Zeros"),
        ({"outputs": [1]}, ""),
        (None, ""),
        ("x" * 99, "x" * 89 + "…"),
    ],
)
def test_parts_of_the_spec_have_short_names(part: Any, name: str) -> None:
    """The headline names model and data in a word, or not at all; it never spills a whole configuration."""
    assert name_of(part) == name


def test_quadrature_of_the_attributor_is_in_the_headline() -> None:
    """A path method's quadrature is found where the spec keeps it."""
    tree = store()
    tree.attrs["spec"] = {"attributor": {"kind": "a.PathIntegral", "quadrature": {"name": "midpoint-32"}}}
    assert facts(tree)["quadrature"] == "midpoint-32"
    assert "model" not in facts(tree)
    assert "inputs" not in facts(tree.drop_nodes(["x", "rgb", "table", "age"]))


def test_same_store_same_bytes(tmp_path: Path) -> None:
    """A report is a function of its store: no clock, no counter, no settings of the reader."""
    one = write_report(gradients(), tmp_path / "one").read_bytes()
    with matplotlib.rc_context({"text.usetex": True, "figure.facecolor": "red", "axes.titlesize": 40}):
        two = write_report(gradients(), tmp_path / "two").read_bytes()
        assert matplotlib.rcParams["axes.titlesize"] == 40
    assert one == two


# ---- the figures


@pytest.mark.parametrize("values", [[-3.0, 1.0], [1.0, 3.0], [-3.0, np.nan, np.inf], [3.0]])
def test_scale_is_symmetric(values: list[float]) -> None:
    """Zero is the middle of the scale, whatever the data, and NaN or infinity do not stretch it."""
    norm = symmetric_norm(np.array(values))
    assert (norm.vmin, norm.vmax) == (-3.0, 3.0)
    assert norm(0.0) == 0.5


@pytest.mark.parametrize("values", [[], [np.nan], [0.0, -0.0], [5e-324]])
def test_scale_without_values_has_a_width(values: list[float]) -> None:
    """An all-NaN or all-zero map is drawn, not divided by zero."""
    assert (symmetric_norm(np.array(values)).vmin, symmetric_norm(np.array(values)).vmax) == (-1.0, 1.0)
    assert (positive_norm(np.array(values)).vmin, positive_norm(np.array(values)).vmax) == (0.0, 1.0)


def test_one_scale_for_all_outputs() -> None:
    """All maps of an input share one symmetric scale and all its standard errors another, so outputs can be compared by
    eye."""
    read = read_maps(store(), "x", "igc", 32)
    with house_style():
        figure = draw_maps(read)
    assert read.errors is not None
    top = np.nanmax(np.abs(store()["x/igc"].values))
    assert {image.get_clim() for image in images(figure, "map")} == {(-top, top)}
    assert {image.get_clim() for image in images(figure, "standard error")} == {(0.0, np.nanmax(read.errors))}
    assert len(images(figure, "map")) == len(images(figure, "standard error")) == len(NAMES)
    for index, image in enumerate(images(figure, "map")):
        np.testing.assert_array_equal(np.ma.filled(image.get_array(), np.nan), store()["x/igc"].values[index])


def test_undefined_map_is_hatched_and_named() -> None:
    """The map of a constant output is hatched grey with its reason; others are not."""
    with house_style():
        figure = draw_maps(read_maps(store(), "x", "igc", 32))
    panels = [axes for axes in figure.axes if axes.images and axes.get_title(loc="left") != "standard error"]
    hatched = [any(patch.get_hatch() for patch in axes.patches) for axes in panels]
    assert hatched == [index == DEAD for index in range(len(NAMES))]
    assert [text.get_text() for text in panels[DEAD].texts] == ["constant\ntarget"]
    bars = draw_maps(read_maps(store(), "table", "igc", 32)).axes
    assert [text.get_text() for text in bars[DEAD].texts] == ["constant\ntarget"]


def test_channels_are_summed_with_a_note(page: Page) -> None:
    """Colour images show the sum over channels, which keeps the total of a map, and say so; so do four dimensions."""
    rgb = store()["rgb"].to_dataset()
    read = read_maps(store(), "rgb", "igc", 32)
    np.testing.assert_array_equal(read.values, rgb["igc"].values.sum(axis=1))
    np.testing.assert_array_equal(read.errors, rgb["igc_se"].values.sum(axis=1))
    assert (
        "Summed over channel (3). Its standard error is the sum over the same entries, which is an upper bound."
        in page.text
    )
    last = xr.DataArray(np.arange(48.0).reshape(2, 4, 2, 3), dims=("output", "height", "width", "channel"))
    np.testing.assert_array_equal(fold_features(last)[0], last.values.sum(axis=3))
    volume = xr.DataArray(np.arange(96.0).reshape(2, 4, 2, 2, 3), dims=("output", "time", "channel", "height", "width"))
    total, summed = fold_features(volume)
    np.testing.assert_array_equal(total, volume.values.sum(axis=(1, 2)))
    assert summed == ["channel (2)", "time (4)"]
    grey = xr.DataArray(np.ones((2, 1, 4, 3)), dims=("output", "channel", "height", "width"))
    assert fold_features(grey)[1] == []
    assert fold_features(grey)[0].shape == (2, 4, 3)


def test_infinite_values_count_as_undefined() -> None:
    """An infinity in a map is a gap in the picture, not the end of its scale."""
    array = xr.DataArray([[1.0, np.inf, -np.inf]], dims=("output", "feature"))
    np.testing.assert_array_equal(fold_features(array)[0], [[1.0, np.nan, np.nan]])


T = 3.182446305284263
"""Student's t of a 95 % interval with three degrees of freedom, those of the four folds of `store`."""


def test_bars_share_one_symmetric_axis() -> None:
    """Outputs of an input with one feature dimension are bars with whiskers on one vertical scale."""
    read = read_maps(store(), "table", "igc", 32)
    with house_style():
        axes = draw_maps(read).axes
    assert read.errors is not None
    reach = T * read.errors
    top = 1.05 * np.nanmax(np.abs(read.values) + reach)
    assert len(axes) == len(NAMES)
    for index, panel in enumerate(axes):
        np.testing.assert_allclose(panel.get_ylim(), (-top, top))
        if index != DEAD:
            heights = [patch.get_height() for patch in panel.patches][: read.values.shape[1]]
            np.testing.assert_array_equal(heights, read.values[index])
            whiskers = [segment[:, 1] for segment in panel.collections[0].get_segments()]
            spread = reach[index]
            np.testing.assert_allclose(
                whiskers, np.stack([read.values[index] - spread, read.values[index] + spread], axis=1)
            )


@pytest.mark.parametrize("length", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (63, 65)), 300])
def test_long_features_are_drawn(tmp_path: Path, length: int) -> None:
    """Bars, outlines and gaps of any length save without a warning."""
    tree = xr.DataTree.from_dict({"/": root(), "/x": maps(3, len(NAMES), {"time": length}).drop_vars("igc_se")})
    tree["x/igc"].values[0, :: max(length // 5, 2)] = np.nan
    drawings = draw_all(tree, tmp_path)
    assert drawings.main["x"].path.stat().st_size > 1000


def test_deviations_start_at_zero() -> None:
    """Standard deviations have no sign: their scale starts at zero and does not pretend to a middle."""
    tree = store()
    tree["x"].dataset = tree["x"].to_dataset().drop_vars("output").assign(ig_std=abs(tree["x/igc"]))
    with house_style():
        figure = draw_maps(read_maps(tree, "x", "ig_std", 32))
    assert {image.get_clim()[0] for image in images(figure, "map")} == {0.0}


def test_standard_errors_are_no_maps_of_their_own() -> None:
    """NAME_se belongs to NAME; an array that merely ends in _se is a map."""
    group = maps(0, 2, {"row": 2}).assign(noise_se=(("output", "row"), np.ones((2, 2))), other=("row", np.ones(2)))
    assert map_names(group) == ["igc", "noise_se"]


@pytest.mark.slow
def test_order_does_not_hang_on_the_file_system(tmp_path: Path) -> None:
    """A store lists groups and arrays as its directory does; the report must not. Numbered inputs count, igc comes
    first."""
    tree = gradients()
    tree["x"].dataset = tree["x"].to_dataset().drop_vars("output").assign(igac=tree["x/ig_mean"], igc=tree["x/ig_mean"])
    for name in ("x10", "x2", "x1"):
        tree[name] = xr.DataTree(tree["x"].to_dataset().drop_vars("output"))
    turned = xr.DataTree.from_dict(
        {node.path: node.to_dataset()[sorted(node.data_vars, reverse=True)] for node in tree.subtree}
    )
    turned.attrs = tree.attrs
    assert list(inputs(turned)) == list(inputs(tree)) == ["x", "x1", "x2", "x10"]
    assert map_names(turned["x"].to_dataset()) == ["igc", "igac", "gradient_mean", "ig_mean"]
    assert (
        write_report(tree, tmp_path / "one", 1).read_bytes() == write_report(turned, tmp_path / "two", 1).read_bytes()
    )
    assert shown(info(tree)) == shown(info(turned))


def test_labels_without_coordinate_and_of_numbers() -> None:
    """Outputs are named by their coordinate, else by their place."""
    assert labels(store(names=[7, 3])) == ["7", "3"]
    assert labels(xr.DataTree(xr.Dataset({"n": ("output", [1, 2])}))) == ["0", "1"]


# ---- the tables


def test_summary_table() -> None:
    """The summary has the numbers of the store, the flag of the constant output, and no column a method lacks."""
    tree = store()
    table = summary_table(tree)
    heads = [str(column.header) for column in table.columns]
    assert heads == ["output", "n", "correlation", "sum of IGC", "quadrature error", "standard error of sum", "flag"]
    text = shown(table)
    for name in ("correlation", "igc_sum", "quadrature_error"):
        assert all(number(float(value)) in text for value in tree[name].values)
    assert "constant target" in text
    assert "1 of 5 outputs are left out" in shown(summary_table(tree, max_rows=4))
    heads = [str(column.header) for column in summary_table(gradients()).columns]
    assert heads == ["output", "n", "correlation", "standard error of correlation", "flag"]


def test_terminal_gets_no_markup_and_no_escapes() -> None:
    """Names in square brackets are printed as they are, and control characters cannot steer the terminal."""
    for text in (shown(summary_table(store())), shown(compare({"a[b]": store(), "c": store(1)}))):
        assert "[red]_a[/red]\\x1b[31m" in text
        assert "\x1b" not in text
    assert "maps against a[b]" in text


def test_info() -> None:
    """Everything a store holds is listed once, with shapes; samples and shards only by their number."""
    text = shown(info(store()))
    for line in (
        "complete",
        "abc123",
        "x/igc_se",
        "convergence/map_distance",
        "versions.torch",
        "model._target_",
        "zoo.Net",
    ):
        assert text.count(line) == 1, line
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in text.splitlines()]
    assert ["x/igc", "output, row, column", "5 x 6 x 5", "float64", "0.001"] in rows
    assert ["shards kept", "2"] in rows
    assert ["samples kept", "7"] in rows
    assert ["skipped samples", "1"] in rows
    assert ["samples", "120"] in rows
    assert "(absent)" in shown(info(xr.DataTree(xr.Dataset({"correlation": ("output", [0.5])}))))


def test_difference_is_numpys() -> None:
    """The numbers of a comparison are those of the plain formulas, over the cells finite in both."""
    draw = np.random.default_rng(0)
    one, two, se1, se2 = draw.normal(size=(4, 3, 50))
    two = one + 0.1 * two
    se1, se2 = np.abs(se1) + 0.1, np.abs(se2) + 0.1
    one[0, 0], two[1, 1] = np.nan, np.nan
    two[0, 0] = 3.0
    both = np.isfinite(one) & np.isfinite(two)
    a, b = one[both], two[both]
    found = difference(one, two, (se1, se2))
    assert found.largest == np.abs(a - b).max()
    assert found.relative == pytest.approx(np.sqrt(((a - b) ** 2).mean() / (a**2).mean()), rel=1e-12)
    assert found.correlation == pytest.approx(np.corrcoef(a, b)[0, 1], rel=1e-12)
    assert found.in_errors == pytest.approx((np.abs(a - b) / np.sqrt(se1**2 + se2**2)[both]).max(), rel=1e-12)
    assert found.lone_nans == 2
    assert not found.same_bits


def test_difference_at_the_edges() -> None:
    """Equal maps, signed zeros, other types, no finite cell, no standard error: each has one defined answer."""
    one = np.array([1.0, np.nan, 0.0])
    same = difference(one, one.copy())
    assert (same.largest, same.relative, same.lone_nans, same.same_bits) == (0.0, 0.0, 0, True)
    assert np.isnan(same.in_errors)
    assert not difference(one, np.array([1.0, np.nan, -0.0])).same_bits
    assert not difference(one.astype(np.float32), one).same_bits
    nothing = difference(one * np.nan, one)
    assert np.isnan([nothing.largest, nothing.relative, nothing.correlation]).all()
    assert difference(np.zeros(2), np.ones(2)).relative == np.inf
    assert np.isnan(difference(np.ones(3), np.arange(3.0)).correlation)
    zero = np.zeros(2)
    assert difference(np.ones(2), np.array([1.0, 2.0]), (zero, zero)).in_errors == np.inf
    assert difference(
        np.ones(2), np.array([1.0, 2.0]), (np.array([0.0, 3.0]), np.array([0.0, 4.0]))
    ).in_errors == pytest.approx(0.2)
    assert np.isnan(difference(np.ones(2), np.ones(2), (zero * np.nan, zero)).in_errors)
    assert difference(
        np.ones(2), np.array([1.0, 2.0]), (np.array([np.nan, 3.0]), np.array([0.0, 4.0]))
    ).in_errors == pytest.approx(0.2)


def test_compare_shows_specs_outputs_and_maps() -> None:
    """Only keys that differ are listed, every output has both stores' numbers, every shared map its row."""
    trees = {"one": store(), "two": store(1)}
    assert spec_differences(trees) == {"seed": ["0", "1"]}
    text = shown(compare(trees))
    for tree in trees.values():
        assert all(number(float(value)) in text for name in ("correlation", "igc_sum") for value in tree[name].values)
    gap = np.nanmax(np.abs(trees["one"]["correlation"].values - trees["two"]["correlation"].values))
    assert f"largest change of correlation: {number(float(gap))}" in " ".join(text.split())
    found = map_differences(*trees.values())
    assert list(found) == ["age/igc", "rgb/igc", "table/igc", "x/igc", "x/ig_mean", "x/ig_std"]
    one, two = (tree["rgb/igc"].values for tree in trees.values())
    assert found["rgb/igc"].largest == np.nanmax(np.abs(one - two))
    spread = np.sqrt(trees["one"]["rgb/igc_se"].values ** 2 + trees["two"]["rgb/igc_se"].values ** 2)
    assert found["rgb/igc"].in_errors == pytest.approx(np.nanmax(np.abs(one - two) / spread))
    assert np.isnan(found["x/ig_std"].in_errors)
    assert number(found["rgb/igc"].largest) in text


def test_compare_with_itself_and_with_three() -> None:
    """A store equals itself to the bit; a third store gets its own rows."""
    text = shown(compare({"a": store(), "b": store(), "c": store(2)}))
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in text.splitlines() if "x/igc" in line]
    assert [(row[1], row[-1]) for row in rows] == [("b", "yes"), ("c", "no")]
    assert rows[0][2:5] == ["0", "0", "1.0000"]
    assert "The specs are the same." in shown(compare({"a": store(), "b": store()}))


def test_compare_of_different_methods() -> None:
    """Stores of two methods share outputs but no map: the correlations are compared, and the lack is said."""
    other = gradients()
    other["x"].dataset = other["x"].to_dataset().drop_vars(["ig_mean", "ig_mean_se", "output"])
    text = shown(compare({"igc": store(), "gradient": other}))
    assert "no map array in common" in " ".join(text.split())


def test_compare_refuses_what_does_not_match() -> None:
    """Other outputs, another order or other shapes are refused with both sides named."""
    with pytest.raises(ValueError, match=r"given 1 store\(s\): a; give two"):
        compare({"a": store()})
    with pytest.raises(ValueError, match="a has 5 outputs and b has 2"):
        compare({"a": store(), "b": store(names=[0, 1])})
    with pytest.raises(ValueError, match=r"output 0 is '0' in a and '1' in b \(2 differ\)"):
        compare({"a": store(names=[0, 1]), "b": store(names=[1, 0])})
    other = store()
    other["x"].dataset = other["x"].to_dataset().drop_vars("output").isel(row=slice(3))
    with pytest.raises(ValueError, match=r"x/igc has shape \(5, 6, 5\) in one store and \(5, 3, 5\) in the other"):
        compare({"a": store(), "b": other})


def test_numbers_are_readable() -> None:
    """Four decimals in the middle, powers of ten outside, NaN by name."""
    assert [number(value) for value in (0.0, 0.12345, -1.5, 2e-7, 3e6, np.nan, np.inf)] == [
        "0",
        "0.1235",
        "-1.5000",
        "2.00e-07",
        "3.00e+06",
        "NaN",
        "inf",
    ]
