"""What the store and pass 1 take of a run of the demo, timed inside one run: fractions of the same total."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import igc_dist
from igc_dist import api
from igc_dist import run as composition
from igc_dist.store import Store
from tests.benchmarks.measure import Report, report
from tests.benchmarks.models import digits

CALLS = (
    "prepare",
    "pending",
    "write",
    "commit",
    "read",
    "read_own",
    "read_tables",
    "create_results",
    "put",
    "complete",
)
ROUNDS = 2


@contextmanager
def timed(owner: Any, name: str, spent: dict[str, float]) -> Iterator[None]:
    """Add the wall time of every call of `owner.name` to `spent`."""
    original: Callable[..., Any] = getattr(owner, name)

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        started = time.perf_counter()
        try:
            return original(*arguments, **keywords)
        finally:
            spent[name] += time.perf_counter() - started

    with patch.object(owner, name, wrapped):
        yield


def one_run(samples: int, n_steps: int) -> dict[str, float]:
    """Seconds of a run with 32 shards on disk: by call of the store, in pass 1, and in all."""
    task, spent = digits(samples), defaultdict(float)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for name in CALLS:
            stack.enter_context(timed(Store, name, spent))
        stack.enter_context(timed(composition.Run, "predict", spent))
        stack.enter_context(timed(api, "run", spent))
        igc_dist.attribute(task.module, (task.x, task.y), n_steps=n_steps, store=Path(folder) / "store")
    return dict(spent)


def run() -> Iterator[Report]:
    """Store at most 5 %, pass 1 at most 2 % of the default grid: 1797 images, 32 nodes, 10 outputs, 32 folds."""
    grid = {"samples": 1797, "nodes": 32, "outputs": 10, "shards": 32}
    one_run(200, 2)
    runs = [one_run(grid["samples"], grid["nodes"]) for _ in range(ROUNDS)]
    store = min(runs, key=lambda spent: sum(spent.get(name, 0.0) for name in CALLS) / spent["run"])
    calls = {name: round(store.get(name, 0.0), 3) for name in CALLS}
    yield report(
        "store", sum(calls.values()) / store["run"], at_most=0.05, total_s=round(store["run"], 2), seconds=calls, **grid
    )
    first = min(runs, key=lambda spent: spent["predict"] / spent["run"])
    yield report("pass_1", first["predict"] / first["run"], at_most=0.02, total_s=round(first["run"], 2), **grid)
