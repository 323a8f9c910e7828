"""Maps of one input: every output on one colour scale, beside its standard error.

Shape legend: O outputs drawn, F feature dimensions as drawn (none, length, or height x width).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from igc_dist.report.contents import Floats, flags, inputs, labels, title_of
from igc_dist.report.intervals import folds_of
from igc_dist.report.panels import (
    MANY_BARS,
    WIDTH,
    axes_at,
    bars_with_errors,
    colours,
    draw_image,
    draw_scale,
    entitle,
    heading,
    largest,
    mark_missing,
    positive_norm,
    scale_beside,
    short,
    symmetric_norm,
    whole_heading,
)
from igc_dist.report.significance import outline, significant

HEAD, GAP = 0.75, 0.22  # inches: above a grid of images, for its scales; between two outputs
NAMED = 8
"""The largest number of undefined outputs that a note names."""
MAP = "map"
"""The label of the axes that hold a map: others hold a scale or a standard error."""

NewFigure = Callable[..., Figure]
"""What makes a figure: `Figure`, or pyplot's, which shows it."""


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
    columns: int | None = None
    """Panels in a row; None: as many as fit."""
    folds: Floats | None = None
    """The number of folds that hold samples of each output."""
    undefined: int = 0
    """The number of outputs that were taken out by `defined`."""

    @property
    def sure(self) -> np.ndarray | None:
        """Of each feature whether it differs from zero (`significant`); None also of what cannot be below zero."""
        return None if not self.signed else significant(self.values, self.errors, self.folds)

    @property
    def signed(self) -> bool:
        """Whether values may be negative. Standard deviations are not, so their scale starts at zero."""
        return not self.name.endswith("_std")


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
    return Maps(
        name,
        values,
        errors,
        labels(tree)[:max_outputs],
        flags(tree)[:max_outputs],
        names,
        note,
        folds=folds_of(tree)[:max_outputs],
    )


def defined(maps: Maps) -> Maps:
    """Without the outputs that have no finite value, which the note names; all of them if none has one."""
    known = np.asarray(np.isfinite(maps.values).reshape(len(maps.labels), -1).any(1))
    if known.all() or not known.any():
        return maps
    gone = [
        f"{label} ({flag})" if flag else label for label, flag in _where(np.logical_not(known), maps.labels, maps.flags)
    ]
    told = ", ".join(gone[:NAMED]) + (f" and {len(gone) - NAMED} more" if len(gone) > NAMED else "")
    kept = _where(known, maps.labels, maps.flags)
    return replace(
        maps,
        values=maps.values[known],
        errors=None if maps.errors is None else maps.errors[known],
        labels=[label for label, _ in kept],
        flags=[flag for _, flag in kept],
        folds=None if maps.folds is None else maps.folds[known],
        note=f"{maps.note} Undefined, so not drawn: {told}.".strip(),
        undefined=len(gone),
    )


def _where(chosen: np.ndarray, *lists: Sequence[str]) -> list[tuple[str, ...]]:
    return [row for row, take in zip(zip(*lists, strict=True), chosen.tolist(), strict=True) if take]


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


def draw_maps(maps: Maps, new: NewFigure = Figure) -> Figure:
    """A figure of all outputs in `maps`: images for two feature dimensions, bars with standard errors for one or none.

    Units: IGC and correlations have none; means and deviations of IG carry the unit of the model's output.
    """
    if maps.values.ndim == 3:
        return draw_images(maps, new)
    return draw_bars(maps, new) if maps.values.ndim == 2 else draw_scalars(maps, new)


