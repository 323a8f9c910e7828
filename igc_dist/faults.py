"""Named points at which a test may break a run: ``IGC_FAULT=point:rank:count`` (off unless set).

The process of `rank` kills itself with SIGKILL when it passes `point` for the `count`-th time.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

POINTS = ("compute", "arrays", "digest", "barrier", "finalize")
"""Before a shard is computed; after its arrays are written; before its digest; at the barrier; during finalise."""

_passed: Counter[str] = Counter()


def fault(point: str) -> None:
    """Mark a fault point. Costs one dictionary look-up when `IGC_FAULT` is not set."""
    wish = os.environ.get("IGC_FAULT")
    if not wish:
        return
    assert point in POINTS, point
    name, rank, count = wish.split(":")
    _passed[point] += 1
    if name == point and int(rank) == int(os.environ.get("RANK", "0")) and _passed[point] == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
