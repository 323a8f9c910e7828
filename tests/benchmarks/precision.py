"""What bf16-mixed saves in time and costs in the numbers: printed, without a bound, since it depends on the hardware."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import igc_dist
from tests.benchmarks.measure import Report, compared, report
from tests.benchmarks.models import Task, digits, images


def igc(task: Task, n_steps: int, precision: str) -> Any:
    return igc_dist.attribute(task.module, (task.x, task.y), n_steps=n_steps, precision=precision, n_folds=8)["x/igc"].values


def run() -> Iterator[Report]:
    """Time of bf16-mixed over float32, and the root mean square of the change in IGC over that of IGC."""
    for task, n_steps in ((digits(300), 8), (images(8), 4)):
        names = ("bf16-mixed", "32-true")
        half, full = (igc(task, n_steps, precision) for precision in names)
        error = float(np.sqrt(((half - full) ** 2).mean() / (full**2).mean()))
        line = compared(*(partial(igc, task, n_steps, name) for name in names), 2)
        yield report(f"precision/{task.name}", **line, relative_rms_error=round(error, 6), nodes=n_steps)