def draw_images(maps: Maps, new: NewFigure = Figure) -> Figure:
    """A grid of images: map and standard error side by side.

    All maps share one scale, and all errors share another; both are shown at the top.
    """
    count, height, width = maps.values.shape
    aspect = float(np.clip(height / width, 0.25, 2.0))
    layers = [(maps.values, *value_scale(maps), title_of(maps.name))]
    if maps.errors is not None:
        layers.append((maps.errors, positive_norm(maps.errors), colours("Purples"), "standard error"))
    columns = maps.columns or min(max(count, 1), (8 if aspect >= 0.5 else 4) // len(layers))
    group = min(2.5 * len(layers), WIDTH / columns)  # inches of one output, with the gap to the next
    side = (group - GAP) / len(layers)
    line = side * aspect + 0.36
    rows = -(-max(count, 1) // columns)
    figure = new(figsize=(max(columns * group, 3.2), HEAD + rows * line))
    sure = maps.sure
    for place, (values, norm, cmap, title) in enumerate(layers):
        draw_scale(figure, place, len(layers), norm, cmap, title)
        for index in range(count):
            row, slot = divmod(index, columns)
            axes = axes_at(
                figure, slot * group + place * side + 0.06, HEAD + row * line + 0.26, side - 0.06, side * aspect - 0.06
            )
            draw_image(axes, values[index], norm, cmap, maps.flags[index])
            if place == 0:
                axes.set_label(MAP)
                entitle(axes, heading(maps.labels[index]))
                if sure is not None:
                    outline(axes, sure[index])
            else:
                axes.set_title("standard error", loc="left", fontsize=7.5, color="#666666", pad=3)
    return figure


def value_scale(maps: Maps) -> tuple[Normalize, Colormap]:
    """The common scale of all maps: symmetric about zero for signed values, from zero up for deviations."""
    if maps.signed:
        return symmetric_norm(maps.values), colours("RdBu_r")
    return positive_norm(maps.values), colours("YlOrBr")


def draw_bars(maps: Maps, new: NewFigure = Figure) -> Figure:
    """One panel of bars per output with standard errors, all on one vertical scale.

    The scale is symmetric about zero for signed values.
    """
    count, length = maps.values.shape
    columns = maps.columns or min(max(count, 1), 3 if length > 12 else 4)
    rows, side, line = -(-max(count, 1) // columns), 0.7, 1.7
    width = min((WIDTH - side) / columns, 4.5)
    figure = new(figsize=(side + columns * width, 0.3 + rows * line + (1.0 if maps.features else 0.3)))
    figure.text(0.05 / (side + columns * width), 1 - 0.2 / figure.get_figheight(), title_of(maps.name), fontsize=9)
    for index in range(count):
        row, slot = divmod(index, columns)
        axes = axes_at(figure, side + slot * width, 0.3 + row * line + 0.25, width - 0.15, line - 0.4)
        axes.tick_params(labelsize=8, labelbottom=index + columns >= count, labelleft=slot == 0)
        draw_bar_panel(axes, maps, index)
        entitle(axes, heading(maps.labels[index]))
        axes.set_label(MAP)
    return figure


def draw_bar_panel(axes: Axes, maps: Maps, index: int) -> None:
    """The bars of one output, with their standard errors and the names of the features."""
    bars_with_errors(axes, maps.values[index], None if maps.errors is None else maps.errors[index])
    axes.set_ylim(*bar_limits(maps))
    mark_missing(axes, maps.values[index], maps.flags[index])
    if maps.features:
        names = [short(name, 16) for name in maps.features]
        axes.set_xticks(range(len(names)), labels=names, rotation=90, fontsize=7, parse_math=False)


def draw_scalars(maps: Maps, new: NewFigure = Figure) -> Figure:
    """One bar per output with its standard error, for inputs that are a single number."""
    figure = new(figsize=(WIDTH * 0.7, 2.8), layout="constrained")
    axes = figure.subplots()
    draw_scalar_bars(axes, maps)
    return figure


def draw_scalar_bars(axes: Axes, maps: Maps) -> None:
    """The bars of `draw_scalars`."""
    axes.set_label(MAP)
    bars_with_errors(axes, maps.values, maps.errors)
    axes.set_ylim(*bar_limits(maps))
    rotation = 90 if any(len(label) > 4 for label in maps.labels) else 0
    names = [short(label) for label in maps.labels]
    axes.set_xticks(range(len(names)), labels=names, fontsize=8, rotation=rotation, parse_math=False)
    axes.set_ylabel(title_of(maps.name), fontsize=9)


def bar_limits(maps: Maps) -> tuple[float, float]:
    """The common vertical scale of all bars, with room for the longest whisker."""
    errors = np.zeros_like(maps.values) if maps.errors is None else np.nan_to_num(maps.errors)
    limit = 1.05 * largest(np.abs(maps.values) + errors)
    return (-limit if maps.signed else 0.0, limit)


def draw_on(panels: Sequence[Axes], maps: Maps) -> None:
    """The maps on axes of somebody else, one for each output; inputs of one number take one for all.

    All have one scale. For images it is beside them.
    """
    if maps.values.ndim == 1:
        draw_scalar_bars(panels[0], maps)
        return
    norm, cmap = value_scale(maps)
    sure = maps.sure if maps.values.ndim == 3 else None
    for index, axes in enumerate(panels):
        if maps.values.ndim == 3:
            draw_image(axes, maps.values[index], norm, cmap, maps.flags[index])
            if sure is not None:
                outline(axes, sure[index])
        else:
            draw_bar_panel(axes, maps, index)
            axes.set_ylabel(title_of(maps.name))
        entitle(axes, whole_heading(maps.labels[index]))
    if maps.values.ndim == 3:
        scale_beside(panels, norm, cmap, title_of(maps.name))
