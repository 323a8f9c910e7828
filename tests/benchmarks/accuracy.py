"""Error of the IGC against gradients, for each design: what the original's grid costs, and what is as accurate.

An error is that of the draws, the data being what they are: ``sqrt(mean (C - ref)^2) / sqrt(mean ref^2)`` over the maps
of all outputs, and the root mean square of it over seeds. The reference takes every row of the data as a baseline of
every other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

import igc_dist
from igc_dist.baselines import Resampled
from tests.benchmarks.family import POINTS, package_layout
from tests.benchmarks.measure import Report, ratio, report, seconds
from tests.benchmarks.models import SEED, Task, digits, pooled, smooth

SEEDS = (1, 2, 3)
BASELINES = 8
"""Of each input, drawn from the data: with `POINTS` nodes for each the default of the original."""
DRAWS = (1, 2, 3, 4, 6, 8, 16, 40, 80)

TASKS: dict[str, tuple[Callable[[int], Task], int]] = {"digits": (digits, 512), "smooth": (smooth, 256)}
"""Nets with labels, and how many images."""


@dataclass(frozen=True)
class Reference:
    """A converged IGC (J, *P), and its own standard error in the measure of the errors."""

    igc: np.ndarray
    error: float

    @classmethod
    def of(cls, one: np.ndarray, two: np.ndarray) -> Reference:
        """Of two independent ones: the error of their mean is half their difference."""
        mean = (one + two) / 2
        return cls(mean, float(np.sqrt(((one - two) ** 2).mean() / (mean**2).mean()) / 2))

    def off(self, igc: np.ndarray) -> float:
        """The error of another."""
        return float(np.sqrt(((igc - self.igc) ** 2).mean() / (self.igc**2).mean()))


def grid(baselines: int, nodes: int, quadrature: str = "trapezoid") -> Report:
    """Settings of every baseline with every node."""
    return {"baseline": Resampled(baselines), "quadrature": quadrature, "n_steps": nodes}


def stratified(baselines: int, strata: bool = False, **more: Any) -> Report:
    """Settings of one node for each of the baselines of an input."""
    return {"design": "stratified", "baseline": Resampled(baselines, stratify=strata), "n_steps": 1, **more}


DESIGNS: dict[str, list[Report]] = {
    "grid": [grid(*size) for size in ((1, 4), (2, 8), (4, 8))],
    "stratified": [stratified(k) for k in (1, 2, 4, 8, 16)],
    "stratified, stratified baselines": [stratified(k, True) for k in (4, 8, 16)],
    "stratified, control variate": [stratified(k, statistics=["controlled_correlation"]) for k in (4, 8, 16)],
    "pairs": [{"design": "pairs", "n_draws": k} for k in DRAWS],
    "importance_pairs": [{"design": "importance_pairs", "n_draws": k} for k in DRAWS],
}
PAIRS = ("pairs", "importance_pairs")


def run_of(task: Task, seed: int = 1, **settings: Any) -> Any:
    """The whole run of the engine, with y as labels. Returns the tree."""
    return igc_dist.attribute(task.module, (task.x, task.y.argmax(1)), seed=seed, **settings)


def gradients(tree: Any) -> int:
    return int(tree.attrs["cost"]["gradient_evaluations"])


def error(task: Task, reference: Reference, seeds: tuple[int, ...] = SEEDS, **settings: Any) -> tuple[int, float]:
    """Gradients, and error."""
    name = "igc_controlled" if "statistics" in settings else "igc"
    trees = [run_of(task, seed, **settings) for seed in seeds]
    return gradients(trees[0]), float(
        np.sqrt(np.mean([reference.off(tree[f"x/{name}"].values) ** 2 for tree in trees]))
    )


def every_pair(task: Task, seed: int) -> np.ndarray:
    """``C_j = 1 / N^2 sum_(n < m) (w_nj - w_mj) IG_j(x_n; x_m)``, ``w = y / (std y std r)``: every row is a baseline of
    every other.

    Two nodes a pair, with one random offset. A pair has a weight for the outputs of its two labels, if these differ:
    two gradients.
    """
    module, x, label, n = task.module.requires_grad_(False), task.x, task.y.argmax(1), len(task.x)
    generator, sums = (
        torch.Generator().manual_seed(seed),
        torch.zeros(task.y.shape[1], *x.shape[1:], dtype=torch.float64),
    )
    ends, starts = torch.triu_indices(n, n, 1)
    differ = label[ends] != label[starts]
    for one, two in zip(ends[differ].split(512), starts[differ].split(512), strict=True):
        node = (torch.rand(len(one), generator=generator) + torch.arange(2)[:, None]).flatten().div(2).view(-1, 1, 1, 1)
        velocity = x[one] - x[two]
        points = (x[two].repeat(2, 1, 1, 1) + node * velocity.repeat(2, 1, 1, 1)).requires_grad_()
        out = module(points)
        for which, sign in ((label[one], 0.5), (label[two], -0.5)):
            (grad,) = torch.autograd.grad(out.gather(1, which.repeat(2)[:, None]).sum(), points, retain_graph=sign > 0)
            sums.index_add_(0, which, (sign * velocity * grad.unflatten(0, (2, -1)).sum(0)).double())
    with torch.no_grad():
        scale = task.y.double().std(0, correction=0) * module(x).double().std(0, correction=0)
    return (sums / scale.view(-1, 1, 1, 1)).numpy() / n**2


def curves(task: Task, reference: Reference) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """Gradients and error of each size of each design."""
    for name, sizes in DESIGNS.items():
        yield name, [error(task, reference, **settings) for settings in sizes]


def against_the_original(name: str) -> Iterator[Report]:
    """Gradients and time at the error of the original's defaults, and the errors at equal gradients."""
    make, samples = TASKS[name]
    task = make(samples)
    reference = Reference.of(every_pair(task, 1), every_pair(task, 2))
    size = {"samples": samples, "outputs": task.y.shape[1], "reference_error": round(reference.error, 5)}
    found = dict(curves(task, reference))
    for design, points in found.items():
        yield report(
            f"error/{name}/{design}", min(e for _, e in points), curve=[[g, round(e, 5)] for g, e in points], **size
        )
    # the very grid once; and its error over seeds, from 8 nodes of Gauss and Legendre: it is all due to the baselines
    theirs, once = error(task, reference, SEEDS[:1], **grid(BASELINES, POINTS))
    _, often = error(task, reference, **grid(BASELINES, 8, "gauss_legendre"))
    goal = min(once, often)
    yield report(
        f"error/{name}/original", once, curve=[[theirs, round(once, 5)]], of_seeds_with_8_nodes=round(often, 5), **size
    )
    fit = [(g, e, design, number) for design in PAIRS for number, (g, e) in enumerate(found[design]) if e <= goal]
    ours, reached, design, number = min(fit)
    settings = DESIGNS[design][number]
    details = {**settings, "error": round(reached, 5), "original_error": round(goal, 5), **size}
    yield report(
        f"gradients_at_the_originals_error/{name}", theirs / ours, at_least=60, gradients=[theirs, ours], **details
    )
    yield wall(task, settings, details)
    base, by_grid = found["grid"][1]
    best, drawn = min((e, d) for d in DESIGNS if d != "grid" for g, e in found[d] if g == base)
    yield report(
        f"error_at_equal_gradients/{name}",
        best / by_grid,
        at_most=0.4,
        gradients=base,
        design=drawn,
        error=round(best, 5),
        **size,
    )


