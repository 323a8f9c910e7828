"""The cut of a grid: the limits leave shards and micro-batches partly open, and this module chooses them.

Inputs fold, outputs stack, baselines average. So inputs and outputs may be cut freely, but baselines only under
statistics that are linear in the attribution.
"""

from __future__ import annotations

from math import ceil

from igc_dist.paths import GROUP
from igc_dist.planning.cost import PASS_BYTES, Cost, Work
from igc_dist.planning.limits import GIB, Limits
from igc_dist.planning.plan import Plan
from igc_dist.planning.table_cost import TABLE
from igc_dist.records import ConfigError, Shapes

MAX_ROWS = 512
"""Rows of a forward pass if memory allows more: more rows gain little on GPUs."""

CHEAP = 2**20
"""Bytes of a pass up to which it takes more rows of large folds: the calls cost more than the rows then."""

MIN_FOLDS = 8
"""The smallest number of folds when folds are made larger to give their samples partners."""


def make_plan(shapes: Shapes, work: Work, limits: Limits, seed: int) -> Plan:
    """Choose what the limits leave open. `Plan.check` tests whether the plan fits the limits.

    Raises `ConfigError` if baselines are cut under a statistic that is not linear, or under stored samples.
    """
    baseline_block = min(limits.baseline_block or work.n_baselines, work.n_baselines)
    if baseline_block < work.n_baselines:
        _refuse_baseline_cut(work, baseline_block)
    cost, free = Cost(shapes, work), _free(work, limits)
    output_block = _output_block(cost, work, limits, free)
    free -= _held(cost, work, output_block)
    at_once = free // 2 if work.on_device else min(free // 2, PASS_BYTES)
    points = max(1, baseline_block * work.points)
    fold = _fold(shapes, work, limits)
    most = MAX_ROWS if work.drawn else max(MAX_ROWS, _equal(fold, max(1, CHEAP // max(cost.per_row(), 1))))
    rows = limits.micro_batch or max(1, min(most, at_once // max(cost.per_row(), 1)))
    samples = max(1, min(rows, fold, free // 4 // max(cost.per_sample(output_block), 1)))
    return Plan(
        shapes,
        work,
        limits,
        seed,
        fold_size=_whole_batches(shapes, work, fold, samples),
        baseline_block=baseline_block,
        output_block=output_block,
        samples_per_batch=samples,
        points_per_batch=max(1, min(rows // samples, points)),
    )


def _free(work: Work, limits: Limits) -> int:
    """Bytes to plan with, from the limits.

    The memory that is free now is not used: the plan, and with it the rounding, must not depend on the machine's state.
    """
    if work.on_device:
        return int(limits.device_memory * GIB)
    return int(limits.host_memory * GIB) - min(GIB, int(limits.host_memory * GIB) // 2)


def _held(cost: Cost, work: Work, output_block: int) -> int:
    """Bytes that a block of outputs holds during a walk."""
    return cost.state(output_block) + (0 if work.on_device else cost.commit(1, output_block))


def _output_block(cost: Cost, work: Work, limits: Limits, free: int) -> int:
    """Outputs of a shard: all, halved until the walk of one point takes at most half of the memory."""
    block = min(limits.output_block or len(work.outputs), len(work.outputs))
    while limits.output_block is None and block > 1 and _held(cost, work, block) + cost.walk(1, 1, block) > free // 2:
        block = ceil(block / 2)
    return block


def _fold(shapes: Shapes, work: Work, limits: Limits) -> int:
    """The smallest number of samples of a fold."""
    n, fold = shapes.n_samples, ceil(shapes.n_samples / limits.n_folds)
    if work.pairs:  # partners are of one fold; in small folds the same pairs are drawn often
        fold = max(fold, min(GROUP, max(ceil(n / MIN_FOLDS), min(MIN_FOLDS, n))))
    return fold


def _equal(n: int, most: int) -> int:
    """The size of equal parts of n, of at most this size."""
    return ceil(n / ceil(n / most))


def _whole_batches(shapes: Shapes, work: Work, fold: int, samples: int) -> int:
    """Samples of a fold: whole micro-batches, so that each one writes whole chunks of per-sample arrays, if any.

    Folds with large tables are also cut into equal pieces.
    """
    unit, pieces = 1 if work.drawn else samples, ceil(fold * len(work.outputs) / TABLE)
    rows = ceil(fold / pieces / unit) * unit
    while pieces > 1 and rows > unit and rows * len(work.outputs) > TABLE:
        pieces += 1
        rows = ceil(fold / pieces / unit) * unit
    while work.pairs and shapes.n_samples % (rows * pieces) == 1 < shapes.n_samples:
        rows += 1  # the last fold would have one sample
    return rows * pieces


def _refuse_baseline_cut(work: Work, block: int) -> None:
    if work.pairs:
        raise ConfigError(
            f"plan.baseline_block={block} with design=pairs, whose partners are drawn together: leave it null"
        )
    for name in work.nonlinear:
        raise ConfigError(
            f"plan.baseline_block={block} cuts {work.n_baselines} baselines, but the statistic {name!r} is not linear "
            f"in the attribution: the {name} of a mean over baselines are not the mean over blocks. Leave "
            "plan.baseline_block null, or drop the statistic"
        )
    if work.free:
        raise ConfigError(
            f"plan.baseline_block={block} cuts {work.n_baselines} baselines, but reduce has a function, which need "
            "not be linear in the attribution. Leave plan.baseline_block null, or reduce by segments, patches or "
            "channels"
        )
    if work.samples:
        raise ConfigError(
            f"plan.baseline_block={block} with store.samples=true: a sample's attribution is a mean over all "
            "baselines, leave it null"
        )
