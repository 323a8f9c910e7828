"""A gallery: the same samples by several methods, in one picture and on a page around it."""

from __future__ import annotations

import os
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from igc_dist import files
from igc_dist.records import ConfigError, printable
from igc_dist.report.contents import Floats, discreet, inputs, labels, mapping_of, number, title_of
from igc_dist.report.figures import save
from igc_dist.report.maps import fold_features
from igc_dist.report.overlays import picture
from igc_dist.report.panels import HATCH, axes_at, colours, house_style, mark_missing, symmetric_norm
from igc_dist.report.rendering import environment, image
from igc_dist.secrets import masked_text

ROWS = 16
"""The largest number of samples that are drawn."""
FONT, PAD = 10, 8
"""Points: the size of a row's name, and its space to the panel."""
LINE = 18
"""The largest number of letters in a line of a row's name."""
SIDE, GAP, TOP, MARGIN = (
    0.95,
    0.08,
    0.62,
    0.5,
)  # inches: panel, space between panels, space for titles, least space for row names


@dataclass(frozen=True)
class Column:
    """One method of a gallery.

    It has a title, further overrides, the maps of the samples (n, *F) with at most two dimensions, and its costs.
    """

    title: str
    beside: str
    maps: Floats
    costs: Mapping[str, str]


def write_gallery(
    trees: Mapping[str, xr.DataTree], fetch: Callable[[list[int]], np.ndarray], folder: str | Path
) -> Path:
    """Draw the opened stores `trees` into `folder`/gallery.png, and write a page gallery.html around it.

    `trees` are by the overrides that made them. Each row is a sample, with its attribution to the output with the
    largest target: for a classifier, its label. `fetch` returns the samples with given indices as the model got them,
    (n, *P). If there are several inputs, the first is drawn. At most 16 samples are drawn. Returns the path of the
    page. Raises `ConfigError` if there is no store, or if the stores have different samples or outputs.
    """
    if not trees:
        raise ConfigError("a gallery needs the store of one method at least")
    folder = Path(os.path.expanduser(folder))
    trees = {masked_text(name): discreet(tree) for name, tree in trees.items()}
    first = next(iter(trees.values()))
    samples = first.children["samples"].to_dataset()
    chosen = np.nan_to_num(samples["target"].values, nan=-np.inf).argmax(1)
    for name, tree in trees.items():
        index = tree.children["samples"].to_dataset()["index"]
        if labels(tree) != labels(first) or not np.array_equal(index.values, samples["index"].values):
            raise ConfigError(
                f"the store of {name} has other samples or outputs than the first one: a gallery is of the same ones"
            )
    rows = ["\n".join(textwrap.wrap(labels(first)[output], LINE)[:3]) for output in chosen[:ROWS]]
    images = fetch(samples["index"].values[:ROWS].tolist())
    columns = [column_of(name, tree, chosen) for name, tree in trees.items()]
    caption = (
        "Each row is a sample and its attribution to the output of its target, each method on a scale of its own: red "
        "speaks for"
    )
    caption += " that output, blue against it, white is zero."
    caption += f" The first {ROWS} of {len(chosen)} samples are drawn." if len(chosen) > ROWS else ""
    folder = files.folder(folder)
    with house_style():
        drawing = save(draw_gallery(images, columns, rows), folder / "gallery.png", "gallery", caption)
    page = environment().get_template("gallery.html.j2").render(drawing=drawing, image=image, columns=columns)
    return files.write(folder / "gallery.html", page.encode("utf-8", errors="backslashreplace"))


def column_of(overrides: str, tree: xr.DataTree, chosen: np.ndarray) -> Column:
    """The maps of one store, for one output of each sample."""
    samples = tree.children["samples"]
    array = next(iter(inputs(samples).values()))["attribution"].drop_vars("output", errors="ignore")
    picked = array.isel(output=xr.DataArray(chosen, dims="sample"))
    maps, _ = fold_features(picked.rename(sample="output"))
    beside = " ".join(part for part in overrides.split() if not part.startswith("method="))
    cost = mapping_of(tree, "cost")
    worst = (
        float(np.nanmax(np.abs(samples.to_dataset()["delta"].values))) if tree.attrs.get("sums_to_prediction") else None
    )
    costs = {
        "forward passes": f"{int(cost.get('forwards', 0)):,}",
        "gradients": f"{int(cost.get('gradient_evaluations', 0)):,}",
        "largest residual of completeness": "not complete" if worst is None else number(worst),
    }
    return Column(title_of(str(tree.attrs.get("method", "?"))), printable(beside), maps, costs)


def draw_gallery(images: np.ndarray, columns: Sequence[Column], rows: Sequence[str]) -> Figure:
    """A row of panels per sample: the input, then each method's map, symmetric about zero on a scale of its own."""
    n, margin = len(images), margin_of(rows)
    figure = Figure(figsize=(margin + (1 + len(columns)) * (SIDE + GAP), TOP + n * (SIDE + GAP)))
    for row in range(n):
        for place in range(1 + len(columns)):
            axes = axes_at(figure, margin + place * (SIDE + GAP), TOP + row * (SIDE + GAP), SIDE, SIDE)
            if place:
                values = np.atleast_2d(columns[place - 1].maps[row])
                axes.imshow(
                    values,
                    norm=symmetric_norm(values),
                    cmap=colours("RdBu_r"),
                    aspect=aspect(values),
                    interpolation="nearest",
                )
                mark_missing(axes, values, "")
            else:
                seen = picture(images[row])
                axes.imshow(seen, cmap=matplotlib.colormaps["gray_r"], aspect=aspect(seen), interpolation="nearest")
                axes.set_ylabel(rows[row], rotation=0, ha="right", va="center", fontsize=FONT, labelpad=PAD)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=HATCH, linewidth=0.6)
            if row == 0:
                axes.set_title(heading(columns[place - 1]) if place else "input", fontsize=8, pad=4)
    return figure


def margin_of(rows: Sequence[str]) -> float:
    """The inches that the names of rows need."""
    figure = Figure()
    renderer = FigureCanvasAgg(figure).get_renderer()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support .* natively")
        widths = [figure.text(0, 0, row, fontsize=FONT).get_window_extent(renderer).width for row in rows]
    return max(MARGIN, max(widths, default=0.0) / figure.dpi + 2 * PAD / 72)


def aspect(values: Floats) -> Literal["auto", "equal"]:
    """The aspect of a panel: pixels are square, and a strip fills its panel."""
    return "auto" if values.shape[0] == 1 else "equal"


def heading(column: Column) -> str:
    """The title above a column, wrapped to the width of a panel."""
    wrapped = textwrap.wrap(column.title, 15)
    beside = [part.partition("=")[2] or part for part in column.beside.split()]
    return "\n".join([*wrapped, *(textwrap.shorten(part, 16, placeholder="…") for part in beside)][:4])
