"""Every figure of a report as a PNG file: maps per input, completeness, convergence.

Figures are matplotlib objects drawn by Agg. They do not depend on the state of pyplot or on the user's matplotlib
settings.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from igc_dist import files
from igc_dist.records import ConfigError, printable
from igc_dist.report.contents import Floats, column, inputs, labels, main_map, map_names, title_of
from igc_dist.report.intervals import quantile
from igc_dist.report.maps import NEGATIVE, POSITIVE, WIDTH, Maps, draw_maps, read_maps, short

DPI = 144
ROUNDING = 1e-12  # a part of the gap below this is float64 rounding
NAMED_LINES = 10  # more outputs than this are drawn as one grey bundle with its median
CURVES = {
    "correlation": "correlation",
    "igc_sum": "sum of the map",
    "map_distance": "relative distance to the final map",
}


@dataclass(frozen=True)
class Drawing:
    """A figure on disk: its file, a short title, its caption, and its width in CSS pixels."""

    path: Path
    title: str
    caption: str
    width: int


@dataclass(frozen=True)
class Drawings:
    """The figures of a report. `main` has the map of each input's most important array, `others` the rest."""

    main: dict[str, Drawing]
    others: dict[str, list[Drawing]]
    completeness: Drawing | None
    convergence: Drawing | None


def draw_all(tree: xr.DataTree, folder: Path, max_outputs: int = 32) -> Drawings:
    """Draw every figure that the store has numbers for into `folder`, which is made if missing.

    A figure shows at most `max_outputs` outputs.
    """
    if max_outputs < 1:
        raise ConfigError(f"max_outputs is {max_outputs}; give the number of outputs to draw, 1 or more")
    files.folder(folder)
    main: dict[str, Drawing] = {}
    others: dict[str, list[Drawing]] = {}
    with house_style():
        for place, (group, dataset) in enumerate(inputs(tree).items(), start=1):
            first, others[group] = main_map(dataset), []
            for name in map_names(dataset):
                maps = read_maps(tree, group, name, max_outputs)
                path = folder / f"maps-{place}-{plain(group)}-{plain(name)}.png"
                drawing = save(
                    draw_maps(maps), path, title_of(name), map_caption(maps, group, tree.sizes.get("output", 0))
                )
                if name == first:
                    main[group] = drawing
                else:
                    others[group].append(drawing)
        return Drawings(
            main, others, draw_completeness(tree, folder, max_outputs), draw_convergence(tree, folder, max_outputs)
        )


@contextmanager
def house_style() -> Iterator[None]:
    """Use matplotlib's defaults with few changes, whatever the user's matplotlibrc says; restored afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "text.parse_math": False,  # a "$" in an output's name is a plain dollar sign
                "font.size": 9,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "hatch.linewidth": 0.6,
            }
        )
        yield


def save(figure: Figure, path: Path, title: str, caption: str) -> Drawing:
    """Write a PNG. The same figure gives the same bytes.

    Letters that the font lacks are drawn as boxes, without a warning.
    """
    FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support .* natively")
        with files.draft(path) as part:
            figure.savefig(part, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return Drawing(path, title, caption, round(float(figure.get_size_inches()[0]) * 96))


def plain(name: str) -> str:
    """A group's or array's name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:60]


def left_out(total: int, drawn: int) -> str:
    """A sentence about the outputs that are not drawn; empty if all are drawn."""
    if total <= drawn:
        return ""
    return (
        f"The first {drawn} of {total} outputs are drawn; {total - drawn} are left out (raise max_outputs to see more)."
    )


def map_caption(maps: Maps, group: str, total: int) -> str:
    """The caption of a figure of maps: what it shows, how to read its scales, and what it leaves out."""
    what = f"{title_of(maps.name)} of input {printable(group)}"
    beside = (
        ""
        if maps.errors is None
        else (", beside its standard error" if maps.values.ndim == 3 else ", with its standard error")
    )
    colour = "Red is positive, blue negative, zero in the middle." if maps.signed else "The scale starts at zero."
    scale = "One scale for all outputs drawn, so maps can be compared with each other."
    hatched = "Hatched grey: undefined (NaN)." if not np.isfinite(maps.values).all() else ""
    return " ".join(
        filter(None, [f"{what}{beside}.", scale, colour, maps.note, hatched, left_out(total, len(maps.labels))])
    )


def draw_completeness(tree: xr.DataTree, folder: Path, max_outputs: int) -> Drawing | None:
    """Draw the completeness of each output. There are no units.

    Shows the correlation with the sum of the map, then the two parts of their gap, each on its own scale. None for
    methods whose maps need not sum to the correlation.
    """
    total, correlation = column(tree, "igc_sum"), column(tree, "correlation")
    if total is None or correlation is None:
        return None
    signs = {"baseline_term": ("minus baseline term", -1.0), "quadrature_error": ("quadrature error", 1.0)}
    parts = {
        title: sign * values[:max_outputs]
        for name, (title, sign) in signs.items()
        if (values := column(tree, name)) is not None
    }
    names = labels(tree)[:max_outputs]
    figure = Figure(figsize=(WIDTH, 1.0 + 0.24 * max(len(names), 3)), layout="constrained")
    panels = figure.subplots(1, 1 + len(parts), sharey=True, squeeze=False, width_ratios=[2] + [1] * len(parts))[0]
    spread = column(tree, "correlation_se")
    spread = None if spread is None else spread * quantile(tree)
    draw_totals(
        panels[0], correlation[:max_outputs], total[:max_outputs], None if spread is None else spread[:max_outputs]
    )
    for axes, (title, values) in zip(panels[1:], parts.items(), strict=True):
        draw_part(axes, title, values)
    panels[0].set_yticks(range(len(names)), labels=[short(name) for name in names])
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    caption = "The gap from a circle to its cross is the sum of the two bars to the right, each with its own scale."
    caption += "" if spread is None else " Whiskers: 95 % interval of the correlation."
    return save(
        figure, folder / "completeness.png", "completeness", f"{caption} {left_out(len(total), len(names))}".strip()
    )


