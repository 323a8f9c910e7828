"""Out of memory inside a shard: the shard is walked again in smaller micro-batches, and the store records it.

The memory model of a plan is an upper bound for this process, but other processes may use memory of the same device.
The composition of a micro-batch decides the rounding of its gradients, so a shard that was walked in smaller ones may
differ in the last bits. The store keeps the list of such shards, and the results name them.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

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
