"""How two sides are timed, and what a benchmark reports."""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

Report = dict[str, Any]


def report(bench: str, value: float, *, at_most: float | None = None, at_least: float | None = None, **details: Any) -> Report:
    """One JSON line: a value, the bound it has to keep (None: printed only), and what it was measured on."""
    ok = (at_most is None or value <= at_most) and (at_least is None or value >= at_least)
    bound = at_most if at_least is None else at_least
    kind = {} if bound is None else {"kind": "at most" if at_least is None else "at least"}
    return {"bench": bench, "value": round(value, 4), "bound": bound, **kind, "ok": bool(ok), **details}


def show(line: Report) -> None:
    """Print a report."""
    print(json.dumps(line, default=float), flush=True)


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of a call, without the garbage of the one before."""
    gc.collect()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def alternately(sides: dict[str, Callable[[], Any]], rounds: int = 5) -> dict[str, list[float]]:
    """Wall times of several sides, in turns A B A B ..., after one unmeasured call of each.

    Compare their minima: other load on the machine only ever adds time.
    """
    for work in sides.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            times[name].append(seconds(work))
    return times


def ratio(times: dict[str, list[float]], above: str, below: str) -> dict[str, Any]:
    """`value`: ratio of minima; and beside it the ratio of medians, and the times."""
    return {
        "value": min(times[above]) / min(times[below]),
        "of_medians": round(statistics.median(times[above]) / statistics.median(times[below]), 4),
        "seconds": {name: [round(t, 3) for t in values] for name, values in times.items()},
    }
