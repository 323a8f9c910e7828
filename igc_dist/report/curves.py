"""Curves of metrics, such as insertion: means over samples with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from igc_dist.records import ConfigError, printable
from igc_dist.report.contents import title_of
from igc_dist.report.intervals import student
from igc_dist.report.maps import NewFigure
from igc_dist.report.panels import NAMED_LINES, entitle, name_lines, whole_heading
from igc_dist.secrets import masked

CURVE = "_curve"


def scores_of(tree: xr.DataTree) -> xr.Dataset:
    """The group of a result that holds curves. Raises `ConfigError` if none does."""
    for node in tree.subtree:
        if any(str(name).endswith(CURVE) for name in node.data_vars):
            return node.to_dataset()
    raise ConfigError(
        "this result holds no curves: give plot.curves(scores), from igc_dist.metrics.score(model, data, maps)"
    )


def curve_names(scores: xr.Dataset) -> list[str]:
    """The curves of `scores`. Raises `ConfigError` if there is none."""
    names = sorted(str(name) for name in scores.data_vars if str(name).endswith(CURVE))
    if not names:
        raise ConfigError(f"these scores hold no curve, only {', '.join(map(str, scores.data_vars)) or 'nothing'}")
    return names


def curves_figure(scores: xr.Dataset, level: float = 0.95, new: NewFigure = Figure) -> Figure:
    """A panel for each metric that has a curve."""
    names = curve_names(scores)
    figure = new(figsize=(1.0 + 4.2 * len(names), 3.2), layout="constrained")
    curves_on(figure.subplots(1, len(names), squeeze=False)[0].tolist(), scores, level)
    return figure


def curves_on(panels: Sequence[Axes], scores: xr.Dataset, level: float = 0.95) -> None:
    """The panels of `curves_figure` on these axes: a line for each output, or one if a sample has one map.

    The band is the interval of the mean, by Student's t over the samples. More than ten outputs are joined into one.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level={level!r}: give a number between 0 and 1, such as 0.95")
    for axes, name in zip(panels, curve_names(scores), strict=True):
        label = name.removesuffix(CURVE)
        curve = scores[name]
        axis = next(str(dim) for dim in curve.dims if dim not in ("sample", "output"))
        several = "output" in curve.dims and curve.sizes["output"] <= NAMED_LINES
        if "output" in curve.dims and not several:
            curve = curve.mean("output")
        lines = curve.transpose("sample", axis, ...).values.reshape(curve.sizes["sample"], curve.sizes[axis], -1)
        for place in range(lines.shape[2]):
            draw_line(axes, scores[axis].values, lines[..., place], level)
        if several:
            heads = [whole_heading(printable(str(value))) for value in masked(curve["output"].values.tolist())]
            name_lines(axes, heads)
        axes.set(xlabel="share of the features exchanged", ylabel="model's score")
        axes.grid(color="#dddddd", linewidth=0.6)
        entitle(axes, title_of(label))


def draw_line(axes: Axes, at: np.ndarray, lines: np.ndarray, level: float) -> None:
    """The mean of curves (N, T) over the samples, and its interval. Samples without a score count nowhere."""
    lines = np.asarray(lines[np.isfinite(lines).all(1)], np.float64)
    if not len(lines):
        return
    mean = lines.mean(0)
    (line,) = axes.plot(at, mean, linewidth=1.4)
    if len(lines) > 1:
        reach = student(len(lines) - 1, level) * lines.std(0, ddof=1) / np.sqrt(len(lines))
        axes.fill_between(at, mean - reach, mean + reach, color=line.get_color(), alpha=0.2, linewidth=0)