def draw_totals(axes: Axes, correlation: Floats, total: Floats, spread: Floats | None) -> None:
    """Correlation (circle, half of its 95 % interval) and sum of the map (cross), one row per output."""
    place = np.arange(total.size)
    if spread is not None:
        axes.hlines(place, correlation - spread, correlation + spread, color=NEGATIVE, linewidth=1)
    axes.plot(
        correlation, place, "o", color=NEGATIVE, mfc="white", markersize=7, label="correlation of prediction and target"
    )
    axes.plot(total, place, "x", color=POSITIVE, markersize=5, label="sum of the map")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8, borderaxespad=0)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def draw_part(axes: Axes, title: str, values: Floats) -> None:
    """One part of the gap as bars, one row per output. A part that is only rounding is labelled as zero."""
    axes.set_title(title, fontsize=9, loc="left")
    axes.axvline(0, color="black", linewidth=0.6)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    if np.all(np.abs(np.nan_to_num(values)) < ROUNDING):
        axes.set(xlim=(-1, 1), xticks=[0])
        said = "zero, up to rounding" if np.isfinite(values).any() else "undefined"
        axes.text(
            0.5, 0.5, said, transform=axes.transAxes, ha="center", va="center", fontsize=8, backgroundcolor="white"
        )
        return
    axes.barh(np.arange(values.size), np.nan_to_num(values), color="#4d4d4d", height=0.6)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3))
    axes.locator_params(axis="x", nbins=4)


def draw_convergence(tree: xr.DataTree, folder: Path, max_outputs: int) -> Drawing | None:
    """Draw correlation, sum of the map, and distance of the running map from the final one, over samples.

    None for fewer than two folds.
    """
    names, figure = labels(tree)[:max_outputs], convergence_figure(tree, max_outputs)
    if figure is None:
        return None
    bundle = "" if len(names) <= NAMED_LINES else "Grey: one line per output. Red: their median. "
    caption = (
        "What the run would have found had it stopped earlier. "
        f"{bundle}{left_out(tree.sizes.get('output', 0), len(names))}"
    )
    return save(figure, folder / "convergence.png", "convergence", caption.strip())


def convergence_figure(tree: xr.DataTree, max_outputs: int) -> Figure | None:
    """A panel for each quantity that the store recorded over its folds. n counts per fold, or per fold and output."""
    if "convergence" not in tree.children or tree["convergence"].sizes.get("fold", 0) < 2:
        return None
    group = tree["convergence"].to_dataset()
    series = {name: title for name, title in CURVES.items() if name in group.data_vars}
    if not series or "n" not in group.data_vars:
        return None
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    panels = figure.subplots(1, len(series), squeeze=False)[0]
    for axes, (name, title) in zip(panels, series.items(), strict=True):
        curves, counts = xr.broadcast(group[name], group["n"])
        values, samples = (
            np.asarray(part.transpose("fold", "output").values[:, :max_outputs], np.float64)
            for part in (curves, counts)
        )
        if name == "map_distance":
            values, samples = values[:-1], samples[:-1]  # the last map is the reference of the distances
        draw_curves(axes, samples, values, logarithmic=name == "map_distance")
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel("samples")
    add_legend(figure, panels[0], labels(tree)[:max_outputs])
    return figure


def add_legend(figure: Figure, axes: Axes, names: list[str]) -> None:
    """Add names beside the curves if they are few.

    Names are set afterwards, because matplotlib would hide a name that begins with an underscore.
    """
    if len(names) > NAMED_LINES:
        return
    legend = figure.legend(
        axes.get_lines(), [str(index) for index in range(len(names))], loc="outside right upper", frameon=False
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(short(name, 18))


def draw_curves(axes: Axes, samples: Floats, values: Floats, *, logarithmic: bool) -> None:
    """Draw one line per output over its samples. Undefined values leave gaps.

    A few lines have colours and names; many lines are grey with their median.
    """
    few = values.shape[1] <= NAMED_LINES
    values = np.where(np.isfinite(values) & ~((values <= 0) & logarithmic), values, np.nan)
    marker = "." if len(values) <= 8 else ""
    for index in range(values.shape[1]):
        color, width = (f"C{index}", 1.4) if few else ("#bbbbbb", 0.7)
        axes.plot(samples[:, index], values[:, index], marker=marker, color=color, linewidth=width)
    known = np.isfinite(values).any(axis=1)
    if not few:
        axes.plot(np.median(samples[known], axis=1), np.nanmedian(values[known], axis=1), color=POSITIVE, linewidth=2)
    if logarithmic and known.any():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter())
    axes.grid(color="#dddddd", linewidth=0.6)