def wall(task: Task, settings: Report, details: Report, few: int = 4, rounds: int = 3) -> Report:
    """Time of the original's layout, of a few inputs and scaled to all, over that of the whole run of the engine."""
    rows = torch.from_numpy(np.random.default_rng(SEED).integers(len(task.x), size=(few, BASELINES)))
    part, starts = Task(task.name, task.module, task.x[:few], task.y[:few]), task.x[rows]
    sides = partial(package_layout, part, starts), partial(run_of, task, **settings)
    for side in sides:
        side()
    scale = len(task.x) / few
    times = [(scaled(seconds(sides[0]), scale), seconds(sides[1])) for _ in range(rounds)]
    note = f"the original's layout: {few} inputs, scaled to all; the engine: the whole run"
    return report(f"wall_at_the_originals_error/{task.name}", **ratio(times), at_least=100, **details, note=note)


def zero_baseline(name: str, make: Callable[[int], Task], samples: int = 1000, nodes: int = 512) -> Report:
    """Four nodes with a random offset for each input, over twenty of the trapezoid rule: errors, of one zero
    baseline."""
    task = make(samples)
    reference = Reference(run_of(task, n_steps=nodes)["x/igc"].values, 0.0)
    (few, ours), (many, theirs) = (
        error(task, reference, seeds, **settings)
        for seeds, settings in (
            (SEEDS, {"design": "shifted", "n_steps": 4}), (SEEDS[:1], {"quadrature": "trapezoid", "n_steps": 20}),
        )
    )  # fmt: skip
    details = {
        "errors": [round(ours, 5), round(theirs, 5)],
        "gradients": [few, many],
        "samples": samples,
        "reference_nodes": nodes,
    }
    return report(f"zero_baseline_shifted/{name}", ours / theirs, at_most=1.0, **details)


