"""The plan: shards and micro-batches, and what they cost in gradient evaluations, memory and disk.

A plan depends on the configuration and never on the number of ranks. It fixes the micro-batches, because the
composition of a batch decides the rounding of its gradients. `cut.py` makes the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from igc_dist import seeds
from igc_dist.planning import disk
from igc_dist.planning.cost import LAZY, Cost, Work
from igc_dist.planning.disk import Footprint
from igc_dist.planning.limits import GIB, KEPT, Limits, size
from igc_dist.planning.page_cost import PageCost
from igc_dist.planning.table_cost import TABLE, TableCost
from igc_dist.records import ConfigError, Price, Shapes, Shard


class Piece(NamedTuple):
    """Rows of a fold whose tables are held at once; `whole`: all of its rows."""

    fold: int
    rows: range
    whole: bool


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
        """Largest number of rows of a forward pass: in pass 1, which takes at most a fold at a time, and in walks."""
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

    @cached_property
    def table_rows(self) -> int:
        """Rows of a piece of a fold: the fold, or the largest part of equal parts whose tables are small enough."""
        least = max(1, min(self.fold_size, ceil(self.fold_size * len(self.work.outputs) / TABLE)))
        return self.fold_size // next(n for n in range(least, self.fold_size + 1) if self.fold_size % n == 0)

    @property
    def table_cost(self) -> TableCost:
        """What the tables of samples and outputs take."""
        return TableCost(self.shapes, self.work, self.table_rows, self.fold_size)

    @property
    def page_cost(self) -> PageCost:
        """What the page takes."""
        return PageCost(self.shapes, self.work, self.finalize_outputs)

    def tables(self, *folds: int) -> Iterator[Piece]:
        """The pieces of some folds, or of all, in order."""
        for fold in folds or range(self.n_folds):
            rows = self.fold(fold)
            for start in range(rows.start, rows.stop, self.table_rows):
                piece = range(start, min(start + self.table_rows, rows.stop))
                yield Piece(fold, piece, piece == rows)

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
        """Rows of forward passes, and gradients, from one baseline to one input for a block of outputs.

        Gradients are of these outputs, or of the latents if they are fewer. In forward mode they are directional
        derivatives of all outputs at once: one for each group of features.
        """
        price = self.work.price or Price(
            self.work.points, gradients_per_output=self.work.points if self.work.gradients else 0
        )
        rows = price.rows + price.rows_per_output * n_outputs
        if self.work.groups:
            return rows, self.work.points * self.work.groups
        least = self.work.n_asked if self.work.n_asked is not None else self.shapes.n_latents or n_outputs
        return rows, price.gradients + price.gradients_per_output * min(n_outputs, least)

    def scoring(self, n_outputs: int) -> tuple[int, int]:
        """Rows of forward passes, and gradients, that metrics take for a sample and a block of outputs, at most."""
        rows, gradients = self.evaluations(n_outputs)
        efforts = [effort for _, effort in self.work.efforts]
        walks = self.work.n_baselines * sum(effort.walks for effort in efforts)
        more = (n_outputs * sum(getattr(effort, name) for effort in efforts) for name in ("rows", "gradients"))
        return next(more) + walks * rows, next(more) + walks * gradients

    def _scoring(self) -> str:
        """What metrics take of all samples, and what each takes of a map, for `summary`."""
        rows, gradients = (self.shapes.n_samples * number for number in self._summed(self.scoring))
        units = "forward rows", "gradients", "walks", "s on the host"
        each = [
            f"{name} " + (" + ".join(f"{n:.3g} {unit}" for n, unit in zip(some, units, strict=False) if n) or "none")
            for name, some in self.work.efforts
        ]
        return f"at most {rows:,} forward rows and {gradients:,} gradients; for a map {', '.join(each)}"

    def _summed(self, of: Callable[[int], tuple[int, int]]) -> tuple[int, int]:
        """Rows and gradients of all blocks of outputs."""
        blocks = [of(len(self.shard(block * self.n_parts).outputs)) for block in range(self.n_output_blocks)]
        return sum(rows for rows, _ in blocks), sum(gradients for _, gradients in blocks)

    def _evaluations(self) -> tuple[int, int]:
        rows, gradients = self._summed(self.evaluations)
        return (
            self.shapes.n_samples * self.work.n_baselines * rows,
            self.shapes.n_samples * self.work.n_baselines * gradients,
        )

    @property
    def forwards(self) -> int:
        """Rows of forward passes of the walks; outputs in other blocks need their own."""
        return self._evaluations()[0]

    @property
    def gradient_evaluations(self) -> int:
        """Inputs x baselines x nodes x outputs; 0 for attributors that take no gradients.

        Latents count in place of outputs if they are walked, and groups of features in forward mode.
        """
        return self._evaluations()[1]

    @property
    def finalize_outputs(self) -> int:
        """Outputs that one rank finalises at a time, within a quarter of the memory budget. They divide a block."""
        most = max(1, min(self.output_block, int(self.limits.host_memory * GIB / 4 // max(self._finalize_bytes(), 1))))
        return (
            most
            if self.n_output_blocks == 1
            else next(size for size in range(most, 0, -1) if self.output_block % size == 0)
        )

    def _finalize_bytes(self) -> int:
        """Memory for finalising one output."""
        terms, one_map = self.work.n_terms * self.work.n_cells, self.shapes.n_features * 8
        # slots and leave-one-out sums; and maps of all folds: two results, and six between steps of a deviation or a
        # standard error
        maps = 8 * self.work.n_slices
        # the states of two groups, and the arrays of the test of their difference
        if self.work.n_cells > self.work.n_slices:
            maps += (2 * self.work.n_terms + 10) * self.work.n_slices
        statistics = (2 * terms + maps) * self.n_folds * one_map
        # slots of all parts three times: as handed over, as received, and in order; if blocks of baselines are merged,
        # the levels of the tree replace the first two, and each level is half of the one before
        merge = 3 * terms * self.n_parts * one_map
        return max(statistics, merge)

    def memory(self) -> dict[str, int]:
        """Projected peak bytes of a rank: `host` and `device`."""
        cost, n_outputs, tables = Cost(self.shapes, self.work), self.output_block, self.table_cost
        walk = cost.walk(self.samples_per_batch, self.points_per_batch, n_outputs) + cost.state(n_outputs)
        commit = cost.commit(self.samples_per_batch, n_outputs)
        predict, scoring = cost.predict(self.rows_per_pass[0]), self.samples_per_batch * cost.scoring(n_outputs)
        steps = [
            tables.predict(self.rows_per_pass[0]) + (0 if self.work.on_device else predict),
            tables.know(),
            tables.held() + commit + (scoring if self.work.on_device else walk),
            tables.write(),
            self._finalize_bytes() * self.finalize_outputs,
            self.page_cost.memory(),
        ]
        held = self.shapes.reserved_bytes + LAZY + KEPT + tables.samples()
        held += self.content() if self.work.in_memory else 0
        return {"host": held + max(steps), "device": max(walk, predict) if self.work.on_device else 0}

    @cached_property
    def footprint(self) -> Footprint:
        """What the store takes on disk, at most."""
        return disk.footprint(self)

    def disk(self) -> int:
        """Bytes of the store on disk, at most, as a file system counts them."""
        return self.footprint.size

    def content(self) -> int:
        """Bytes of the store's arrays before compression."""
        features, outputs, n = self.shapes.n_features, len(self.work.outputs), self.shapes.n_samples
        shards = (
            self.n_parts * outputs * self.work.n_cells * (self.work.n_terms * features + 11) * 8 + 2 * 8 * n * outputs
        )
        results = 2 * 3 * (1 + (self.work.n_slices if self.work.n_slices > 1 else 0)) * outputs * features * 8
        shards += n * (outputs + 8) * 8  # the tables of each sample
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
                    self.shapes.input_names,
                    self.shapes.features,
                    self.shapes.attributed or self.shapes.features,
                    strict=True,
                )
            ),
            f"baselines x {'nodes' if self.work.gradients else 'points'}": f"{self.work.n_baselines} x "
            f"{self.work.points}",
            "shards": f"{self.n_shards}: {self.n_folds} folds x {self.n_baseline_blocks} baseline x "
            f"{self.n_output_blocks} output blocks",
            "micro-batch": f"{self.samples_per_batch} samples x {self.points_per_batch} points",
            **({"rule": self.work.rule} if self.work.rule else {}),
            "forward rows": f"{most}{self.forwards:,}",
            "mode": self.mode,
            "gradient evaluations": f"{most}{self.gradient_evaluations:,}",
            **({"metrics": self._scoring()} if self.work.efforts else {}),
            "peak host memory per rank": f"{size(memory['host'])} (budget {size(self.limits.host_memory * GIB)})",
            "  held before the run": size(self.shapes.reserved_bytes),
            "peak device memory per rank": f"{size(memory['device'])} (budget {size(self.limits.device_memory * GIB)})"
            if self.work.on_device
            else "none",
            "store on disk, at most": str(self.footprint),
        }

    def check(self) -> None:
        """Raise `ConfigError` with the numbers if the plan does not fit its budget."""
        memory = self.memory()
        for place in ("host", "device"):
            limit = getattr(self.limits, f"{place}_memory")
            if memory[place] > limit * GIB:
                bare = replace(self, work=replace(self.work, page=0)).memory()[place]
                way = "lower plan.output_block, plan.micro_batch or plan.n_folds"
                way = "set report.enabled=false, as the page takes the most" if bare < memory[place] else way
                raise ConfigError(
                    f"projected peak {place} memory is {size(memory[place])} per rank, the budget plan.{place}_memory "
                    f"is {size(limit * GIB)} (held before the run: {size(self.shapes.reserved_bytes)}; micro-batch "
                    f"{self.samples_per_batch} samples x {self.points_per_batch} points, {self.output_block} outputs "
                    f"per shard): raise the budget, or {way}"
                )
        if self.limits.disk is not None or self.limits.files is not None:
            disk.check(self)
