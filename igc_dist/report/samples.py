"""Samples whose attributions are kept: picture, map and overlay of each, its predictions and its completeness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from igc_dist import files
from igc_dist.records import printable
from igc_dist.report.contents import inputs, main_map, number, span, title_of
from igc_dist.report.figures import Drawing, save
from igc_dist.report.maps import defined, read_maps
from igc_dist.report.overlays import Overlay, clipped_norm, draw_overlay, picture
from igc_dist.report.panels import (
    NEGATIVE,
    POSITIVE,
    axes_at,
    colours,
    draw_image,
    entitle,
    heading,
    house_style,
    short,
)
from igc_dist.report.ranked import names_of
from igc_dist.report.rows import Fetch, Row, first_group, rows_of
from igc_dist.report.thumbnails import Mean, pictured

MOST = 16
"""The largest number of samples on a page."""
PREDICTIONS = 3
ACROSS = 6
"""Overlays side by side."""
SIDE, GAP, HEAD = 1.7, 0.08, 0.22
"""Inches: a panel, the space between two, the space for titles."""
NAMES, LINE, LARGEST = 1.3, 0.18, 6
"""Inches of the names beside bars and of a bar, and the largest number of bars."""


@dataclass(frozen=True)
class Shown:
    """A sample on the page."""

    index: int
    output: str
    predictions: list[str]
    confidence: str
    residual: str
    drawing: Drawing


def draw_samples(tree: xr.DataTree, folder: Path, fetch: Fetch | None) -> list[Shown]:
    """Draw the first 16 samples of the first input into `folder`: each with the output of its target.

    With `fetch`, the sample itself and its overlay are beside the map. The page of a store without attributions of
    samples has none.
    """
    if first_group(tree) is None:
        return []
    files.folder(folder)
    found = []
    with house_style():
        for row in rows_of(tree, fetch, MOST):
            what = "map" if row.image is None else "sample, map and overlay"
            what = "largest features" if row.map.ndim == 1 else what
            caption = f"{what} of sample {row.index} for {heading(row.output)}: red speaks for it, blue against it"
            drawing = save(strip(row), folder / f"sample-{row.index}.png", f"sample {row.index}", printable(caption))
            largest = row.order[:PREDICTIONS]
            found.append(
                Shown(
                    index=row.index,
                    output=row.output,
                    predictions=[f"{row.names[k]} ({number(float(row.predictions[k]))})" for k in largest],
                    confidence="" if row.confidence is None else f"{100 * row.confidence:.0f} %",
                    residual="not complete" if row.residual is None else number(row.residual),
                    drawing=drawing,
                )
            )
    return found


def strip(row: Row) -> Figure:
    """Sample, map and overlay beside each other, or the map alone. Colours end at the 99th percentile."""
    if row.map.ndim == 1:
        return bars(row)
    values = np.atleast_2d(row.map)
    count = 3 if row.image is not None and row.map.ndim == 2 else 1
    figure = Figure(figsize=(count * (SIDE + GAP), SIDE + HEAD))
    panels = [axes_at(figure, place * (SIDE + GAP), HEAD, SIDE, SIDE) for place in range(count)]
    draw_image(panels[count // 2], values, clipped_norm(values), colours("RdBu_r"))
    if count > 1:
        assert row.image is not None
        panels[0].imshow(picture(row.image), cmap="gray", aspect="equal")
        panels[0].set(xticks=[], yticks=[])
        draw_overlay(panels[2], row.image, Overlay(row.map, ""))
        for axes, title in zip(panels, ("sample", "map", "overlay"), strict=True):
            entitle(axes, title)
    return figure


def bars(row: Row) -> Figure:
    """The sample, where it is a picture, beside its largest features by value."""
    seen = row.image is not None and pictured(row.image)
    chosen = np.argsort(-np.abs(np.nan_to_num(row.map)), kind="stable")[:LARGEST]
    chosen = chosen[np.argsort(-row.map[chosen], kind="stable")]
    names = names_of(row.attribution, row.map.size)
    width, high = float(seen) * (SIDE + GAP), SIDE if seen else 0.35 + LINE * len(chosen)
    figure = Figure(figsize=(width + NAMES + 1.5 * SIDE, high + GAP))
    if row.image is not None and seen:
        image = axes_at(figure, 0.0, GAP / 2, SIDE, SIDE)
        image.imshow(picture(row.image), cmap="gray", aspect="equal")
        image.set(xticks=[], yticks=[])
    axes = axes_at(figure, width + NAMES, GAP / 2, 1.5 * SIDE - GAP, min(0.1 + LINE * len(chosen), high - 0.35))
    values, place = row.map[chosen], np.arange(len(chosen))
    axes.barh(place, np.nan_to_num(values), color=np.where(values < 0, NEGATIVE, POSITIVE).tolist(), height=0.7)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_yticks(place, labels=[short(names[each], 18) for each in chosen], fontsize=8, parse_math=False)
    axes.set_ylim(len(place) - 0.4, -0.6)
    axes.tick_params(axis="x", labelsize=7)
    axes.locator_params(axis="x", nbins=4)
    return figure


def draw_behind(tree: xr.DataTree, folder: Path, means: Mapping[str, Mean], max_outputs: int) -> Drawing | None:
    """Draw the main map of the first input over the mean of each output's samples. None without means or pixels.

    Each map has a scale of its own, which ends at its 99th percentile.
    """
    group = next(iter(inputs(tree)), None)
    name = None if group is None else main_map(inputs(tree)[group])
    if group is None or name is None or not means:
        return None
    maps = defined(read_maps(tree, group, name, max_outputs))
    drawn = [place for place, label in enumerate(maps.labels) if label in means]
    if maps.values.ndim != 3 or not maps.signed or not drawn:
        return None
    with house_style():
        rows = -(-len(drawn) // ACROSS)
        figure = Figure(figsize=(min(len(drawn), ACROSS) * (SIDE + GAP), rows * (SIDE + HEAD + GAP)))
        for slot, place in enumerate(drawn):
            row, column = divmod(slot, ACROSS)
            top = row * (SIDE + HEAD + GAP) + HEAD
            axes = axes_at(figure, column * (SIDE + GAP), top, SIDE, SIDE)
            label = maps.labels[place]
            draw_overlay(axes, np.moveaxis(means[label].image, -1, 0), Overlay(maps.values[place], heading(label)))
        counts = span(np.array([means[maps.labels[place]].n for place in drawn]))
        caption = (
            f"{title_of(name)} over the mean of samples whose target lies above its mean, for labels those of the "
            f"class ({counts} of each, at even distances). Red speaks for the output, blue against it; each map on a "
            "scale of its own, which ends at its 99th percentile."
        )
        return save(figure, folder / "behind.png", "maps over means", caption)
