"""The engine against loops written by hand in plain torch, on the same grid and the same micro-batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

import igc_dist
from igc_dist.plan import Plan
from igc_dist.quadrature import Quadrature, rule
from tests.benchmarks.measure import Report, alternately, ratio, report
from tests.benchmarks.models import Task, digits, images, planned


def engine(task: Task, n_steps: int) -> None:
    """The whole run: checks, pass 1, walk, fold, store (in memory), results with their standard errors."""
    igc_dist.attribute(task.module, (task.x, task.y), n_steps=n_steps)


def by_hand(task: Task, plan: Plan, quadrature: Quadrature) -> Tensor:
    """Pass 1, baseline, and for every micro-batch one forward and one gradient per output; sums in float32. Returns IGC."""
    module, x, y = task.module.requires_grad_(False), task.x, task.y
    outputs, order = y.shape[1], torch.from_numpy(plan.order)
    nodes, weights = torch.from_numpy(quadrature.nodes).float(), torch.from_numpy(quadrature.weights).float()
    rows = plan.samples_per_batch * plan.points_per_batch
    with torch.no_grad():
        r = torch.cat([module(x[fold]) for fold in order.split(min(rows, plan.fold_size))])
        module(torch.zeros_like(x[:1]))
    y = y[order]
    total = x.new_zeros(2, outputs, *x.shape[1:])
    for batch, y_batch in zip(order.split(plan.samples_per_batch), (y - y.mean(0)).split(plan.samples_per_batch), strict=True):
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
    """The layout that repeats every input once per output and lets `backward` form parameter gradients; as many rows per pass."""
    module, x, outputs = task.module.requires_grad_(True), task.x, task.y.shape[1]
    rows = max(1, plan.samples_per_batch * plan.points_per_batch // outputs)
    samples = min(plan.samples_per_batch, rows)
    t, w = torch.from_numpy(quadrature.nodes).float(), torch.from_numpy(quadrature.weights).float()
    total = x.new_zeros(outputs, *x.shape[1:])
    k = torch.arange(outputs)
    for ends in x.split(samples):
        for t_some, w_some in zip(t.split(max(1, rows // len(ends))), w.split(max(1, rows // len(ends))), strict=True):
            walk = t_some.reshape(-1, *(1,) * ends.ndim) * ends
            points = walk[:, :, None].expand(*walk.shape[:2], outputs, *x.shape[1:]).reshape(-1, *x.shape[1:]).requires_grad_()
            out = module(points).unflatten(0, (len(t_some), len(ends), outputs))
            out[:, :, k, k].sum().backward()
            grad = points.grad.unflatten(0, out.shape[:3])
            total += (w_some.reshape(-1, *(1,) * (grad.ndim - 1)) * ends[:, None] * grad).sum((0, 1))
            module.zero_grad(set_to_none=True)
    module.requires_grad_(False)
    return total


def cases() -> Iterator[tuple[Task, int]]:
    yield digits(1797), 8
    yield images(64), 8


def run() -> Iterator[Report]:
    """Engine overhead at most 1.10; at most half the time of the layout that repeats inputs."""
    for task, n_steps in cases():
        quadrature, plan = rule("midpoint", n_steps), planned(task, n_steps)
        sides = {
            "engine": lambda task=task, n_steps=n_steps: engine(task, n_steps),
            "by_hand": lambda task=task, plan=plan, quadrature=quadrature: by_hand(task, plan, quadrature),
        }
        grid = {"samples": len(task.x), "nodes": n_steps, "outputs": task.y.shape[1]}
        grid |= {"micro_batch": plan.samples_per_batch * plan.points_per_batch}
        found = igc_dist.attribute(task.module, (task.x, task.y), n_steps=n_steps)["x/igc"].values
        mine = by_hand(task, plan, quadrature).double().numpy()
        grid["largest_difference"] = float(abs(found - mine).max() / abs(found).max())
        times = alternately(sides)
        yield report(f"overhead/{task.name}", at_most=1.10, **ratio(times, "engine", "by_hand"), **grid)
        sides = {"engine": sides["engine"], "repeated": lambda task=task, plan=plan, q=quadrature: repeated(task, plan, q)}
        yield report(f"repeated_layout/{task.name}", at_most=0.5, **ratio(alternately(sides, 2), "engine", "repeated"), **grid)
