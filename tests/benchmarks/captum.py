"""Captum's Integrated Gradients in a loop over samples and outputs, against the same job by the engine (extra
`bench`)."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from captum.attr import IntegratedGradients

import igc_dist
from tests.benchmarks.measure import Report, ratio, report, seconds
from tests.benchmarks.models import Task, digits, images, patches

NODES = 16
"""Of Gauss and Legendre."""


def theirs(task: Task) -> np.ndarray:
    """IG of every sample and output from a baseline of zeros, (N, J, *P): one call each, as Captum takes one output of
    a sample."""
    ig, outputs = IntegratedGradients(task.module), range(task.y.shape[1])
    rows = [
        [ig.attribute(x[None], 0.0, target=k, n_steps=NODES, method="gausslegendre")[0] for k in outputs]
        for x in task.x
    ]
    return np.stack([np.stack([a.detach().numpy() for a in row]) for row in rows])


def ours(task: Task, method: str) -> np.ndarray:
    """The same by the engine (`ig`), or folded (`igc`)."""
    tree = igc_dist.attribute(task.module, (task.x, task.y), method=method, quadrature="gauss_legendre", n_steps=NODES)
    return tree["samples/x/attribution" if method == "ig" else "x/igc"].values


def folded(task: Task) -> np.ndarray:
    """IGC by hand: Captum's attributions, and a covariance by numpy."""
    a, y, r = theirs(task), task.y.double().numpy(), task.module(task.x).detach().double().numpy()
    c = np.einsum("nj...,nj->j...", a.astype(float), y - y.mean(0)) / len(y)
    with np.errstate(invalid="ignore"):
        return c / (y.std(0) * r.std(0)).reshape(-1, *(1,) * (c.ndim - 1))


TASKS: dict[str, tuple[Callable[[int], Task], int, str]] = {
    "ig/digits": (digits, 200, "ig"),
    "ig/resnet64": (images, 24, "ig"),
    "ig/vit64": (patches, 24, "ig"),
    "igc/digits": (digits, 400, "igc"),
}


def loop_seconds(name: str) -> tuple[float, float]:
    """Wall and CPU time of Captum's loop in this process, warm."""
    torch.set_num_threads(1)
    make, samples, method = TASKS[name]
    task, loop = make(samples), theirs if method == "ig" else folded
    loop(Task(name, task.module, task.x[:2], task.y[:2]))
    return seconds(partial(loop, task))


def against(name: str, rounds: int = 2) -> Iterator[Report]:
    """Time of Captum's loop over that of the engine, and the difference of the maps over their largest value.

    The loop runs in a process of its own: in this one the engine has told the C library to keep freed memory.
    """
    make, samples, method = TASKS[name]
    task = make(samples)
    one, two = (theirs if method == "ig" else folded)(task), ours(task, method)
    size = {"samples": samples, "outputs": task.y.shape[1], "nodes": NODES}
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        times = [(pool.apply(loop_seconds, (name,)), seconds(partial(ours, task, method))) for _ in range(rounds)]
    yield report(f"captum/{name}", **ratio(times), at_least=2.0, **size)
    change = float(abs(one - two).max() / abs(one).max())
    line = report(f"captum/{name}/difference", 0.0, at_most=1e-4, **size)
    yield line | {"value": change, "ok": change <= 1e-4}


def run() -> Iterator[Report]:
    """Per sample on three nets, and IGC of the digits: twice as fast, maps equal to 1e-4."""
    for name in TASKS:
        yield from against(name)
