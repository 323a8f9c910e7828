"""Gradient throughput of the walk of a run against a bare loop of forward passes and input gradients, each at its best
micro-batch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest.mock import patch

import torch

import igc_dist
from igc_dist import run as composition
from tests.benchmarks.measure import Report, ratio, report, seconds
from tests.benchmarks.models import Task, digits, images, patches

SIZES = (16, 32, 64, 128, 256)
"""Rows of a forward pass that either side may choose from."""


def walk(task: Task, n_steps: int, n_folds: int, rows: int) -> tuple[float, float]:
    """Wall and CPU time of pass 2 of a run in memory: shards are claimed, read, walked, folded and committed."""
    times: list[tuple[float, float]] = []
    whole = composition.Run.attribute

    def timed(*arguments: Any) -> Any:
        found: list[Any] = []
        times.append(seconds(lambda: found.append(whole(*arguments))))
        return found[0]

    with patch.object(composition.Run, "attribute", timed):
        igc_dist.attribute(task.module, (task.x, task.y), n_steps=n_steps, n_folds=n_folds, micro_batch=rows)
    return times[0]


def bare(task: Task, n_steps: int, rows: int) -> None:
    """As many rows through the model and one gradient per output, in passes of `rows` rows; nothing else."""
    module, outputs, total = task.module.requires_grad_(False), task.y.shape[1], len(task.x) * n_steps
    for start in range(0, total, rows):
        points = task.x[torch.arange(start, min(start + rows, total)) % len(task.x)].requires_grad_()
        columns = module(points).unbind(1)
        for k, column in enumerate(columns):
            torch.autograd.grad(column.sum(), points, retain_graph=k < outputs - 1)


def throughput(task: Task, n_steps: int, n_folds: int, rounds: int) -> Report:
    """Gradients per second of the walk over those of the bare loop, on the same rows."""
    few = Task(task.name, task.module, task.x[: len(task.x) // 4], task.y[: len(task.x) // 4])
    sizes = [rows for rows in SIZES if rows <= len(few.x) * n_steps]
    ours = min(sizes, key=lambda rows: min(walk(few, n_steps, 1, rows)[1] for _ in range(2)))
    best = min(sizes, key=lambda rows: min(seconds(partial(bare, few, n_steps, rows))[1] for _ in range(2)))
    times = [(seconds(partial(bare, task, n_steps, best)), walk(task, n_steps, n_folds, ours)) for _ in range(rounds)]
    gradients = len(task.x) * n_steps * task.y.shape[1]
    grid = {
        "samples": len(task.x),
        "nodes": n_steps,
        "outputs": task.y.shape[1],
        "folds": n_folds,
        "gradients": gradients,
    }
    return report(
        f"throughput/{task.name}", **ratio(times), at_least=0.9, **grid, micro_batch=ours, bare_micro_batch=best
    )


def run() -> Iterator[Report]:
    """At least 0.9 of the bare loop: a small convolutional net, a residual net and a vision transformer."""
    yield throughput(digits(1200), 16, 4, 4)
    yield throughput(images(32), 8, 4, 3)
    yield throughput(patches(64), 8, 4, 3)
