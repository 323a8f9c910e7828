"""The family against the layout of the package it follows, and what many outputs cost where they ought to cost
nothing."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import igc_dist
from tests.benchmarks.measure import Report, compared, ratio, report, seconds
from tests.benchmarks.models import SEED, Task, digits, images

POINTS = 64
"""Of the trapezoid rule: the package's default."""


def by_trapezoid(task: Task, starts: Tensor) -> Any:
    """The whole run of the engine. Returns the tree."""
    return igc_dist.attribute(task.module, (task.x, task.y), baseline=starts, quadrature="trapezoid", n_steps=POINTS)


def package_layout(task: Task, starts: Tensor) -> np.ndarray:
    """IGC as the package lays it out by default: one input at a time, repeated for every point, output and baseline.

    One forward and one backward for the whole, which forms parameter gradients and keeps the graph; the gradients of
    all points go to numpy, are summed there by the trapezoid rule, and folded into running means and co-moments in
    float32. `starts` are the baselines of all inputs, (B, *P), or those of each, (N, B, *P).
    """
    module, outputs, b, shape = (
        task.module.requires_grad_(True),
        task.y.shape[1],
        starts.shape[-task.x.ndim],
        task.x.shape[1:],
    )
    alpha = torch.linspace(0, 1, POINTS).reshape(-1, 1, 1, 1, *(1,) * len(shape))
    k = torch.arange(outputs)
    wide = lambda v: v.reshape(-1, *(1,) * len(shape))  # noqa: E731
    mean_a, c_ay = (np.zeros((outputs, *shape), np.float32) for _ in range(2))
    mean_y, mean_r, c_yy, c_rr = (np.zeros(outputs, np.float32) for _ in range(4))
    with torch.no_grad():
        module(starts.reshape(-1, *shape))
    each = starts if starts.ndim > task.x.ndim else starts.expand(len(task.x), *starts.shape)
    for n, (x, y, own) in enumerate(zip(task.x, task.y.numpy(), each, strict=True), 1):
        start = own.reshape(1, 1, b, 1, *shape)  # points outputs baselines inputs
        with torch.no_grad():
            r = module(x[None])[0].numpy()
        points = (
            (start + alpha * (x - start))
            .expand(POINTS, outputs, b, 1, *shape)
            .flatten(0, 3)
            .contiguous()
            .requires_grad_()
        )
        out = module(points).unflatten(0, (POINTS, outputs, b))
        out[:, k, :, k].sum().backward(retain_graph=True)
        assert points.grad is not None
        grad = points.grad.numpy().reshape(POINTS, outputs, b, *shape)
        ig = ((grad[1:] + grad[:-1]).mean(0) / 2 * (x - own).numpy()).mean(1)
        before_a, before_y, before_r = ig - mean_a, y - mean_y, r - mean_r
        mean_a, mean_y, mean_r = mean_a + before_a / n, mean_y + before_y / n, mean_r + before_r / n
        c_ay += before_a * wide(y - mean_y)
        c_yy, c_rr = c_yy + before_y * (y - mean_y), c_rr + before_r * (r - mean_r)
    module.requires_grad_(False).zero_grad(set_to_none=True)
    with np.errstate(invalid="ignore"):
        return c_ay / wide(np.sqrt(c_yy * c_rr))


TASKS: dict[str, tuple[Callable[[int], Task], int]] = {"digits": (digits, 400), "resnet64": (images, 6)}
"""Tasks with ten outputs, and how many samples keep each side to some seconds."""


def task_of(name: str) -> tuple[Task, Tensor]:
    """A task, and zeros for its one baseline."""
    make, samples = TASKS[name]
    task = make(samples)
    return task, torch.zeros_like(task.x[:1])


def layout_seconds(name: str) -> tuple[float, float]:
    """Wall and CPU time of the package's layout in this process."""
    torch.set_num_threads(1)
    task, starts = task_of(name)
    package_layout(Task(name, task.module, task.x[:2], task.y[:2]), starts)
    return seconds(partial(package_layout, task, starts))


def against_the_package(name: str, rounds: int) -> Iterator[Report]:
    """Time of the engine over that of the layout, on the same grid; and the memory of a state.

    The layout runs in a process of its own, where nothing has told the C library to keep freed memory, as the engine
    does (`footprint.keep_freed`): on this side of the fence it would gain from that too.
    """
    task, starts = task_of(name)
    tree, theirs = by_trapezoid(task, starts), package_layout(task, starts)
    ours = tree["x/igc"].values
    assert abs(ours - theirs).max() < 1e-3 * abs(ours).max()
    grid = {"samples": len(task.x), "points": POINTS, "outputs": task.y.shape[1], "baselines": len(starts)}
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        times = [
            (seconds(partial(by_trapezoid, task, starts)), pool.apply(layout_seconds, (name,))) for _ in range(rounds)
        ]
    yield report(f"package_layout/{name}", **ratio(times), at_most=0.4, **grid)
    sums = tree["shards/attribute/x/sums"]
    of_one = sums.nbytes / len(sums) / ours.size
    yield report(f"state_bytes_per_output_and_feature/{name}", of_one, terms=sums.sizes["term"], type=str(sums.dtype))


class Latents(nn.Module):
    """A small convolutional net from images (1, 8, 8) to 64 latents, and a linear layer of `outputs` on them, if
    any."""

    def __init__(self, outputs: int | None) -> None:
        super().__init__()
        torch.manual_seed(SEED)
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.GELU(), nn.Conv2d(16, 32, 3, padding=1), nn.GELU(), nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 64), nn.Tanh(),
        )  # fmt: skip
        self.last: nn.Module = nn.Identity() if outputs is None else nn.Linear(64, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x))


def classes(outputs: int | None, samples: int) -> Task:
    """Digits through `Latents`, with targets that follow its outputs."""
    module, x = Latents(outputs).eval(), digits(samples).x
    with torch.no_grad():
        y = module(x)
    return Task("classes", module, x, y + y.std() * torch.randn(y.shape, generator=torch.Generator().manual_seed(SEED)))


def final_layer(rounds: int = 2, samples: int = 512, n_steps: int = 32) -> Report:
    """1,000 outputs through 64 latents over the 64 latents as outputs."""
    many, few = classes(1000, samples), classes(None, samples)

    def one(n: int = samples) -> Any:
        data = many.x[:n], many.y[:n]
        return igc_dist.attribute(many.module, data, n_steps=n_steps, final_layer="last")

    def two(n: int = samples) -> Any:
        return igc_dist.attribute(few.module, (few.x[:n], few.y[:n]), n_steps=n_steps)

    one(16), two(16)
    return report(
        "final_linear_layer/1000_of_64", **compared(one, two, rounds), at_most=1.3, samples=samples, nodes=n_steps
    )


def shapley(rounds: int = 3, samples: int = 300, outputs: int = 20) -> Report:
    """Baseline Shapley of all outputs over that of one, 8 permutations of 64 pixels for each sample."""
    task = classes(outputs, samples)
    run = lambda target: igc_dist.attribute(task.module, (task.x, task.y), method="bsc", target=target)  # noqa: E731
    run(0)
    return report(
        "baseline_shapley_outputs",
        **compared(partial(run, None), partial(run, 0), rounds),
        at_most=1.10,
        samples=samples,
        outputs=outputs,
    )


def run() -> Iterator[Report]:
    """At most 0.4 of the package's layout; 1,000 outputs at most 1.3 times 64 latents; Shapley of 20 outputs at most
    1.1 times one."""
    for name in TASKS:
        yield from against_the_package(name, 2)
    yield final_layer()
    yield shapley()
