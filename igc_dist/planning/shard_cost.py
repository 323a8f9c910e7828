"""The time of the shards of a plan on a machine, in seconds, and the bytes of their states."""

from __future__ import annotations

from functools import cache
from math import ceil

from igc_dist.planning.machine import Machine
from igc_dist.planning.plan import Plan
from igc_dist.records import Passes

PER_GROUP = 3
"""Time of a directional derivative relative to that of a gradient: `modes.PER_GROUP`."""

PARTS = 3
"""Time of an input of a micro-batch of pass 2 relative to pass 1: a path point, an attribution, and its sums."""


def outputs_of(plan: Plan) -> list[int]:
    """Number of outputs of each block."""
    return [len(plan.shard(block * plan.n_parts).outputs) for block in range(plan.n_output_blocks)]


def state_of(plan: Plan, n_parts: int, n_outputs: int) -> int:
    """Bytes of the states of `n_parts` parts and `n_outputs` outputs."""
    work = plan.work
    return n_parts * n_outputs * work.n_cells * (work.n_terms * plan.shapes.n_features + 11) * 8


class ShardCost:
    """Seconds of the shards of a plan. Each shard has three: for computing, waiting for data, and writing."""

    def __init__(self, plan: Plan, passes: Passes, machine: Machine) -> None:
        self.plan, self.passes, self.machine = plan, passes, machine
        self.baselines = [len(plan.shard(block).baselines) for block in range(plan.n_baseline_blocks)]
        self.samples = [len(plan.fold(fold)) for fold in range(plan.n_folds)]
        self.rows = plan.rows_per_pass

    def folds(self) -> list[tuple[float, float, float]]:
        """All shards of pass 1."""
        predict = cache(self.predict)  # most have the same size
        return [predict(n) for n in self.samples]

    def walks(self) -> list[tuple[float, float, float]]:
        """All shards of pass 2."""
        walk = cache(self.walk)
        return [
            walk(n, n_baselines, n_outputs)
            for n_outputs in outputs_of(self.plan)
            for n in self.samples
            for n_baselines in self.baselines
        ]

    def predict(self, n: int) -> tuple[float, float, float]:
        """A shard of n samples of pass 1: computing, waiting for data, writing."""
        machine, batches = self.machine, ceil(n / self.rows[0])
        computing = machine.model(self.passes.forward, n, batches) + batches * (machine.batch + self.inputs)
        return computing, self.waiting(n, computing), machine.shard + self.tables(n) / machine.encode

    @property
    def inputs(self) -> float:
        """Seconds of all inputs of a micro-batch, whatever its size."""
        return self.machine.part * len(self.plan.shapes.input_names)

    def tables(self, n: int) -> int:
        """Bytes of the predictions and the targets of n samples."""
        return n * len(self.plan.work.outputs) * (8 + max(4, self.plan.shapes.itemsize))

    def waiting(self, n: int, computing: float) -> float:
        """Seconds of waiting for the data of n samples. Data that is read ahead is read during the computing."""
        reading = n * self.machine.sample
        return max(0.0, reading - computing) if self.plan.work.ahead else reading

    def walk(self, n: int, n_baselines: int, n_outputs: int) -> tuple[float, float, float]:
        """A shard of n samples of pass 2: computing, waiting for data, writing."""
        plan, machine = self.plan, self.machine
        rows, gradients = (n * n_baselines * each for each in plan.evaluations(n_outputs))
        gradients *= PER_GROUP if plan.work.groups else 1
        batches = ceil(n / plan.samples_per_batch)
        calls = max(batches, ceil(rows / self.rows[1]))
        computing = machine.model(self.passes.forward, rows, calls) + calls * (machine.batch + self.inputs)
        computing += machine.model(self.passes.gradient, gradients, ceil(calls * gradients / max(rows, 1)))
        rows, gradients = (n * each for each in plan.scoring(n_outputs))  # of metrics
        computing += machine.model(self.passes.forward, rows, ceil(rows / self.rows[1]))
        computing += machine.model(self.passes.gradient, gradients, ceil(gradients / self.rows[1]))
        computing += n * n_outputs * sum(effort.seconds for _, effort in plan.work.efforts)
        computing += batches * (PARTS - 1) * self.inputs
        computing += n * n_outputs * plan.shapes.n_features * 8 / machine.traffic  # what is folded, in float64
        samples = n * n_outputs * plan.shapes.n_features * plan.shapes.itemsize if plan.work.samples else 0
        return (
            computing,
            self.waiting(n, computing),
            machine.shard
            + self.inputs
            + self.tables(n) / machine.decode
            + (state_of(plan, 1, n_outputs) + samples) / machine.encode,
        )
