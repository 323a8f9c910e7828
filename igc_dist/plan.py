"""The plan: a pure function from shapes and limits to shards, micro-batches, gradient evaluations, memory and disk.

Inputs fold, outputs stack, baselines average: so inputs and outputs may be cut freely, baselines only under statistics
that are linear in the attribution. A plan depends on the configuration and never on the number of ranks; its
micro-batches are fixed by it, because the composition of a batch decides the rounding of its gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil

import numpy as np
from jaxtyping import Int64

from igc_dist import seeds
from igc_dist.attributors import Price
from igc_dist.cost import LAZY, PASS_BYTES, Cost, Work
from igc_dist.designs import GROUP
from igc_dist.records import ConfigError, Shapes, Shard

GIB = 2**30
MAX_ROWS = 512
"""Rows of a forward pass if memory allows more: beyond it GPUs gain little."""
MODES = ("auto", "forward", "reverse")


MIN_FOLDS = 8
"""Folds that are left, at least, where they are made larger so that their samples find partners."""


@dataclass
class Limits:  # not frozen: OmegaConf makes the fields of a frozen schema read-only
    """How to cut the grid, and what it may cost. None means: chosen by the plan."""

    n_folds: int = 32
    """Folds of the inputs, at most: units of work and groups of the jackknife."""
    output_block: int | None = None
    """Outputs of one shard."""
    baseline_block: int | None = None
    """Baselines of one shard (None: all of them)."""
    micro_batch: int | None = None
    """Rows of one forward pass of the walk."""
    trial: bool = False
    """Whether a trial on the real model chooses `micro_batch`, by the clock: see `trial.py`."""
    host_memory: float = 4.0
    """Budget of host memory per rank, in GiB, with everything that the process holds."""
    device_memory: float = 8.0
    """Budget of accelerator memory per rank, in GiB; not used on CPU."""
    disk: float | None = None
    """Budget of the store on disk, in GiB (None: no limit)."""
    mode: str = "auto"
    """How walks are differentiated: in reverse mode, one gradient per output; in forward mode, one directional derivative per reduced
    feature, for all outputs at once; auto: by their costs."""

    def __post_init__(self) -> None:
        for name in ("n_folds", "output_block", "baseline_block", "micro_batch"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ConfigError(
                    f"plan.{name}={value!r}: give an integer of at least 1"
                    + ("" if name == "n_folds" else ", or null to let the plan choose")
                )
        if self.trial and self.micro_batch is not None:
            raise ConfigError(f"plan.trial=true chooses plan.micro_batch, which is set to {self.micro_batch}: leave one of them out")
        for name in ("host_memory", "device_memory", "disk"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"plan.{name}={value!r}: give a number of GiB above 0")
        if self.mode not in MODES:
            raise ConfigError(f"plan.mode={self.mode!r}: choose one of {', '.join(MODES)}")


@dataclass(frozen=True)
class Plan:
    """Shards that tile the grid exactly once, and what they cost."""

    shapes: Shapes
    work: Work
    limits: Limits
    seed: int
    fold_size: int
    baseline_block: int
    output_block: int
    samples_per_batch: int
    """n: samples of one micro-batch."""
    points_per_batch: int
    """c: path points of one forward pass, so that it has n * c rows."""

    @property
    def rows_per_pass(self) -> tuple[int, int]:
        """Rows of a forward pass at most: of pass 1, which takes a fold at a time, and of the walks."""
        rows = self.samples_per_batch * self.points_per_batch
        return min(rows, self.fold_size), rows

    @property
    def n_folds(self) -> int:
        return ceil(self.shapes.n_samples / self.fold_size)

    @property
    def n_baseline_blocks(self) -> int:
        return ceil(self.work.n_baselines / self.baseline_block)

    @property
    def n_output_blocks(self) -> int:
        return ceil(len(self.work.outputs) / self.output_block)

    @property
    def n_parts(self) -> int:
        """Shards of one output block: (fold, block of baselines), the fold slow."""
        return self.n_folds * self.n_baseline_blocks

    @cached_property
    def order(self) -> Int64[np.ndarray, " N"]:
        """Global index of each row in fold order: a seeded permutation, since image folders come sorted by class."""
        return seeds.generator(self.seed, 0, "plan.folds").permutation(self.shapes.n_samples).astype(np.int64)

    def fold(self, number: int) -> range:
        """Rows of a fold, in fold order."""
        return range(number * self.fold_size, min((number + 1) * self.fold_size, self.shapes.n_samples))

    def shard(self, number: int) -> Shard:
        """Shard `number`; outputs vary slowest, then folds, then blocks of baselines."""
        output_block, part = divmod(number, self.n_parts)
        fold, baseline_block = divmod(part, self.n_baseline_blocks)
        cut = lambda block, size, total: range(block * size, min((block + 1) * size, total))  # noqa: E731
        baselines = cut(baseline_block, self.baseline_block, self.work.n_baselines)
        outputs = cut(output_block, self.output_block, len(self.work.outputs))
        return Shard(number, fold, self.fold(fold), baseline_block, baselines, output_block, outputs)

    @property
    def n_shards(self) -> int:
        return self.n_parts * self.n_output_blocks

    @property
    def mode(self) -> str:
        """How walks are differentiated."""
        return "forward" if self.work.groups else "reverse" if self.work.gradients else "none"

    def evaluations(self, n_outputs: int) -> tuple[int, int]:
        """Rows of forward passes, and gradients, from one baseline to one input for a block of outputs: of these, or of the latents if
        they are fewer. In forward mode directional derivatives, of all outputs at once: one for each group of features.
        """
        price = self.work.price or Price(self.work.points, gradients_per_output=self.work.points if self.work.gradients else 0)
        rows = price.rows + price.rows_per_output * n_outputs
        if self.work.groups:
            return rows, self.work.points * self.work.groups
        least = self.work.n_asked if self.work.n_asked is not None else self.shapes.n_latents or n_outputs
        return rows, price.gradients + price.gradients_per_output * min(n_outputs, least)

    def _evaluations(self) -> tuple[int, int]:
        blocks = [self.evaluations(len(self.shard(block * self.n_parts).outputs)) for block in range(self.n_output_blocks)]
        rows, gradients = map(sum, zip(*blocks, strict=True))
        return self.shapes.n_samples * self.work.n_baselines * rows, self.shapes.n_samples * self.work.n_baselines * gradients

    @property
    def forwards(self) -> int:
        """Rows of forward passes of the walks; outputs in other blocks need their own."""
        return self._evaluations()[0]

    @property
    def gradient_evaluations(self) -> int:
        """Inputs x baselines x nodes x outputs (or latents, or groups of features in forward mode); 0 for attributors that take none."""
        return self._evaluations()[1]

    @property
    def finalize_outputs(self) -> int:
        """Outputs finalised at a time, by one rank: what finalising holds, in a quarter of the budget. They divide a block."""
        most = max(1, min(self.output_block, int(self.limits.host_memory * GIB / 4 // max(self._finalize_bytes(), 1))))
        return most if self.n_output_blocks == 1 else next(size for size in range(most, 0, -1) if self.output_block % size == 0)

    def _finalize_bytes(self) -> int:
        """Memory of finalising one output."""
        terms, one_map = self.work.n_terms * self.work.n_cells, self.shapes.n_features * 8
        # slots and left-out sums; and maps of all folds: two results, and six between steps of a deviation or a standard error
        maps = 8 * self.work.n_slices
        if self.work.n_cells > self.work.n_slices:  # the states of two groups, and what the test of their difference makes of them
            maps += (2 * self.work.n_terms + 10) * self.work.n_slices
        statistics = (2 * terms + maps) * self.n_folds * one_map
        # slots of all parts as they are handed over, as they come and in order; where blocks of baselines are merged, the levels of the
        # tree come instead of the former two, each half of the one before
        merge = 3 * terms * self.n_parts * one_map
        return max(statistics, merge)

    def memory(self) -> dict[str, int]:
        """Projected peak bytes of a rank: `host` and `device`."""
        cost, n_outputs = Cost(self.shapes, self.work), self.output_block
        walk = cost.walk(self.samples_per_batch, self.points_per_batch, n_outputs) + cost.state(n_outputs)
        commit = cost.commit(self.samples_per_batch, n_outputs)
        finalize = self._finalize_bytes() * self.finalize_outputs
        if self.work.samples:
            finalize += 4 * self.shapes.n_samples * len(self.work.outputs) * 8  # a table, its encoded and compressed copy, and another's
        if self.work.n_cells > self.work.n_slices:
            finalize += 2 * self.shapes.n_samples * len(self.work.outputs) * 8  # targets of all samples, whose quantiles part them
        held = self.shapes.reserved_bytes + LAZY + (self.disk() if self.work.in_memory else 0)
        if self.work.on_device:
            return {"host": held + max(commit, finalize), "device": walk}
        return {"host": held + max(walk + commit, finalize), "device": 0}

    def disk(self) -> int:
        """Bytes of the store's arrays before compression."""
        features, outputs, n = self.shapes.n_features, len(self.work.outputs), self.shapes.n_samples
        shards = self.n_parts * outputs * self.work.n_cells * (self.work.n_terms * features + 11) * 8 + 2 * 8 * n * outputs
        results = 2 * 3 * (1 + (self.work.n_slices if self.work.n_slices > 1 else 0)) * outputs * features * 8
        shards += n * (outputs + 8) * 8  # what is known of each sample
        samples = n * outputs * (features * self.shapes.itemsize + 4 * 8) if self.work.samples else 0
        return shards + results + samples

    def summary(self) -> dict[str, str]:
        """What `igc-dist plan` prints."""
        memory, most = self.memory(), "at most " if self.work.certified else ""
        return {
            "samples": f"{self.shapes.n_samples}",
            "outputs": f"{len(self.work.outputs)} of {self.shapes.n_outputs}",
            "features": " + ".join(
                f"{name} {raw}" if raw == shape else f"{name} {raw} reduced to {shape}"
                for name, shape, raw in zip(
                    self.shapes.input_names, self.shapes.features, self.shapes.attributed or self.shapes.features, strict=True
                )
            ),
            f"baselines x {'nodes' if self.work.gradients else 'points'}": f"{self.work.n_baselines} x {self.work.points}",
            "shards": f"{self.n_shards}: {self.n_folds} folds x {self.n_baseline_blocks} baseline x {self.n_output_blocks} output blocks",
            "micro-batch": f"{self.samples_per_batch} samples x {self.points_per_batch} points",
            **({"rule": self.work.rule} if self.work.rule else {}),
            "forward rows": f"{most}{self.forwards:,}",
            "mode": self.mode,
            "gradient evaluations": f"{most}{self.gradient_evaluations:,}",
            "peak host memory per rank": f"{size(memory['host'])} (budget {size(self.limits.host_memory * GIB)})",
            "  held before the run": size(self.shapes.reserved_bytes),
            "peak device memory per rank": f"{size(memory['device'])} (budget {size(self.limits.device_memory * GIB)})"
            if self.work.on_device
            else "none",
            "store on disk, at most": size(self.disk()),
        }

    def check(self) -> None:
        """Raise `ConfigError` with the numbers if the plan does not fit its budget."""
        memory = self.memory()
        for place in ("host", "device"):
            limit = getattr(self.limits, f"{place}_memory")
            if memory[place] > limit * GIB:
                raise ConfigError(
                    f"projected peak {place} memory is {size(memory[place])} per rank, the budget plan.{place}_memory is "
                    f"{size(limit * GIB)} (held before the run: {size(self.shapes.reserved_bytes)}; micro-batch {self.samples_per_batch} "
                    f"samples x {self.points_per_batch} points, {self.output_block} outputs per shard): raise the budget, or lower "
                    "plan.output_block, plan.micro_batch or plan.n_folds"
                )
        if self.limits.disk is not None and self.disk() > self.limits.disk * GIB:
            raise ConfigError(
                f"the store needs up to {size(self.disk())} on disk, the budget plan.disk is {size(self.limits.disk * GIB)}: "
                "raise it, lower plan.n_folds, or leave store.samples off"
            )


