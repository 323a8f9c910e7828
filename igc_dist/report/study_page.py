"""A study on disk: its table as CSV and Zarr, and a page with the scores against steps and against gradients."""

from __future__ import annotations

import csv
import io
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from igc_dist import files
from igc_dist.records import printable
from igc_dist.report.contents import number, title_of
from igc_dist.report.figures import save
from igc_dist.report.panels import entitle, house_style
from igc_dist.report.rendering import environment, image
from igc_dist.report.study import rows_of
from igc_dist.report.tables import add
from igc_dist.report.tables import table as new_table

COLUMNS = 3
"""Panels side by side."""
WIDTH, HEIGHT = 3.3, 2.6
"""Inches of a panel."""


def write_study(table: xr.Dataset, folder: str | Path) -> Path:
    """Write study.csv, study.zarr and study.html into a folder, which is made if missing. Returns the page.

    Raises `ConfigError` for links, and OSError for what cannot be written.
    """
    folder = files.folder(os.path.expanduser(folder), "study.zarr", "figures")
    files.write(folder / "study.csv", as_csv(table).encode())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(FixedLengthUTF32|[Cc]onsolidated metadata).*")
        table.to_zarr(folder / "study.zarr", mode="w", zarr_format=3, consolidated=True)
    with house_style():
        files.folder(folder / "figures")
        drawings = [
            save(figure_of(table, axis), folder / "figures" / f"{axis}.png", axis, caption)
            for axis, caption in CAPTIONS.items()
        ]
    steps_of: Mapping[str, str] = json.loads(table.attrs["steps_of"])
    page = (
        environment()
        .get_template("study.html.j2")
        .render(
            drawings=drawings,
            image=image,
            rows=[_shown(row) for row in rows_of(table)],
            reference=printable(table.attrs["reference"]),
            level=f"{100 * table.attrs['level']:g}",
            steps_of={printable(method): printable(said) for method, said in steps_of.items()},
            samples=table.attrs["samples"],
            filter=json.loads(table.attrs["filter"]),
            settings={
                printable(name): ", ".join(
                    f"{printable(k)}={printable(v)}" for k, v in dict(said).items() if k != "name"
                )
                for name, said in json.loads(table.attrs["metrics"]).items()
            },
        )
    )
    return files.write(folder / "study.html", page.encode("utf-8", errors="backslashreplace"))


CAPTIONS = {
    "steps": "Each score against the number of steps, by method: means over the samples with their intervals.",
    "gradients": "The same against the gradients that a sample took, which is what a step costs.",
}


def as_csv(table: xr.Dataset) -> str:
    """The table as text, a line for each metric, method and number of steps; numbers are exact, unknown ones empty."""
    rows, text = rows_of(table), io.StringIO()
    writer = csv.DictWriter(text, [*rows[0], "reference"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        known = {
            name: "" if isinstance(value, float) and not np.isfinite(value) else value for name, value in row.items()
        }
        writer.writerow({**known, "reference": table.attrs["reference"]})
    return text.getvalue()


def figure_of(table: xr.Dataset, axis: str) -> Figure:
    """A panel for each metric: its means against "steps" or "gradients", a line for each method."""
    metrics = table["metric"].values.tolist()
    across = min(COLUMNS, len(metrics))
    down = -(-len(metrics) // across)
    figure = Figure(figsize=(across * WIDTH, down * HEIGHT + 0.5), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel().tolist()
    for axes, metric in zip(panels, metrics, strict=False):
        _draw(axes, table.sel(metric=metric), axis)
        entitle(axes, title_of(metric))
    for axes in panels[len(metrics) :]:
        axes.set_visible(False)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _draw(axes: Axes, table: xr.Dataset, axis: str) -> None:
    for method in table["method"].values.tolist():
        one = table.sel({"method": method})
        there = np.isfinite(one["gradients"].values)
        at = one["steps"].values[there] if axis == "steps" else one["gradients"].values[there]
        mean = one["mean"].values[there]
        reach = np.stack([mean - one["ci_low"].values[there], one["ci_high"].values[there] - mean])
        axes.errorbar(at, mean, np.nan_to_num(reach), marker="o", markersize=3, linewidth=1.2, label=title_of(method))
    places = np.unique(table["steps"].values if axis == "steps" else table["gradients"].values)
    places = places[np.isfinite(places)]
    if places.min() > 0:
        axes.set_xscale("log", base=2)
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.minorticks_off()
    axes.set(xlabel="steps" if axis == "steps" else "gradients of a sample")
    axes.grid(color="#dddddd", linewidth=0.6)


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as text for people. `mean` and `difference` are two texts: the number, and its interval."""

    def span(name: str) -> tuple[str, str]:
        prefix = f"{name}_" if name == "difference" else ""
        if not np.isfinite(row[name]):
            return "", ""
        return number(row[name]), f"{number(row[f'{prefix}ci_low'])} to {number(row[f'{prefix}ci_high'])}"

    found: dict[str, Any] = {name: printable(row[name]) for name in ("metric", "method", "steps")}
    found |= {"gradients": f"{row['gradients']:,.0f}", "n": f"{row['n']:,.0f}", "mean": span("mean")}
    return found | {
        "median": number(row["median"]),
        "difference": span("difference"),
        "p": "" if not np.isfinite(row["p_holm"]) else number(row["p_holm"]),
    }


def _cells(row: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [cell if isinstance(cell, tuple) else (cell,) for cell in _shown(row).values()]


def study_table(table: xr.Dataset) -> Table:
    """The table for a terminal."""
    heads = ("metric", "method", "steps", "gradients", "n", "mean", "median", "difference", "p")
    caption = f"difference: from {table.attrs['reference']} on the same samples; p: paired t-test, corrected by Holm"
    made = new_table("scores", {head: head not in ("metric", "method") for head in heads}, caption)
    for row in rows_of(table):
        cells = _shown(row).values()
        add(
            made,
            *(f"{cell[0]} ({cell[1]})" if isinstance(cell, tuple) and cell[1] else "".join(cell) for cell in cells),
        )
    return made
