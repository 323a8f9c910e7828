"""Guided IG as published: one sample, output, step and repetition at a time, in float64. Nothing of the package is
used."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from tests.oracles.attributions import Arrays, gradient, samples

CLOSE = 1e-12
"""Of ``||x - x0||_1``: what the target may be missed by. Of the way of a feature: what it may be off its end."""


def guided_ig(
    model: nn.Module,
    x: Sequence[np.ndarray],
    baselines: Sequence[Sequence[Arrays]],
    outputs: Sequence[int],
    n_steps: int,
    fraction: float,
    max_dist: float,
) -> Arrays:
    """(N, J, *P) per input: the mean over baselines of `path`; `baselines[n][b][i]` starts a path. Features of all
    inputs in one row."""
    result = tuple(np.zeros((len(xi), len(outputs), *xi.shape[1:])) for xi in x)
    for n, point in enumerate(samples(x)):
        cuts = np.cumsum([xi.size for xi in point])[:-1]
        shaped = lambda row, point=point, cuts=cuts: [  # noqa: E731
            r.reshape(xi.shape) for r, xi in zip(np.split(row, cuts), point, strict=True)
        ]
        for j, k in enumerate(outputs):
            for start in baselines[n]:
                grad = lambda row, k=k, shaped=shaped: np.concatenate(  # noqa: E731
                    [g.ravel() for g in gradient(model, tuple(shaped(row)), k)]
                )
                ends = (np.concatenate([np.ravel(part).astype(np.float64) for part in end]) for end in (point, start))
                for i, part in enumerate(shaped(path(grad, *ends, n_steps, fraction, max_dist))):
                    result[i][n, j] += part / len(baselines[n])
    return result


def path(
    grad: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    x0: np.ndarray,
    n_steps: int,
    fraction: float,
    max_dist: float,
) -> np.ndarray:
    """The attribution along one path from `x0` to `x`, both (P,)."""
    here, attribution, size = x0.copy(), np.zeros(len(x)), len(x)
    whole = sum(abs(x[i] - x0[i]) for i in range(size))
    for step in range(n_steps):
        g = grad(here)
        alpha = (step + 1) / n_steps
        low, high = max(alpha - max_dist, 0.0), min(alpha + max_dist, 1.0)
        target = whole * (1 - alpha)
        for _ in range(size + 2):  # the published loop has no bound
            old = here.copy()
            for i in range(size):
                if x[i] != x0[i] and (here[i] - x0[i]) / (x[i] - x0[i]) < low:
                    here[i] = x0[i] + low * (x[i] - x0[i])
            current = sum(abs(x[i] - here[i]) for i in range(size))
            if abs(current - target) <= CLOSE * whole:
                attribution += (here - old) * g
                break
            end = [x0[i] + high * (x[i] - x0[i]) for i in range(size)]
            there = [
                abs(end[i] - here[i]) <= CLOSE * abs(x[i] - x0[i]) for i in range(size)
            ]  # so is a feature with no way to go
            rank = [math.inf if there[i] else abs(g[i]) for i in range(size)]
            threshold = sorted(rank)[math.floor(fraction * (size - 1))]
            chosen = [i for i in range(size) if rank[i] <= threshold and rank[i] != math.inf]
            room = sum(abs(here[i] - end[i]) for i in chosen)
            part = (current - target) / room if room > 0 else math.inf
            for i in chosen:
                here[i] = end[i] if part > 1 else here[i] + part * (end[i] - here[i])
            attribution += (here - old) * g
            if part <= 1 or not chosen:
                break
    return attribution