def make_plan(shapes: Shapes, work: Work, limits: Limits, seed: int) -> Plan:
    """Choose what the limits leave open; whether it fits them is for `Plan.check`.

    Raises `ConfigError` if baselines are cut under a statistic that is not linear, or under stored samples.
    """
    n_outputs, n_baselines = len(work.outputs), work.n_baselines
    baseline_block = min(limits.baseline_block or n_baselines, n_baselines)
    if baseline_block < n_baselines:
        _refuse_baseline_cut(work, baseline_block)
    cost = Cost(shapes, work)
    # not the memory that is free now: the plan, and with it the rounding, must not depend on the machine's state
    free = (
        int(limits.device_memory * GIB) if work.on_device else int(limits.host_memory * GIB) - min(GIB, int(limits.host_memory * GIB) // 2)
    )
    output_block = min(limits.output_block or n_outputs, n_outputs)
    held = lambda block: cost.state(block) + (0 if work.on_device else cost.commit(1, block))  # noqa: E731
    while limits.output_block is None and output_block > 1 and held(output_block) + cost.walk(1, 1, output_block) > free // 2:
        output_block = ceil(output_block / 2)
    free -= held(output_block)
    at_once = free // 2 if work.on_device else min(free // 2, PASS_BYTES)
    fold = ceil(shapes.n_samples / limits.n_folds)
    if work.pairs:  # partners are of one fold: the fewer they are, the more often the same pairs are drawn
        fold = max(fold, min(GROUP, max(ceil(shapes.n_samples / MIN_FOLDS), min(MIN_FOLDS, shapes.n_samples))))
    points = max(1, baseline_block * work.points)
    rows = limits.micro_batch or max(1, min(MAX_ROWS, at_once // max(cost.per_row(), 1)))
    samples = max(1, min(rows, fold, free // 4 // max(cost.per_sample(output_block), 1)))
    # whole micro-batches make a fold, so that each writes whole chunks of per-sample arrays, if there are any
    fold_size = fold if work.drawn else ceil(fold / samples) * samples
    while work.pairs and shapes.n_samples % fold_size == 1 < shapes.n_samples:  # one sample would be left alone
        fold_size += 1
    return Plan(shapes, work, limits, seed, fold_size, baseline_block, output_block, samples, max(1, min(rows // samples, points)))


def _refuse_baseline_cut(work: Work, block: int) -> None:
    if work.pairs:
        raise ConfigError(f"plan.baseline_block={block} with design=pairs, whose partners are drawn together: leave it null")
    for name in work.nonlinear:
        raise ConfigError(
            f"plan.baseline_block={block} cuts {work.n_baselines} baselines, but the statistic {name!r} is not linear in the attribution: "
            f"the {name} of a mean over baselines are not the mean over blocks. Leave plan.baseline_block null, or drop the statistic"
        )
    if work.free:
        raise ConfigError(
            f"plan.baseline_block={block} cuts {work.n_baselines} baselines, but reduce has a function, which need not be linear in the "
            "attribution. Leave plan.baseline_block null, or reduce by segments, patches or channels"
        )
    if work.samples:
        raise ConfigError(
            f"plan.baseline_block={block} with store.samples=true: a sample's attribution is a mean over all baselines, leave it null"
        )


def size(n_bytes: int | float) -> str:
    """Bytes in human units."""
    for unit in ("B", "KiB", "MiB"):
        if abs(n_bytes) < 1024:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.2f} GiB"
