"""Named points at which a test may break a run.

Set ``IGC_FAULT=point:rank:count[:kind]``; the default kind is kill. The process of `rank` meets the fault when it
passes `point` for the `count`-th time. Without `IGC_FAULT` nothing happens.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import Counter
from functools import cache
from typing import Any

from igc_dist.records import ConfigError

POINTS = ("compute", "gradient", "arrays", "digest", "write", "barrier", "finalize")
"""In this order: before a shard is computed; with the gradients of a micro-batch; after a shard's arrays are written;
before its digest; in the middle of writing a file; at the barrier; during finalize."""

KINDS = ("kill", "exception", "hang", "sigterm", "oom", "nan", "enospc", "slow")
"""In this order: SIGKILL; a RuntimeError; an endless sleep; SIGTERM; torch's out-of-memory error; NaN for the first
sample; a full disk, from then on; a sleep of `SLOW` seconds."""

ONLY = {"nan": "gradient", "enospc": "write"}
"""Kinds that work at one point only."""

SLOW = 1.0

_passed: Counter[str] = Counter()


def fault(point: str, *tensors: Any) -> None:
    """Mark a fault point. It costs one dictionary look-up if `IGC_FAULT` is not set.

    A NaN is put into `tensors`, which have rows first. Raises `ConfigError` if `IGC_FAULT` cannot be read; otherwise
    raises the error of its kind.
    """
    text = os.environ.get("IGC_FAULT")
    if not text:
        return
    assert point in POINTS, point
    where, rank, count, kind = wish(text)
    if where != point or rank != int(os.environ.get("RANK", "0")):
        return
    _passed[point] += 1
    if _passed[point] == count or (kind == "enospc" and _passed[point] > count):  # a full disk stays full
        _break(kind, point, tensors)


@cache
def wish(text: str) -> tuple[str, int, int, str]:
    """Point, rank, count and kind from a value of `IGC_FAULT`. Raises `ConfigError` if it is invalid."""
    point, rank, count, kind = [*text.split(":"), "kill"][:4] if text.count(":") in (2, 3) else ("", "", "", "")
    if (
        point not in POINTS
        or kind not in KINDS
        or not rank.isdecimal()
        or not count.isdecimal()
        or ONLY.get(kind, point) != point
    ):
        raise ConfigError(
            f"IGC_FAULT={text!r}: expected point:rank:count[:kind] with a point of {', '.join(POINTS)} and a kind of "
            f"{', '.join(KINDS)} "
            "(nan at gradient only, enospc at write only); unset it for a run without faults"
        )
    return point, int(rank), int(count), kind


def _break(kind: str, point: str, tensors: tuple[Any, ...]) -> None:
    if kind in ("kill", "sigterm"):
        os.kill(os.getpid(), signal.SIGKILL if kind == "kill" else signal.SIGTERM)
    elif kind == "exception":
        raise RuntimeError(f"IGC_FAULT: an exception at {point}")
    elif kind == "oom":
        from torch import OutOfMemoryError

        raise OutOfMemoryError(f"CUDA out of memory. Tried to allocate 2.00 GiB. IGC_FAULT at {point}")
    elif kind == "nan":
        for tensor in tensors:
            tensor[:1] = float("nan")
    elif kind == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    while kind in ("hang", "slow"):
        time.sleep(SLOW)
        if kind == "slow":
            return
