"""What bf16-mixed saves in time and costs in the numbers: with a bound where the CPU has AMX, else printed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import igc_dist
from tests.benchmarks.measure import Report, compared, report
from tests.benchmarks.models import Task, Transformer, digits, images


def igc(task: Task, n_steps: int, precision: str, n_folds: int = 8) -> Any:
    settings: Report = {"n_steps": n_steps, "precision": precision, "precision_audit": 0, "n_folds": n_folds}
    return igc_dist.attribute(task.module, (task.x, task.y), **settings)["x/igc"].values


def error(half: np.ndarray, full: np.ndarray) -> float:
    """Root mean square of the change over that of IGC."""
    return float(np.sqrt(((half - full) ** 2).mean() / (full**2).mean()))


def amx() -> bool:
    """Whether this CPU multiplies matrices of bfloat16 in tiles."""
    try:
        with open("/proc/cpuinfo") as found:
            return "amx_bf16" in found.read()
    except OSError:
        return False


def bf16() -> Iterator[Report]:
    """bf16-mixed against float32 on a transformer of width 384: time of float32 over it, and the error of its IGC."""
    has, (samples, nodes) = amx(), (16, 4) if amx() else (8, 1)
    noise = images(samples, 2)
    # of mean 0 and about unit deviation, as nets expect: else the outputs hardly differ, and their deviation is lost in
    # bfloat16
    task = Task("vit", Transformer(2, 384, 4), 4 * (noise.x - 0.5), noise.y)
    names = ("32-true", "bf16-mixed")
    full, half = (igc(task, nodes, name, 2) for name in names)
    size = {"samples": samples, "nodes": nodes, "amx": has, "note": "" if has else "no bound: this CPU has no AMX"}
    yield report(
        "bf16_amx/vit",
        **compared(*(partial(igc, task, nodes, name, 2) for name in names), 1 + has),
        at_least=1.8 if has else None,
        **size,
    )
    yield report("bf16_amx/vit_error", error(half, full), at_most=0.02 if has else None, **size)


def run() -> Iterator[Report]:
    """Time of bf16-mixed over float32, and what IGC changes by; on a CPU with AMX 1.8 times as fast and 2 % on a larger
    transformer."""
    for task, n_steps in ((digits(300), 8), (images(8), 4)):
        names = ("bf16-mixed", "32-true")
        half, full = (igc(task, n_steps, precision) for precision in names)
        line = compared(*(partial(igc, task, n_steps, name) for name in names), 2)
        yield report(f"precision/{task.name}", **line, relative_rms_error=round(error(half, full), 6), nodes=n_steps)
    yield from bf16()
