"""Samples whose attributions are kept: picture, map and overlay of each, its predictions and its completeness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from igc_dist import files
from igc_dist.records import printable
from igc_dist.report.contents import all_inputs, labels, number
from igc_dist.report.figures import Drawing, save
from igc_dist.report.overlays import Overlay, clipped_norm, draw_overlay, overlay_of, picture
from igc_dist.report.panels import axes_at, colours, draw_image, entitle, heading, house_style

Fetch = Callable[[list[int]], np.ndarray]
"""The first input of the samples with given indices, (n, *P); NaN for a sample that cannot be read."""

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
    if "samples" not in tree.children:
        return []
    group = next((name for name in all_inputs(tree) if name in tree["samples"].children), None)
    if group is None:
        return []
    samples = tree.children["samples"].to_dataset()
    index = samples["index"].values[:MOST].tolist()
    images = [None] * len(index) if fetch is None else list(fetch(index))
    names, complete = labels(tree), bool(tree.attrs.get("sums_to_prediction"))
    files.folder(folder)
    found = []
    with house_style():
        for row, (i, image) in enumerate(zip(index, images, strict=True)):
            its = samples.isel(sample=row)  # the tables of all samples may be larger than memory
            place = int(np.nan_to_num(its["target"].values, nan=-np.inf).argmax())
            prediction = np.asarray(its["prediction"].values, np.float64)
            heads = list(map(str, its["explained_name"].values)) if "explained_name" in its else names
            order = np.argsort(-np.nan_to_num(prediction, nan=-np.inf), kind="stable")[:PREDICTIONS].tolist()
            drawn = overlay_of(tree, group, i, place)
            what = "sample, map and overlay" if image is not None else "map"
            caption = f"{what} of sample {i} for {heading(heads[place])}: red speaks for it, blue against it"
            figure = strip(drawn, image)
            found.append(
                Shown(
                    index=i,
                    output=heads[place],
                    predictions=[f"{heads[each]} ({number(float(prediction[each]))})" for each in order],
                    residual=number(float(its["delta"].values[place])) if complete else "not complete",
                    drawing=save(figure, folder / f"sample-{i}.png", f"sample {i}", printable(caption)),
                )
            )
    return found


def strip(drawn: Overlay, image: np.ndarray | None) -> Figure:
    """Sample, map and overlay beside each other, or the map alone. Colours end at the 99th percentile."""
    values = np.atleast_2d(drawn.values)
    known = image is not None and bool(np.isfinite(image).any())
    count = 3 if known and drawn.values.ndim == 2 else 1
    figure = Figure(figsize=(count * (SIDE + GAP), SIDE + HEAD))
    panels = [axes_at(figure, place * (SIDE + GAP), HEAD, SIDE, SIDE) for place in range(count)]
    draw_image(panels[count // 2], values, clipped_norm(values), colours("RdBu_r"))
    if count > 1:
        assert image is not None
        seen = picture(image)
        panels[0].imshow(seen, cmap="gray", aspect="equal")
        panels[0].set(xticks=[], yticks=[])
        draw_overlay(panels[2], image, drawn)
        for axes, title in zip(panels, ("sample", "map", "overlay"), strict=True):
            entitle(axes, title)
    return figure
