"""A sample under its map."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_rgba

from igc_dist.records import ConfigError, place_of, printable
from igc_dist.report.contents import Floats, inputs, labels, main_map, title_of
from igc_dist.report.maps import fold_features
from igc_dist.report.panels import HATCH, NEGATIVE, POSITIVE, entitle, symmetric_norm

CLIP = 99.0
"""Percentile of the magnitudes at which colours end: one bright pixel does not make the rest invisible."""
OPAQUE = 0.85
"""Opacity of the largest values; that of others is less, by the root of their size."""
PALE = 0.35
"""How much of the way to white the sample is taken, so that dark samples do not swallow the colours."""


@dataclass(frozen=True)
class Overlay:
    """A map (height, width), or of one dimension, and what it is of."""

    values: Floats
    title: str


def overlay_of(tree: xr.DataTree, group: str, i: int, output: str | int | None) -> Overlay:
    """The attribution of sample `i`, or the map over the data set where attributions of samples are not kept.

    `output`: a name or a number; the one with the largest target if None. Raises `ConfigError` for a sample or an
    output that is not there.
    """
    names = labels(tree)
    if "samples" in tree.children and group in tree["samples"].children:
        samples = tree["samples"].to_dataset()
        rows = np.flatnonzero(samples["index"].values == i)
        if not rows.size:
            raise ConfigError(f"sample {i} is none of the {samples.sizes['sample']} whose attributions are kept")
        row = int(rows[0])
        target = np.nan_to_num(samples["target"].isel(sample=row).values, nan=-np.inf)
        place = int(target.argmax()) if output is None else place_of(output, names)
        array = tree[f"samples/{group}/attribution"].isel(sample=[row]).isel(output=place, drop=True)
        values, what = fold_features(array.rename(sample="output"))[0][0], ""
        if "explained_name" in samples:
            what = f": {printable(str(samples['explained_name'].values[row, place]))}"
    else:
        if output is None:
            raise ConfigError("the attributions of samples are not kept: give output=, to draw its map of the data set")
        place, name = place_of(output, names), main_map(inputs(tree)[group])
        assert name is not None
        values, what = fold_features(inputs(tree)[group][name].isel(output=[place]))[0][0], f", {title_of(name)}"
    return Overlay(np.asarray(values), f"sample {i}, output {names[place]}{what}")


def draw_overlay(axes: Axes, image: np.ndarray, drawn: Overlay) -> None:
    """A sample as the model got it, (*P), in grey, and above it the map.

    A map of another size is stretched over the sample. Raises `ConfigError` for maps without height and width.
    """
    if drawn.values.ndim != 2:
        raise ConfigError(f"a map of shape {drawn.values.shape} has no height and width to lie over: see segments()")
    seen = picture(image)
    grey = seen @ np.array([0.299, 0.587, 0.114]) if seen.ndim == 3 else seen
    low, high = np.nanmin(grey), np.nanmax(grey)
    shown = PALE + (1 - PALE) * (grey - low) / (high - low if high > low else 1.0)
    height, width = shown.shape
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(shown, cmap=matplotlib.colormaps["gray"], vmin=0.0, vmax=1.0, extent=extent)
    axes.imshow(tinted(drawn.values), extent=extent, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=HATCH, linewidth=0.6)
    entitle(axes, drawn.title)


def clipped_norm(values: Floats) -> Normalize:
    """The scale -m .. m, where m is the 99th percentile of the magnitudes, or the largest if that is zero."""
    magnitude = np.abs(values[np.isfinite(values)])
    limit = float(np.percentile(magnitude, CLIP)) if magnitude.size else 0.0
    return symmetric_norm(np.array([limit]) if limit > 0 else values)


def tinted(values: Floats) -> Floats:
    """A map as colours with opacity, (height, width, 4): red for, blue against, transparent where it is small."""
    opacity = np.sqrt(np.minimum(np.abs(np.nan_to_num(values)) / clipped_norm(values).vmax, 1.0))
    made = np.where(values[..., None] < 0, to_rgba(NEGATIVE), to_rgba(POSITIVE))
    made[..., 3] = OPAQUE * opacity
    return made


def picture(image: np.ndarray) -> Floats:
    """An input as a picture: colours as (H, W, 3) from 0 to 1, anything else as its sum over channels, or a strip."""
    values = np.asarray(image, np.float64)
    if values.ndim == 3 and values.shape[0] == 3:
        low, high = np.nanmin(values), np.nanmax(values)
        return np.moveaxis((values - low) / (high - low if high > low else 1.0), 0, -1)
    while values.ndim > 2:
        values = values.sum(0)
    return np.atleast_2d(values)
