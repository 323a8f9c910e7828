"""Dataset-wise maps beside the mask that is true, with how well each recovers it: one picture and one table."""

from __future__ import annotations

import csv
import io
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from igc_dist import files
from igc_dist.records import printable
from igc_dist.report.contents import Floats, title_of
from igc_dist.report.figures import save
from igc_dist.report.panels import HATCH, axes_at, colours, house_style, symmetric_norm
from igc_dist.secrets import masked_text

SIDE, GAP, TOP, MARGIN, BELOW = 1.05, 0.1, 0.5, 1.6, 0.32
"""Inches: a panel, the space between panels, titles, names of rows, the score below a panel."""


@dataclass(frozen=True)
class Recovered:
    """A map of a run (J, *P), the true mask of the same shape, and scores (J,) by their names.

    `run`: its overrides. `name`: that of the map.
    """

    run: str
    name: str
    mask: Floats
    maps: Floats
    scores: Mapping[str, Floats]

    @property
    def row(self) -> str:
        """The model and the data among the overrides: what maps in one row of the picture share."""
        words = (word for word in self.run.split() if word.startswith(("model", "data.build.task")))
        return "\n".join(word.partition("=")[2] for word in words)


def write_recovered(found: Sequence[Recovered], folder: str | Path) -> Path:
    """Draw `folder`/recovery.png and write the table beside it, recovery.csv. Returns the path of the table.

    Each row is a task and a model, with the true mask and each map, of the first output. The table has the scores of
    every output.
    """
    folder = files.folder(Path(os.path.expanduser(folder)))
    caption = "The true mask and each map of the first output, red above zero and blue below, each on its own scale."
    with house_style():
        save(draw_recovered(found), folder / "recovery.png", "recovery", caption)
    held = io.StringIO()
    table = csv.writer(held)
    table.writerow(["run", "map", "output", *found[0].scores])
    for one in found:
        for output in range(len(one.maps)):
            scores = (f"{one.scores[name][output]:.6g}" for name in found[0].scores)
            table.writerow([printable(masked_text(one.run)), one.name, output, *scores])
    return files.write(folder / "recovery.csv", held.getvalue().encode())


def draw_recovered(found: Sequence[Recovered]) -> Figure:
    """A row of panels for each task and model: the mask, then each map, with its correlation with the mask."""
    rows, names = [*dict.fromkeys(one.row for one in found)], [*dict.fromkeys(one.name for one in found)]
    figure = Figure(figsize=(MARGIN + (1 + len(names)) * (SIDE + GAP), TOP + len(rows) * (SIDE + BELOW)))
    for row, task in enumerate(rows):
        its = {one.name: one for one in found if one.row == task}
        panels = {"true mask": next(iter(its.values())).mask, **{name: its[name].maps for name in names if name in its}}
        for name, values in panels.items():
            place = 0 if name == "true mask" else 1 + names.index(name)
            axes = axes_at(figure, MARGIN + place * (SIDE + GAP), TOP + row * (SIDE + BELOW), SIDE, SIDE)
            drawn = flat(values[0])
            axes.imshow(
                drawn, norm=symmetric_norm(drawn), cmap=colours("RdBu_r"), interpolation="nearest", aspect="auto"
            )
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=HATCH, linewidth=0.6)
            if row == 0:
                axes.set_title("\n".join(textwrap.wrap(title_of(name), 16)), fontsize=8, pad=4)
            if place == 0:
                axes.set_ylabel(task, rotation=0, ha="right", va="center", fontsize=9, labelpad=8)
            else:
                axes.set_xlabel(f"r = {its[name].scores['correlation'][0]:.2f}", fontsize=8, labelpad=2)
    return figure


def flat(values: Floats) -> Floats:
    """A map as an image of at most two dimensions: channels are summed."""
    return np.atleast_2d(values.sum(0) if values.ndim == 3 else values.squeeze())
