"""Samples whose attributions are kept: picture, map and overlay of each, its predictions and its completeness."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from igc_dist import files
from igc_dist.records import printable
from igc_dist.report.contents import number
from igc_dist.report.figures import Drawing, save
from igc_dist.report.overlays import Overlay, clipped_norm, draw_overlay, picture
from igc_dist.report.panels import axes_at, colours, draw_image, entitle, heading, house_style
from igc_dist.report.rows import Fetch, Row, first_group, rows_of

MOST = 16
"""The largest number of samples on a page."""
PREDICTIONS = 3
SIDE, GAP, HEAD = 1.7, 0.08, 0.22
"""Inches: a panel, the space between two, the space for titles."""


@dataclass(frozen=True)
class Shown:
    """A sample on the page."""

    index: int
    output: str
    predictions: list[str]
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
            caption = f"{what} of sample {row.index} for {heading(row.output)}: red speaks for it, blue against it"
            drawing = save(strip(row), folder / f"sample-{row.index}.png", f"sample {row.index}", printable(caption))
            largest = row.order[:PREDICTIONS]
            found.append(
                Shown(
                    index=row.index,
                    output=row.output,
                    predictions=[f"{row.names[k]} ({number(float(row.predictions[k]))})" for k in largest],
                    residual="not complete" if row.residual is None else number(row.residual),
                    drawing=drawing,
                )
            )
    return found


def strip(row: Row) -> Figure:
    """Sample, map and overlay beside each other, or the map alone. Colours end at the 99th percentile."""
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
