"""Figures of many outputs at once: completeness, and what the run knew after each fold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from igc_dist.report.contents import SUM, Floats, column, labels
from igc_dist.report.intervals import quantile
from igc_dist.report.maps import NewFigure
from igc_dist.report.panels import WIDTH, draw_curves, draw_part, draw_totals, entitle, name_lines, short

PARTS = {"baseline_term": ("minus baseline term", -1.0), "quadrature_error": ("quadrature error", 1.0)}
CURVES = {
    "correlation": "correlation",
    "igc_sum": "sum of the map",
    "map_distance": "relative distance to the final map",
}


def gap_parts(tree: xr.DataTree) -> dict[str, Floats] | None:
    """The parts of the gap between correlation and sum (O,), by title; None if the maps need not sum to it."""
    if column(tree, SUM) is None or column(tree, "correlation") is None:
        return None
    found = {title: (column(tree, name), sign) for name, (title, sign) in PARTS.items()}
    return {title: sign * values for title, (values, sign) in found.items() if values is not None}


def completeness_figure(tree: xr.DataTree, max_outputs: int, new: NewFigure = Figure) -> Figure | None:
    """Correlation and sum of the map of each output, then the two parts of their gap, each on its own scale. No units.

    None for methods whose maps need not sum to the correlation.
    """
    if (parts := gap_parts(tree)) is None:
        return None
    rows = min(len(labels(tree)), max_outputs)
    figure = new(figsize=(WIDTH, 1.0 + 0.24 * max(rows, 3)), layout="constrained")
    panels = figure.subplots(1, 1 + len(parts), sharey=True, squeeze=False, width_ratios=[2] + [1] * len(parts))[0]
    completeness_on(panels.tolist(), tree, max_outputs)
    return figure


def completeness_on(panels: Sequence[Axes], tree: xr.DataTree, max_outputs: int) -> None:
    """The panels of `completeness_figure` on these axes, as many as there are."""
    total, correlation, parts = column(tree, SUM), column(tree, "correlation"), gap_parts(tree)
    assert total is not None
    assert correlation is not None
    assert parts is not None
    spread, rows = column(tree, "correlation_se"), slice(max_outputs)
    reach = None if spread is None else (spread * quantile(tree))[rows]
    names = [short(name) for name in labels(tree)[rows]]
    draw_totals(panels[0], correlation[rows], total[rows], reach)
    for axes, (title, values) in zip(panels[1:], parts.items(), strict=False):
        draw_part(axes, title, values[rows])
    for axes in panels:
        axes.set_yticks(range(len(names)), labels=names, parse_math=False)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(labelleft=axes is panels[0])


def curves_of(tree: xr.DataTree) -> dict[str, str]:
    """The quantities that the store recorded over its folds, with titles; none for fewer than two folds."""
    if "convergence" not in tree.children or tree["convergence"].sizes.get("fold", 0) < 2:
        return {}
    known = tree["convergence"].data_vars
    return {name: title for name, title in CURVES.items() if name in known} if "n" in known else {}


def convergence_figure(tree: xr.DataTree, max_outputs: int, new: NewFigure = Figure) -> Figure | None:
    """A panel for each quantity that the store recorded over its folds; None if it recorded none."""
    if not (series := curves_of(tree)):
        return None
    figure = new(figsize=(WIDTH, 3.2), layout="constrained")
    panels = figure.subplots(1, len(series), squeeze=False)[0].tolist()
    convergence_on(panels, tree, max_outputs)
    name_lines(panels[0], [short(name, 18) for name in labels(tree)[:max_outputs]], figure)
    return figure


def convergence_on(panels: Sequence[Axes], tree: xr.DataTree, max_outputs: int) -> None:
    """The panels of `convergence_figure` on these axes, as many as there are. n counts per fold, or also per output."""
    group = tree["convergence"].to_dataset()
    for axes, (name, title) in zip(panels, curves_of(tree).items(), strict=False):
        curves, counts = xr.broadcast(group[name], group["n"])
        values, samples = (
            np.asarray(part.transpose("fold", "output").values[:, :max_outputs], np.float64)
            for part in (curves, counts)
        )
        if name == "map_distance":
            values, samples = values[:-1], samples[:-1]  # the last map is the reference of the distances
        draw_curves(axes, samples, values, logarithmic=name == "map_distance")
        entitle(axes, title, pad=6.0)
        axes.set_xlabel("samples")
