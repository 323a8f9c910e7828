"""Maps of one input: every output on one colour scale, beside its standard error.

Shape legend: O outputs drawn, F feature dimensions as drawn (none, length, or height x width).
"""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from igc_dist.report.contents import Floats, flags, inputs, labels, title_of

WIDTH = 11.0  # inches of a full-width figure
HEAD, GAP = 0.75, 0.22  # inches: above a grid of images, for its scales; between two outputs
MANY_BARS = 64  # longer features are drawn as an outline, as bars would be thinner than a pixel
POSITIVE, NEGATIVE, MISSING, HATCH = "#b2182b", "#2166ac", "#e4e4e4", "#a8a8a8"


@dataclass(frozen=True)
class Maps:
    """The outputs of one array of one input that are drawn, with their features folded to at most two dimensions."""

    name: str
    values: Floats
    errors: Floats | None
    labels: list[str]
    flags: list[str]
    features: list[str]
    note: str

    @property
    def signed(self) -> bool:
        """Whether values may be negative. Standard deviations are not, so their scale starts at zero."""
        return not self.name.endswith("_std")


def symmetric_norm(values: Floats) -> Normalize:
    """The colour scale -m .. m, where m is the largest finite |value| (1 if none), so that zero is in the middle."""
    limit = largest(values)
    return Normalize(-limit, limit)


def positive_norm(values: Floats) -> Normalize:
    """The colour scale 0 .. m, where m is the largest finite value, for standard errors and deviations."""
    return Normalize(0.0, largest(values))


def largest(values: Floats) -> float:
    """The largest finite magnitude, or 1 if no value is finite or all are zero, because a scale needs a width."""
    magnitude = np.abs(values[np.isfinite(values)])
    top = float(magnitude.max()) if magnitude.size else 0.0
    return top if top > np.finfo(np.float64).tiny else 1.0


def read_maps(tree: xr.DataTree, group: str, name: str, max_outputs: int) -> Maps:
    """Read the first `max_outputs` outputs of array `name` of input `group`, and their standard errors if any."""
    dataset = inputs(tree)[group]
    array = dataset[name].isel(output=slice(max_outputs))
    se = dataset[f"{name}_se"].isel(output=slice(max_outputs)) if f"{name}_se" in dataset else None
    values, summed = fold_features(array)
    errors = None if se is None else fold_features(se)[0]
    note = ""
    if summed:
        note = f"Summed over {' and '.join(summed)}."
        note += (
            "" if errors is None else " Its standard error is the sum over the same entries, which is an upper bound."
        )
    names = feature_names(array, values.shape[1:])
    return Maps(name, values, errors, labels(tree)[:max_outputs], flags(tree)[:max_outputs], names, note)


def fold_features(array: xr.DataArray) -> tuple[Floats, list[str]]:
    """Fold features to at most two dimensions (O, *F). Returns also the dimensions that were summed.

    Dimensions of size one are dropped. If three or more remain, `channel` is summed first, then the leading ones. Sums
    keep the total of a map.
    """
    array = array.transpose("output", ...)
    array = array.squeeze([dim for dim in array.dims[1:] if array.sizes[dim] == 1])
    dims = [dim for dim in array.dims if dim != "output"]
    order = sorted(dims, key=lambda dim: dim != "channel")
    summed = order[: max(len(dims) - 2, 0)]
    values = np.asarray(array.values, dtype=np.float64)
    values = np.where(np.isfinite(values), values, np.nan)
    total = values.sum(axis=tuple(array.dims.index(dim) for dim in summed)) if summed else values
    return total, [f"{dim} ({array.sizes[dim]})" for dim in summed]


def feature_names(array: xr.DataArray, shape: tuple[int, ...]) -> list[str]:
    """The names of single features, if the store has them and they are few enough to print."""
    if len(shape) != 1 or shape[0] > MANY_BARS:
        return []
    named = [
        array.coords[dim].values
        for dim in array.dims
        if dim != "output" and array.sizes[dim] == shape[0] and dim in array.coords
    ]
    return [str(value) for value in named[0].tolist()] if named else []


