"""IG² in two loops, as its authors wrote it: first the path, point by point, then the gradients along it. One row at a
time, in float64.

Nothing of the package is used.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from torch import Tensor, nn

from tests.oracles.attributions import Arrays, gradient, output, samples

Phi = Callable[..., Tensor]
"""From inputs with one row each to their representation."""

AT_REFERENCE = (16 * 2.0**-52) ** 2
"""Of the squared norm of a representation: what is as near as that is there."""


@dataclass(frozen=True)
class Walked:
    """Attributions (N, J, *P) per input; f at the last points (N, J), mean over references; which samples failed; steps
    of each."""

    values: Arrays
    ends: np.ndarray
    failed: np.ndarray
    taken: np.ndarray


def distance(phi: Phi, point: Arrays, reference: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """``|phi(x) - phi_ref|**2`` and its gradient."""
    rows = [torch.from_numpy(np.array(x, np.float64))[None].requires_grad_() for x in point]
    with torch.enable_grad():
        d = ((phi(*rows).reshape(-1) - torch.from_numpy(reference)) ** 2).sum()
        grads = torch.autograd.grad(d, rows, materialize_grads=True)
    return float(d.detach()), [g[0].numpy() for g in grads]


def grad_path(
    phi: Phi,
    x: Arrays,
    start: Arrays,
    n_steps: int,
    step_size: float,
    clip: tuple[float, float] | None,
    epsilon: float,
    stop: float,
) -> tuple[list[Arrays], bool]:
    """All points from x to GradCF, and whether the path failed."""
    with torch.no_grad():
        reference = phi(*(torch.from_numpy(np.array(s, np.float64))[None] for s in start)).reshape(-1).numpy()
    path, first = [x], None
    for _ in range(n_steps):
        d, grads = distance(phi, path[-1], reference)
        first = d if first is None else first
        if d <= max(stop * first, AT_REFERENCE * sum(float(r) ** 2 for r in reference)):
            return path, False
        norm = sqrt(sum(float(v) ** 2 for g in grads for v in g.reshape(-1)))
        if norm <= epsilon:
            return path, True
        after = tuple(p - step_size / norm * g for p, g in zip(path[-1], grads, strict=True))
        if clip is not None:
            after = tuple(np.clip(p, *clip) for p in after)
        if all((p == q).all() for p, q in zip(path[-1], after, strict=True)):
            return path, True
        path.append(after)
    return path, False


def ig2(
    model: nn.Module,
    phi: Phi,
    x: Sequence[np.ndarray],
    references: Sequence[Sequence[Arrays]],
    outputs: Sequence[int],
    n_steps: int,
    step_size: float,
    clip: tuple[float, float] | None = None,
    epsilon: float = 1e-12,
    stop: float = 0.0,
) -> Walked:
    """``a_i = mean_r sum_t d_i f(x_t) (x_t - x_(t+1))_i``; `references[n][r][i]`."""
    n = len(x[0])
    values = tuple(np.zeros((n, len(outputs), *xi.shape[1:])) for xi in x)
    ends, failed, taken = np.zeros((n, len(outputs))), np.zeros(n, bool), np.zeros(n, int)
    for row, point in enumerate(samples(x)):
        for reference in references[row]:
            path, lost = grad_path(phi, point, reference, n_steps, step_size, clip, epsilon, stop)
            failed[row] |= lost
            taken[row] += len(path) - 1
            share = 1 / len(references[row])
            for j, k in enumerate(outputs):
                for here, there in itertools.pairwise(path):
                    for value, g, p, q in zip(values, gradient(model, here, k), here, there, strict=True):
                        value[row, j] += share * g * (p - q)
                ends[row, j] += share * output(model, path[-1], k)
    return Walked(values, ends, failed, taken)
