"""How often 95 % intervals (`igc_dist.interval`) hold the true value, of maps and of their sums.

Each output has three standard normal features u of its own, so that the outputs of a run are independent repetitions.
Half of them are values, ``f = sum_i w_i (u_i + u_i**2 / 2)`` and ``y = f + e``; half are rare labels,
``f = sum_i w_i u_i`` and y = 1 for the 7 % of the samples with the largest ``f + e``; e is normal. One midpoint is
exact for both. With s = std(f + e), c the quantile of the label and phi the normal density, the truth is

    values:  IGC_i = 3/2 w_i**2 / (std f * s)        labels:  IGC_i = w_i**2 phi(c) / (s * std f * std y)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor, nn

import igc_dist
from tests.benchmarks.measure import Report, report

SAMPLES, FOLDS, RUNS = (200, 1000, 5000), (8, 32), 32
EACH = 32
"""Outputs of each kind."""
WEIGHTS = torch.tensor([1.0, 0.6, 0.3], dtype=torch.float64)
NOISE, RARE, LEVEL = 1.5, 0.07, 0.95


class Additive(nn.Module):
    """From (n, 6 * EACH) to (n, 2 * EACH): values, then labels."""

    def forward(self, u: Tensor) -> Tensor:
        u = u.reshape(len(u), 2 * EACH, len(WEIGHTS))
        bent = torch.cat([u[:, :EACH] + u[:, :EACH] ** 2 / 2, u[:, EACH:]], 1)
        return bent @ WEIGHTS


def truth() -> np.ndarray:
    """IGC of the features of an output, (2, 3): of values, of labels."""
    squares = WEIGHTS.numpy() ** 2
    bent, straight = np.sqrt(1.5 * squares.sum()), np.sqrt(squares.sum())
    label = norm.pdf(norm.isf(RARE)) / (np.hypot(straight, NOISE) * straight * np.sqrt(RARE * (1 - RARE)))
    return np.stack([1.5 * squares / (bent * np.hypot(bent, NOISE)), squares * label])


def held(n: int, n_folds: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Of one run: which intervals of maps (2, EACH, 3) and of sums (2, EACH) hold the truth."""
    generator = torch.Generator().manual_seed(seed)
    u, e = (torch.randn(n, size, generator=generator, dtype=torch.float64) for size in (6 * EACH, 2 * EACH))
    model, y = Additive(), Additive()(u) + NOISE * e
    limit = float(norm.isf(RARE)) * float(torch.hypot(WEIGHTS.norm(), torch.tensor(NOISE)))
    y[:, EACH:] = (y[:, EACH:] > limit).double()
    tree = igc_dist.attribute(model, (u, y), quadrature="midpoint", n_steps=1, n_folds=n_folds, threads=1)
    own = np.arange(2 * EACH)[:, None], np.arange(6 * EACH).reshape(2 * EACH, 3)
    found = []
    for name, right, at in (("x/igc", truth()[:, None], own), ("igc_sum", truth().sum(1)[:, None], ...)):
        low, high = (each.values[at] for each in igc_dist.interval(tree, name, LEVEL))
        low, high = (each.reshape(2, EACH, *right.shape[2:]) for each in (low, high))
        found.append((low <= right) & (right <= high))
    return found[0], found[1]


def run() -> Iterator[Report]:
    """Coverage from 93 to 97 %; `value` is its distance from 95 %."""
    for n in SAMPLES:
        for n_folds in FOLDS:
            runs = [held(n, n_folds, seed) for seed in range(RUNS)]
            for what, every in zip(("map", "sum"), zip(*runs, strict=True), strict=True):
                for kind, share in zip(("values", "labels"), np.mean(every, axis=(0, 2)).reshape(2, -1), strict=True):
                    yield report(
                        f"coverage/{kind}/{what}/{n}/{n_folds}", abs(share.mean() - LEVEL), at_most=0.02,
                        coverage=round(float(share.mean()), 4), samples=n, folds=n_folds, repetitions=RUNS * EACH,
                    )  # fmt: skip
