"""Figures of maps: images on one colour scale, bars with intervals on one vertical scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from igc_dist.report.contents import scale_of
from igc_dist.report.maps import Maps, NewFigure
from igc_dist.report.panels import (
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
from igc_dist.report.significance import outline

HEAD, GAP = 0.75, 0.22  # inches: above a grid of images, for its scales; between two outputs
MAP = "map"
"""The label of the axes that hold a map: others hold a scale or a standard error."""


def draw_maps(maps: Maps, new: NewFigure = Figure, *, beside: bool = True) -> Figure:
    """A figure of all outputs in `maps`: images for two feature dimensions, bars with intervals for one or none.

    `beside`: images are beside their standard errors.

    Units (`unit_of`): IGC is a part of the correlation; means and deviations of IG have that of the model's output.
    """
    if maps.values.ndim == 3:
        return draw_images(maps, new, beside=beside)
    return draw_bars(maps, new) if maps.values.ndim == 2 else draw_scalars(maps, new)


def draw_images(maps: Maps, new: NewFigure = Figure, *, beside: bool = True) -> Figure:
    """A grid of images: map and standard error side by side, or maps alone.

    All maps share one scale, and all errors share another; both are shown at the top.
    """
    count, height, width = maps.values.shape
    aspect = float(np.clip(height / width, 0.25, 2.0))
    layers = [(maps.values, *value_scale(maps), scale_of(maps.name))]
    if maps.errors is not None and beside:
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
    if maps.name.endswith("_se"):
        return positive_norm(maps.values), colours("Purples")
    return positive_norm(maps.values), colours("YlOrBr")


def draw_bars(maps: Maps, new: NewFigure = Figure) -> Figure:
    """One panel of bars per output with 95 % intervals, all on one vertical scale.

    The scale is symmetric about zero for signed values.
    """
    count, length = maps.values.shape
    columns = maps.columns or min(max(count, 1), 3 if length > 12 else 4)
    rows, side, line = -(-max(count, 1) // columns), 0.8, 1.9
    width = min((WIDTH - side) / columns, 4.5)
    figure = new(figsize=(side + columns * width, 0.1 + rows * line + (1.2 if maps.features else 0.5)))
    for index in range(count):
        row, slot = divmod(index, columns)
        axes = axes_at(figure, side + slot * width, 0.1 + row * line + 0.25, width - 0.15, line - 0.4)
        axes.tick_params(labelsize=8, labelbottom=index + columns >= count, labelleft=slot == 0)
        draw_bar_panel(axes, maps, index)
        axes.set_ylabel(two_lines(maps.name) if slot == 0 else "", fontsize=8)
        axes.set_xlabel(axes.get_xlabel() if index + columns >= count else "")
        entitle(axes, heading(maps.labels[index]))
        axes.set_label(MAP)
    return figure


def draw_bar_panel(axes: Axes, maps: Maps, index: int) -> None:
    """The bars of one output, with their intervals and the names of the features."""
    bars_with_errors(axes, maps.values[index], None if maps.reach is None else maps.reach[index])
    axes.set_ylim(*bar_limits(maps))
    mark_missing(axes, maps.values[index], maps.flags[index])
    if maps.features:
        names = [short(name, 16) for name in maps.features]
        axes.set_xticks(range(len(names)), labels=names, rotation=90, fontsize=7, parse_math=False)
    axes.set_xlabel(maps.axis, fontsize=8, parse_math=False)


def draw_scalars(maps: Maps, new: NewFigure = Figure) -> Figure:
    """One bar per output with its 95 % interval, for inputs that are a single number."""
    figure = new(figsize=(WIDTH * 0.7, 2.8), layout="constrained")
    axes = figure.subplots()
    draw_scalar_bars(axes, maps)
    return figure


def draw_scalar_bars(axes: Axes, maps: Maps) -> None:
    """The bars of `draw_scalars`."""
    axes.set_label(MAP)
    bars_with_errors(axes, maps.values, maps.reach)
    axes.set_ylim(*bar_limits(maps))
    rotation = 90 if any(len(label) > 4 for label in maps.labels) else 0
    names = [short(label) for label in maps.labels]
    axes.set_xticks(range(len(names)), labels=names, fontsize=8, rotation=rotation, parse_math=False)
    axes.set_ylabel(two_lines(maps.name), fontsize=9)


def two_lines(name: str) -> str:
    """The name of a vertical axis: its unit below its title."""
    return scale_of(name).replace(", ", "\n", 1)


def bar_limits(maps: Maps) -> tuple[float, float]:
    """The common vertical scale of all bars, with room for the longest whisker."""
    errors = np.zeros_like(maps.values) if maps.reach is None else np.nan_to_num(maps.reach)
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
            axes.set_ylabel(two_lines(maps.name))
        entitle(axes, whole_heading(maps.labels[index]))
    if maps.values.ndim == 3:
        scale_beside(panels, norm, cmap, scale_of(maps.name))