def many_labels(samples: int, outputs: int, width: int = 1024) -> Task:
    """Clouds of 64 features about a centre for each label, and a net whose last layer has seen the centres."""
    torch.manual_seed(SEED)
    body = nn.Sequential(nn.Linear(64, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
    label, centres, last = torch.arange(samples) % outputs, torch.randn(outputs, 64), nn.Linear(width, outputs)
    with torch.no_grad():
        latents = body(centres)
        last.weight.copy_(latents - latents.mean(0))
    x = centres[label] + 0.5 * torch.randn(samples, 64)
    return Task("mlp", nn.Sequential(body, last).eval(), x, nn.functional.one_hot(label, outputs).float())


def one_hot(samples: int = 2000, outputs: int = 1000, baselines: int = 4, folds: int = 8) -> Iterator[Report]:
    """Two or four gradients a path point in place of 1,000: errors and times over those of all outputs with as many
    draws."""
    task, whole = many_labels(samples, outputs), stratified(baselines)
    several = [
        [run_of(task, s, design="pairs", n_draws=32)["x/igc"].values for s in seeds] for seeds in ((11, 12), (13, 14))
    ]
    reference = Reference.of(*(np.mean(maps, axis=0) for maps in several))
    started = time.process_time()
    _, of_all = error(
        task, reference, SEEDS[:1], **whole
    )  # as the engine has it, in forward mode, 64 features being fewer than 1,000
    forward = time.process_time() - started

    def every(part: int) -> tuple[float, float]:
        few = Task(task.name, task.module, task.x[:part], task.y[:part])
        return seconds(partial(run_of, few, **whole, mode="reverse", n_folds=2))

    size = {"samples": samples, "outputs": outputs, "draws": baselines}
    few, more = (min(every(part) for _ in range(2)) for part in (32, 96))
    of_all_s = tuple(one + (two - one) / 64 * (samples - 32) for one, two in zip(few, more, strict=True))
    note = (
        "all outputs: a line through 32 and 96 samples in reverse mode; over_forward_mode: all samples, as the engine "
        "would do it"
    )
    for name, settings in (
        ("n_others", {**whole, "n_others": 3}),
        ("pairs", {"design": "pairs", "n_draws": baselines}),
    ):
        settings = {**settings, "n_folds": folds}
        asked, found = error(task, reference, **settings)
        errors = {"errors": [round(found, 5), round(of_all, 5)], "reference_error": round(reference.error, 5)}
        yield report(f"one_hot_1000/{name}/error", found / of_all, at_most=1.5, **errors, gradients=asked, **size)
        times = [(of_all_s, seconds(partial(run_of, task, **settings))) for _ in range(2)]
        over_forward = round(forward / min(ours[1] for _, ours in times), 1)
        yield report(
            f"one_hot_1000/{name}/time", **ratio(times), at_least=100, over_forward_mode=over_forward, **size, note=note
        )


def scaled(times: tuple[float, float], scale: float) -> tuple[float, float]:
    return times[0] * scale, times[1] * scale


def run() -> Iterator[Report]:
    """At the error of the original's defaults 60 times fewer gradients and 100 times less time; 0.4 of its error at
    equal gradients."""
    for name in TASKS:
        yield from against_the_original(name)
    yield zero_baseline("digits", digits)
    yield zero_baseline("pooled", pooled)
    yield from one_hot()
