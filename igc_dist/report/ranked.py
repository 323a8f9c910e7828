"""Segments, bands and columns by their values: bars with intervals and names, the largest ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from igc_dist.records import ConfigError, printable
from igc_dist.report.contents import Floats, inputs, labels, scale_of
from igc_dist.report.intervals import quantile
from igc_dist.report.maps import NewFigure, fold_features
from igc_dist.report.panels import NEGATIVE, POSITIVE, WIDTH, entitle, short, whole_heading
from igc_dist.secrets import masked

LINE = 0.2
"""Inches of a bar."""


@dataclass(frozen=True)
class Ranked:
    """The features of one output that are drawn, the largest value first; `reach` is half of the interval."""

    title: str
    unit: str
    names: list[str]
    values: Floats
    reach: Floats


def read_ranked(
    tree: xr.DataTree, group: str, name: str | None, max_outputs: int, top: int, level: float = 0.95
) -> list[Ranked]:
    """The `top` features with the largest magnitude of each output.

    Raises `ConfigError` for maps that have no dimension, or two: they are drawn as they lie.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level={level!r}: give a number between 0 and 1, such as 0.95")
    if top < 1:
        raise ConfigError(f"top={top}: give the number of features to draw, 1 or more")
    dataset = inputs(tree)[group]
    if name is None or name not in dataset:
        raise ConfigError(f"input {group!r} has no array {name!r}: it has {', '.join(map(str, dataset)) or 'none'}")
    values, _ = fold_features(dataset[name].isel(output=slice(max_outputs)))
    if values.ndim != 2:
        raise ConfigError(f"maps of input {group!r} have {values.ndim - 1} dimensions, segments have one: see maps()")
    spread = np.full_like(values, np.nan)
    if f"{name}_se" in dataset:
        spread = fold_features(dataset[f"{name}_se"].isel(output=slice(max_outputs)))[0]
    reach, features = spread * quantile(tree, level)[: len(values), None], names_of(dataset[name], values.shape[1])
    found = []
    for place, label in enumerate(labels(tree)[:max_outputs]):
        size = np.nan_to_num(np.abs(values[place]), nan=-1.0)
        chosen = np.argsort(-size, kind="stable")[:top]
        chosen = chosen[np.argsort(-values[place][chosen], kind="stable")]
        left = f" ({len(chosen)} of {len(features)} drawn)" if len(chosen) < len(features) else ""
        title, shown = whole_heading(label) + left, [features[each] for each in chosen]
        found.append(Ranked(title, scale_of(name), shown, values[place][chosen], reach[place][chosen]))
    return found


def names_of(array: xr.DataArray, length: int) -> list[str]:
    """The names of the features, else their dimension and number."""
    dim = next((dim for dim in array.dims if dim != "output" and array.sizes[dim] == length), "feature")
    if dim in array.coords:
        return [printable(str(value)) for value in masked(array.coords[dim].values.tolist())]
    return [f"{dim} {index}" for index in range(length)]


def ranked_figure(ranked: Sequence[Ranked], new: NewFigure = Figure) -> Figure:
    """A panel for each output."""
    columns = min(len(ranked), 3)
    rows = -(-len(ranked) // columns)
    tall = 0.75 + LINE * max(len(each.names) for each in ranked)
    figure = new(figsize=(WIDTH * (0.4 + 0.2 * columns), rows * tall), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    ranked_on(panels[: len(ranked)], ranked)
    for axes in panels[len(ranked) :]:
        axes.remove()
    return figure


def ranked_on(panels: Sequence[Axes], ranked: Sequence[Ranked]) -> None:
    """The panels of `ranked_figure` on these axes, all on one scale."""
    ends = [np.abs(each.values) + np.nan_to_num(each.reach) for each in ranked]
    limit = 1.05 * max((float(np.nanmax(end)) for end in ends if np.isfinite(end).any()), default=1.0) or 1.0
    for axes, each in zip(panels, ranked, strict=True):
        place = np.arange(len(each.names))
        colours = np.where(each.values < 0, NEGATIVE, POSITIVE).tolist()
        axes.barh(place, np.nan_to_num(each.values), color=colours, height=0.7)
        axes.hlines(place, each.values - each.reach, each.values + each.reach, color="black", linewidth=1)
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set_yticks(place, labels=[short(name) for name in each.names], fontsize=8, parse_math=False)
        axes.set(xlim=(-limit, limit), ylim=(len(place) - 0.4, -0.6), xlabel=each.unit)
        entitle(axes, each.title)
