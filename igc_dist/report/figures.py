"""Every figure of a report as a PNG file: maps per input, completeness, convergence.

Figures are matplotlib objects drawn by Agg. They do not depend on the state of pyplot or on the user's matplotlib
settings.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from igc_dist import files
from igc_dist.records import ConfigError, printable
from igc_dist.report.charts import completeness_figure, convergence_figure
from igc_dist.report.contents import column, inputs, labels, main_map, map_names, title_of
from igc_dist.report.drawing import draw_maps
from igc_dist.report.maps import Maps, defined, read_maps
from igc_dist.report.panels import NAMED_LINES, house_style
from igc_dist.report.slicing import MOST, read_slices, slice_names, sliced_map

DPI = 144
MOST_INPUTS = 12
"""The largest number of inputs whose maps are drawn: a figure takes a third of a second and 50 kB."""
MOST_MAPS = 24
"""The largest number of figures of maps where inputs are left out."""
AT_ONCE = 2**22
"""Elements of a map that are read at once to tell its size: 32 MiB."""
SLICED = 8
"""The largest number of outputs whose slices are drawn."""


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
    slices: dict[str, Drawing]
    completeness: Drawing | None
    convergence: Drawing | None


def draw_all(tree: xr.DataTree, folder: Path, max_outputs: int = 32) -> Drawings:
    """Draw every figure that the store has numbers for into `folder`, which is made if missing.

    A figure shows at most `max_outputs` outputs, without those whose map does not exist. Of many inputs the 12 with the
    largest maps are drawn, fewer if each has several maps.
    """
    if max_outputs < 1:
        raise ConfigError(f"max_outputs is {max_outputs}; give the number of outputs to draw, 1 or more")
    files.folder(folder)
    main: dict[str, Drawing] = {}
    others: dict[str, list[Drawing]] = {}
    slices: dict[str, Drawing] = {}
    drawn = drawn_inputs(tree)
    with house_style():
        for place, (group, dataset) in enumerate(inputs(tree).items(), start=1):
            if group not in drawn:
                continue
            first, others[group] = main_map(dataset), []
            for name in map_names(dataset):
                maps = defined(read_maps(tree, group, name, max_outputs))
                path = folder / f"maps-{place}-{plain(group)}-{plain(name)}.png"
                total = tree.sizes.get("output", 0)
                drawing = save(draw_maps(maps, beside=False), path, title_of(name), map_caption(maps, group, total))
                if name == first:
                    main[group] = drawing
                else:
                    others[group].append(drawing)
                if maps.values.ndim == 3 and (errors := maps.of_errors) is not None:
                    path, title = path.with_stem(f"{path.stem}-se"), title_of(errors.name)
                    caption = map_caption(errors, group, total)
                    others[group].append(save(draw_maps(errors), path, title, caption))
            if sliced_map(tree, group):
                slices[group] = draw_slices(tree, group, folder / f"slices-{place}-{plain(group)}.png", max_outputs)
        completeness = draw_completeness(tree, folder, max_outputs)
        return Drawings(main, others, slices, completeness, draw_convergence(tree, folder, max_outputs))


def magnitudes(tree: xr.DataTree) -> dict[str, float]:
    """The size of each input's main map: the sum of its magnitudes over features, on average over outputs."""
    found = {}
    for group, dataset in inputs(tree).items():
        if (name := main_map(dataset)) is not None:
            n_outputs, total = dataset.sizes["output"], 0.0
            some = max(1, AT_ONCE * n_outputs // max(dataset[name].size, 1))
            for start in range(0, n_outputs, some):
                size = np.abs(np.asarray(dataset[name].isel(output=slice(start, start + some)).values, np.float64))
                total += float(np.where(np.isfinite(size), size, 0.0).sum())
            found[group] = total / max(n_outputs, 1)
    return found


def drawn_inputs(tree: xr.DataTree) -> list[str]:
    """The inputs that are drawn: all, or the 12 with the largest maps, fewer if each has several maps."""
    if len(inputs(tree)) <= MOST_INPUTS:
        return list(inputs(tree))
    sizes = magnitudes(tree)
    each = max((len(map_names(dataset)) for dataset in inputs(tree).values()), default=1)
    return sorted(sizes, key=lambda group: -sizes[group])[: max(1, min(MOST_INPUTS, MOST_MAPS // max(each, 1)))]


def draw_slices(tree: xr.DataTree, group: str, path: Path, max_outputs: int) -> Drawing:
    """The slices of an input's map beside each other, with their differences: of few outputs, as each takes a row."""
    rows = min(max_outputs, SLICED)
    maps, total, names = read_slices(tree, group, rows), len(labels(tree)), slice_names(tree)
    caption = f"{title_of(maps.name)} of input {printable(group)} in each slice, then less that of {names[0]}, "
    caption += f"all on one scale. {maps.note} {left_out(total, min(total, rows))}"
    if len(names) > MOST:
        caption += f" The first {MOST} of {len(names)} slices are drawn."
    return save(draw_maps(maps), path, "slices", " ".join(caption.split()))


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
    beside = "" if maps.errors is None or maps.values.ndim == 3 else ", with its 95 % interval"
    colour = "Red is positive, blue negative, zero in the middle." if maps.signed else "The scale starts at zero."
    scale = "One scale for all outputs drawn, so maps can be compared with each other."
    hatched = "Hatched grey: undefined (NaN)." if not np.isfinite(maps.values).all() else ""
    drawn = len(maps.labels) + maps.undefined
    outlined = (
        "Outlined, where cells are large enough for it: what differs from zero at a false discovery rate of 5 % over "
        "the cells of the output."
        if maps.values.ndim == 3 and maps.errors is not None and maps.signed
        else ""
    )
    return " ".join(
        filter(None, [f"{what}{beside}.", scale, colour, outlined, maps.note, hatched, left_out(total, drawn)])
    )


def draw_completeness(tree: xr.DataTree, folder: Path, max_outputs: int) -> Drawing | None:
    """Draw the completeness of each output. None for methods whose maps need not sum to the correlation."""
    if (figure := completeness_figure(tree, max_outputs)) is None:
        return None
    total = len(labels(tree))
    caption = "The gap from a circle to its cross is the sum of the two bars to the right, each with its own scale."
    caption += " Whiskers: 95 % interval of the correlation." * (column(tree, "correlation_se") is not None)
    caption = f"{caption} {left_out(total, min(total, max_outputs))}".strip()
    return save(figure, folder / "completeness.png", "completeness", caption)


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
