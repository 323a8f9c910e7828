"""Cost grows linearly in samples, outputs, baselines and nodes: straight lines through the times of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

import igc_dist
from tests.benchmarks.measure import Report, busy, report, seconds
from tests.benchmarks.models import digits

STEPS = (1, 2, 4, 6, 8)
ROUNDS = 3


def work(samples: int = 120, outputs: int = 5, baselines: int = 2, nodes: int = 12) -> None:
    """A run of that grid, on micro-batches of the same size whatever the grid, so that only their number grows."""
    task = digits(samples)
    igc_dist.attribute(
        task.module,
        (task.x, task.y),
        n_steps=nodes,
        baseline=baselines,
        target=list(range(outputs)),
        n_folds=2,
        micro_batch=60,
    )


def line(sizes: np.ndarray, times: np.ndarray) -> tuple[float, float, float]:
    """Slope, intercept and R^2 of the least-squares line."""
    slope, intercept = np.polyfit(sizes, times, 1)
    rest = times - (slope * sizes + intercept)
    return float(slope), float(intercept), float(1 - rest.var() / times.var())


def run() -> Iterator[Report]:
    """R^2 of the fit of each dimension of the grid, the others fixed."""
    grids: dict[str, tuple[list[int], Callable[[int], None]]] = {
        "samples": ([60 * k for k in STEPS], lambda n: work(samples=n)),
        "outputs": ([1, 3, 5, 8, 10], lambda n: work(outputs=n)),
        "baselines": (list(STEPS), lambda n: work(baselines=n)),
        "nodes": ([6 * k for k in STEPS], lambda n: work(nodes=n)),
    }
    work()
    for name, (sizes, at) in grids.items():
        both = np.min([[seconds(partial(at, size)) for size in sizes] for _ in range(ROUNDS)], axis=0)
        clock = int(busy())
        times = both[:, clock]
        slope, intercept, r2 = line(np.asarray(sizes, dtype=float), times)
        details: Report = {"slope_ms": round(1000 * slope, 3), "intercept_ms": round(1000 * intercept, 1)}
        details["clock"] = ("wall", "cpu")[clock]
        details |= {"sizes": sizes, "seconds": [round(float(t), 3) for t in times]}
        yield report(f"linear_in/{name}", r2, at_least=0.98, **details)
