"""How two sides are timed, and what a benchmark reports."""

from __future__ import annotations

import gc
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
"""Where `python -m tests.benchmarks` is run."""

Report = dict[str, Any]


def report(
    bench: str, value: float, *, at_most: float | None = None, at_least: float | None = None, **details: Any
) -> Report:
    """One JSON line: a value, the bound it has to keep (None: printed only), and what it was measured on."""
    ok = (at_most is None or value <= at_most) and (at_least is None or value >= at_least)
    bound = at_most if at_least is None else at_least
    kind = {} if bound is None else {"kind": "at most" if at_least is None else "at least"}
    return {"bench": bench, "value": round(value, 4), "bound": bound, **kind, "ok": bool(ok), **details}


def show(line: Report) -> None:
    """Print a report."""
    print(json.dumps(line, default=float), flush=True)


def seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall time and CPU time of a call, without the garbage of the one before."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def busy() -> bool:
    """Whether something else runs on this machine: then a wall time of seconds tells little."""
    return os.getloadavg()[0] > 1.5


def compared(one: Callable[[], Any], other: Callable[[], Any], rounds: int) -> Report:
    """Time of one side over that of the other, each already warm, in turns A B A B ...

    `value` is the ratio of minima, since other load only ever adds time; of wall times, or of CPU times if the machine
    is busy. Both sides are one thread that waits for nothing, so on a quiet machine these are the same.
    """
    return ratio([(seconds(one), seconds(other)) for _ in range(rounds)])


def ratio(times: list[tuple[tuple[float, float], tuple[float, float]]]) -> Report:
    """What `compared` reports, from the (wall, CPU) times of both sides in each round."""
    ratios = {}
    for kind, name in enumerate(("wall", "cpu")):
        above, below = ([pair[side][kind] for pair in times] for side in (0, 1))
        ratios[name] = {
            "minima": min(above) / min(below),
            "medians": statistics.median(above) / statistics.median(below),
        }
    clock = "cpu" if busy() else "wall"
    return {
        "value": ratios[clock]["minima"],
        "clock": clock,
        "ratios": {name: {key: round(value, 4) for key, value in ratio.items()} for name, ratio in ratios.items()},
        "seconds": [[round(side[0], 2) for side in pair] for pair in times],
    }