def draw_maps(maps: Maps) -> Figure:
    """A figure of all outputs in `maps`: images for two feature dimensions, bars with standard errors for one or none.

    Units: IGC and correlations have none; means and deviations of IG carry the unit of the model's output.
    """
    if maps.values.ndim == 3:
        return draw_images(maps)
    return draw_bars(maps) if maps.values.ndim == 2 else draw_scalars(maps)


def draw_images(maps: Maps) -> Figure:
    """A grid of images: map and standard error side by side.

    All maps share one scale, and all errors share another; both are shown at the top.
    """
    count, height, width = maps.values.shape
    aspect = float(np.clip(height / width, 0.25, 2.0))
    layers = [(maps.values, *value_scale(maps), title_of(maps.name))]
    if maps.errors is not None:
        layers.append((maps.errors, positive_norm(maps.errors), colours("Purples"), "standard error"))
    columns = min(max(count, 1), (8 if aspect >= 0.5 else 4) // len(layers))
    group = min(2.5 * len(layers), WIDTH / columns)  # inches of one output, with the gap to the next
    side = (group - GAP) / len(layers)
    line = side * aspect + 0.36
    rows = -(-max(count, 1) // columns)
    figure = Figure(figsize=(max(columns * group, 3.2), HEAD + rows * line))
    for place, (values, norm, cmap, title) in enumerate(layers):
        draw_scale(figure, place, len(layers), norm, cmap, title)
        for index in range(count):
            row, slot = divmod(index, columns)
            axes = axes_at(
                figure, slot * group + place * side + 0.06, HEAD + row * line + 0.26, side - 0.06, side * aspect - 0.06
            )
            axes.imshow(values[index], norm=norm, cmap=cmap, aspect="equal" if aspect == height / width else "auto")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=HATCH, linewidth=0.6)
            mark_missing(axes, values[index], maps.flags[index])
            if place == 0:
                axes.set_title(heading(maps.labels[index]), loc="left", fontsize=9, pad=3)
            else:
                axes.set_title("standard error", loc="left", fontsize=7.5, color="#666666", pad=3)
    return figure


def value_scale(maps: Maps) -> tuple[Normalize, Colormap]:
    """The common scale of all maps: symmetric about zero for signed values, from zero up for deviations."""
    if maps.signed:
        return symmetric_norm(maps.values), colours("RdBu_r")
    return positive_norm(maps.values), colours("YlOrBr")


def colours(name: str) -> Colormap:
    """A colour map that leaves undefined cells transparent, so that the hatching below is visible."""
    return matplotlib.colormaps[name].with_extremes(bad=(0, 0, 0, 0))


def axes_at(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes placed in inches from the upper left corner."""
    wide, high = figure.get_size_inches()
    return figure.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))


def draw_scale(figure: Figure, place: int, panels: int, norm: Normalize, cmap: Colormap, title: str) -> None:
    """A horizontal colour bar at the top of the figure, in the `place`-th of `panels` equal parts."""
    part = min(float(figure.get_size_inches()[0]), WIDTH) / panels
    axes = axes_at(figure, place * part + 0.3, 0.27, min(part - 0.7, 3.4), 0.13)
    limits = [float(bound) for bound in norm.inverse(np.array([0.0, 1.0]))]
    bar = figure.colorbar(ScalarMappable(norm, cmap), cax=axes, orientation="horizontal")
    bar.set_ticks(sorted({0.0, *limits}))
    bar.ax.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    bar.ax.tick_params(labelsize=8, length=2)
    axes.set_title(title, fontsize=9, loc="left", pad=4)


def mark_missing(axes: Axes, values: Floats, flag: str) -> None:
    """Hatch undefined cells of an image. If a whole map is undefined, also write the reason."""
    undefined = ~np.isfinite(values)
    if not undefined.any():
        return
    if values.ndim == 2:
        axes.add_patch(hatching(axes))
    if undefined.all():
        reason = (flag or "no finite value").replace(", ", "\n").replace(" ", "\n")
        style = {"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": "none", "alpha": 0.9}
        axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", va="center", fontsize=7.5, bbox=style)


def hatching(axes: Axes) -> Rectangle:
    """The hatched background for undefined cells, as large as the axes and below everything."""
    return Rectangle(
        (0, 0), 1, 1, transform=axes.transAxes, facecolor=MISSING, edgecolor=HATCH, hatch="////", linewidth=0, zorder=-1
    )


def draw_bars(maps: Maps) -> Figure:
    """One panel of bars per output with standard errors, all on one vertical scale.

    The scale is symmetric about zero for signed values.
    """
    count, length = maps.values.shape
    columns = min(max(count, 1), 3 if length > 12 else 4)
    rows, side, line = -(-max(count, 1) // columns), 0.7, 1.7
    width = min((WIDTH - side) / columns, 4.5)
    figure = Figure(figsize=(side + columns * width, 0.3 + rows * line + (1.0 if maps.features else 0.3)))
    figure.text(0.05 / (side + columns * width), 1 - 0.2 / figure.get_figheight(), title_of(maps.name), fontsize=9)
    for index in range(count):
        row, slot = divmod(index, columns)
        axes = axes_at(figure, side + slot * width, 0.3 + row * line + 0.25, width - 0.15, line - 0.4)
        bars_with_errors(axes, maps.values[index], None if maps.errors is None else maps.errors[index])
        axes.set_ylim(*bar_limits(maps))
        mark_missing(axes, maps.values[index], maps.flags[index])
        axes.set_title(heading(maps.labels[index]), loc="left", fontsize=9, pad=3)
        axes.tick_params(labelsize=8, labelbottom=index + columns >= count, labelleft=slot == 0)
        if maps.features:
            axes.set_xticks(range(length), labels=[short(name, 16) for name in maps.features], rotation=90, fontsize=7)
    return figure


def draw_scalars(maps: Maps) -> Figure:
    """One bar per output with its standard error, for inputs that are a single number."""
    figure = Figure(figsize=(WIDTH * 0.7, 2.8), layout="constrained")
    axes = figure.subplots()
    bars_with_errors(axes, maps.values, maps.errors)
    axes.set_ylim(*bar_limits(maps))
    rotation = 90 if any(len(label) > 4 for label in maps.labels) else 0
    axes.set_xticks(
        range(len(maps.labels)), labels=[short(label) for label in maps.labels], fontsize=8, rotation=rotation
    )
    axes.set_ylabel(title_of(maps.name), fontsize=9)
    return figure


def bar_limits(maps: Maps) -> tuple[float, float]:
    """The common vertical scale of all bars, with room for the longest whisker."""
    errors = np.zeros_like(maps.values) if maps.errors is None else np.nan_to_num(maps.errors)
    limit = 1.05 * largest(np.abs(maps.values) + errors)
    return (-limit if maps.signed else 0.0, limit)


def bars_with_errors(axes: Axes, values: Floats, errors: Floats | None) -> None:
    """Draw bars in the colours of the maps, with standard errors as whiskers and hatched gaps.

    Many bars are drawn as an outline, with the errors as a band.
    """
    place, edges = np.arange(values.size), np.arange(values.size + 1) - 0.5
    low, high = (values, values) if errors is None else (values - errors, values + errors)
    if values.size > MANY_BARS:
        axes.stairs(np.maximum(values, 0), edges, fill=True, color=POSITIVE)
        axes.stairs(np.minimum(values, 0), edges, fill=True, color=NEGATIVE)
        axes.fill_between(place, low, high, step="mid", color="black", alpha=0.3, linewidth=0)
    else:
        axes.bar(place, values, color=np.where(values < 0, NEGATIVE, POSITIVE).tolist())
        axes.vlines(place, low, high, color="black", linewidth=1)
    gaps = np.where(np.isfinite(values), np.nan, 1.0)
    if np.isfinite(gaps).any():
        whole = axes.get_xaxis_transform()
        axes.stairs(
            gaps,
            edges,
            fill=True,
            transform=whole,
            facecolor=MISSING,
            edgecolor=HATCH,
            hatch="////",
            linewidth=0,
            zorder=-1,
        )
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xlim(-0.8, values.size - 0.2)


def heading(label: str) -> str:
    """The title of an output's panel. A bare number gets a word in front that says what it counts."""
    return short(f"output {label}" if label.isdigit() else label)


def short(text: str, limit: int = 26) -> str:
    """Text shortened to fit above a panel. The tables have the full text."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
