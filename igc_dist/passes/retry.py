"""Out of memory inside a shard: the shard is walked again in smaller micro-batches, and the store records it.

The memory model of a plan is an upper bound for this process, but other processes may use memory of the same device.
The composition of a micro-batch decides the rounding of its gradients, so a shard that was walked in smaller ones may
differ in the last bits. The store keeps the list of such shards, and the results name them.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch

from igc_dist.model import footprint, memory
from igc_dist.planning import Plan
from igc_dist.records import ConfigError

log = logging.getLogger(__name__)
T = TypeVar("T")


def smaller(plan: Plan) -> Plan | None:
    """The plan with half the points in a forward pass, then with half the samples; None when there is one of each."""
    if plan.points_per_batch > 1:
        return replace(plan, points_per_batch=plan.points_per_batch // 2)
    if plan.samples_per_batch > 1:
        return replace(plan, samples_per_batch=plan.samples_per_batch // 2)
    return None


def fitting(plan: Plan, walk: Callable[[Plan], T], name: str) -> tuple[T, Plan]:
    """The result of `walk` with the plan, or with the first `smaller` one that fits into memory; and that plan.

    Each shard begins with the whole plan, so that it does not depend on shards that were walked before. Other errors
    are not caught. Raises `ConfigError` if one sample and one point are too many.
    """
    while True:
        try:
            return walk(plan), plan
        except (RuntimeError, MemoryError) as error:
            if not footprint.out_of_memory(error):
                raise
            message, less = str(error).split("\n")[0], smaller(plan)
        # outside of the handler, because the traceback holds the tensors of the failed walk
        _release()
        batch = f"{plan.samples_per_batch} samples x {plan.points_per_batch} points"
        if less is None:
            raise ConfigError(
                f"out of memory in {name}, with one sample and one point in a forward pass ({message}): lower "
                "plan.output_block "
                f"(now {plan.output_block} outputs per shard), take fabric.precision=bf16-mixed, or run fewer ranks "
                "on one device"
            )
        log.warning(
            "out of memory in %s at a micro-batch of %s (%s): once more at %d x %d. Its rounding then differs: set "
"plan.micro_batch "
            "for the same bits in every shard",
            name, batch, message, less.samples_per_batch, less.points_per_batch,
        )  # fmt: skip
        plan = less


def _release() -> None:
    gc.collect()
    memory.give_back()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@dataclass
class Chunks:
    """Joins consecutive pieces of rows into chunks of `size` rows; the last may be shorter.

    `write(start, pieces)` is called once per chunk, with the number of its first row and one array per name. Rows end
    at `stop`. A piece that is a whole chunk is passed on without a copy.
    """

    write: Callable[[int, dict[str, np.ndarray]], None]
    size: int
    start: int
    stop: int
    _waiting: list[dict[str, np.ndarray]] = field(default_factory=list)

    def add(self, piece: dict[str, np.ndarray]) -> None:
        """Add the next rows: arrays whose first axis is the row."""
        self._waiting.append(piece)
        held = self._held()
        while held and (held >= self.size or self.start + held == self.stop):
            first = self._waiting[0]
            if len(self._waiting) > 1:
                first = {name: np.concatenate([some[name] for some in self._waiting]) for name in first}
            n = min(self.size, held)
            self.write(self.start, {name: rows[:n] for name, rows in first.items()})
            self._waiting = [{name: rows[n:] for name, rows in first.items()}] if n < held else []
            self.start, held = self.start + n, held - n

    def _held(self) -> int:
        return sum(len(next(iter(piece.values()))) for piece in self._waiting)
