"""The engine against loops written by hand in plain torch, on the same grid and the same micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

import igc_dist
from igc_dist.paths import Quadrature, rule
from igc_dist.planning import Plan
from tests.benchmarks.measure import Report, compared, report
from tests.benchmarks.models import Task, digits, images, planned

Other = Callable[[Task, Plan, Quadrature], Tensor]


def engine(task: Task, n_steps: int, n_folds: int) -> Any:
    """The whole run: checks, pass 1, walk, fold, store (in memory), results with their standard errors. Returns IGC."""
    return igc_dist.attribute(task.module, (task.x, task.y), n_steps=n_steps, n_folds=n_folds)["x/igc"].values


def by_hand(task: Task, plan: Plan, quadrature: Quadrature) -> Tensor:
    """Pass 1, baseline, and for every micro-batch one forward and one gradient per output; sums in float32. Returns
    IGC."""
    module, x, y = task.module.requires_grad_(False), task.x, task.y
    outputs, order = y.shape[1], torch.from_numpy(plan.order)
    nodes, weights = torch.from_numpy(quadrature.nodes).float(), torch.from_numpy(quadrature.weights).float()
    rows = plan.samples_per_batch * plan.points_per_batch
    with torch.no_grad():
        r = torch.cat([module(x[fold]) for fold in order.split(min(rows, plan.fold_size))])
        module(torch.zeros_like(x[:1]))
    y = y[order]
    total = x.new_zeros(2, outputs, *x.shape[1:])
    for batch, y_batch in zip(
        order.split(plan.samples_per_batch), (y - y.mean(0)).split(plan.samples_per_batch), strict=True
    ):
        ends = x[batch]
        n = len(ends)
        ig = ends.new_zeros(outputs, *ends.shape)
        for t, w in zip(nodes.split(plan.points_per_batch), weights.split(plan.points_per_batch), strict=True):
            shape = (-1, *(1,) * ends.ndim)
            points = (t.reshape(shape) * ends).flatten(0, 1).requires_grad_()
            columns = module(points).unbind(1)
            for k, column in enumerate(columns):
                (grad,) = torch.autograd.grad(column.sum(), points, retain_graph=k < outputs - 1)
                ig[k] += (w.reshape(shape) * ends * grad.unflatten(0, (len(t), n))).sum(0)
        total[0] += ig.sum(1)
        total[1] += torch.einsum("jnp,nj->jp", ig.flatten(2), y_batch).reshape(total[1].shape)
    scale = (y.std(0, correction=0) * r.std(0, correction=0)).reshape(-1, *(1,) * (x.ndim - 1))
    return total[1] / len(x) / scale


def repeated(task: Task, plan: Plan, quadrature: Quadrature) -> Tensor:
    """The layout that repeats every input once per output and lets `backward` form parameter gradients; as many rows
    per pass."""
    module, x, outputs = task.module.requires_grad_(True), task.x, task.y.shape[1]
    rows = max(1, plan.samples_per_batch * plan.points_per_batch // outputs)
    samples = min(plan.samples_per_batch, rows)
    t, w = torch.from_numpy(quadrature.nodes).float(), torch.from_numpy(quadrature.weights).float()
    total = x.new_zeros(outputs, *x.shape[1:])
    k = torch.arange(outputs)
    for ends in x.split(samples):
        for t_some, w_some in zip(t.split(max(1, rows // len(ends))), w.split(max(1, rows // len(ends))), strict=True):
            walk = t_some.reshape(-1, *(1,) * ends.ndim) * ends
            points = (
                walk[:, :, None]
                .expand(*walk.shape[:2], outputs, *x.shape[1:])
                .reshape(-1, *x.shape[1:])
                .requires_grad_()
            )
            out = module(points).unflatten(0, (len(t_some), len(ends), outputs))
            out[:, :, k, k].sum().backward()
            grad = points.grad.unflatten(0, out.shape[:3])
            total += (w_some.reshape(-1, *(1,) * (grad.ndim - 1)) * ends[:, None] * grad).sum((0, 1))
            module.zero_grad(set_to_none=True)
    module.requires_grad_(False)
    return total


def against(bench: str, task: Task, n_steps: int, n_folds: int, other: Other, rounds: int, **bound: float) -> Report:
    """Time of the engine over that of another way to walk the same grid."""
    quadrature, plan = rule("midpoint", n_steps), planned(task, n_steps, n_folds=n_folds)
    one, two = partial(engine, task, n_steps, n_folds), partial(other, task, plan, quadrature)
    if other is by_hand:  # the same numbers, so the same work
        found, theirs = one(), two().double().numpy()
        assert abs(found - theirs).max() < 1e-4 * abs(found).max()
    grid = {"samples": len(task.x), "nodes": n_steps, "outputs": task.y.shape[1], "folds": plan.n_folds}
    batch = plan.samples_per_batch * plan.points_per_batch
    return report(f"{bench}/{task.name}", **compared(one, two, rounds), **bound, **grid, micro_batch=batch)


def run() -> Iterator[Report]:
    """Engine overhead at most 1.10; at most half the time of the layout that repeats inputs."""
    yield against("overhead", digits(1797), 32, 32, by_hand, 3, at_most=1.10)
    yield against("overhead", images(64), 8, 8, by_hand, 3, at_most=1.10)
    yield against("repeated_layout", digits(1797), 32, 32, repeated, 2, at_most=0.5)
    yield against("repeated_layout", images(16), 8, 2, repeated, 2, at_most=0.5)
