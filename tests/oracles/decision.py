"""Left-IG and IDG one sample, output, baseline, node and feature at a time, in float64. Nothing of the package is
used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from torch import nn

from tests.oracles.attributions import Arrays, gradient, output, samples

Placed = tuple[list[float], list[float]]


def at(start: Arrays, point: Arrays, t: float) -> Arrays:
    return tuple(x0 + t * (x1 - x0) for x0, x1 in zip(start, point, strict=True))


def probe(model: nn.Module, start: Arrays, point: Arrays, k: int, n_steps: int) -> list[float]:
    """Predictions at n equal distances, both ends included."""
    return [output(model, at(start, point, m / (n_steps - 1)), k) for m in range(n_steps)]


def saturated(values: list[float], threshold: float) -> float:
    """The first place where the output has gone `threshold` of the farthest that it goes towards where it ends; 1 if it
    goes nowhere."""
    towards = np.sign(values[-1] - values[0])
    gone = [float(towards * (v - values[0])) for v in values]
    if max(gone) == 0:
        return 1.0
    level = threshold * max(gone)
    for m in range(1, len(gone)):
        if gone[m] >= level:
            return (m - 1 + (level - gone[m - 1]) / (gone[m] - gone[m - 1])) / (len(gone) - 1)
    raise AssertionError("the farthest is above the level")


def equidistributed(values: list[float]) -> Placed:
    """Nodes at equal shares of the density ``(|slope| / total + 1) / 2``, and the weights 1 / density, which are scaled
    to a sum of 1."""
    k = len(values)
    width = 1 / (k - 1)
    slopes = [abs(b - a) / width for a, b in pairwise(values)]
    total = sum(s * width for s in slopes)
    density = [(s / total + 1) / 2 if total > 0 else 1.0 for s in slopes]
    nodes, weights = [], []
    for number in range(k):
        left = (number + 0.5) / k  # of the density that has to lie before the node
        for m, height in enumerate(density):
            if left <= height * width or m == k - 2:
                nodes.append(m * width + left / height)
                weights.append(1 / height)
                break
            left -= height * width
    return nodes, [w / sum(weights) for w in weights]


def _walked(
    model: nn.Module,
    x: Sequence[np.ndarray],
    baselines: Sequence[Sequence[Arrays]],
    outputs: Sequence[int],
    n_steps: int,
    place: Callable[[list[float]], Placed],
    by_slope: bool,
) -> Arrays:
    result = tuple(np.zeros((len(xi), len(outputs), *xi.shape[1:])) for xi in x)
    for n, point in enumerate(samples(x)):
        for j, k in enumerate(outputs):
            for start in baselines[n]:
                way = [x1 - x0 for x0, x1 in zip(start, point, strict=True)]
                for t, w in zip(*place(probe(model, start, point, k, n_steps)), strict=True):
                    grads = gradient(model, at(start, point, t), k)
                    slope = sum(float((g * d).sum()) for g, d in zip(grads, way, strict=True)) if by_slope else 1.0
                    for i, g in enumerate(grads):
                        result[i][n, j] += w * slope * g * way[i] / len(baselines[n])
    return result


def left_ig(
    model: nn.Module,
    x: Sequence[np.ndarray],
    baselines: Sequence[Sequence[Arrays]],
    outputs: Sequence[int],
    n_steps: int,
    threshold: float,
) -> Arrays:
    """(N, J, *P) per input: midpoints of n equal parts of [0, a], where a is `saturated`."""

    def place(values: list[float]) -> Placed:
        a = saturated(values, threshold)
        return [a * (m + 0.5) / n_steps for m in range(n_steps)], [a / n_steps] * n_steps

    return _walked(model, x, baselines, outputs, n_steps, place, by_slope=False)


def idg(
    model: nn.Module,
    x: Sequence[np.ndarray],
    baselines: Sequence[Sequence[Arrays]],
    outputs: Sequence[int],
    n_steps: int,
) -> Arrays:
    """(N, J, *P) per input: each gradient times the slope of the output along the path."""
    return _walked(model, x, baselines, outputs, n_steps, equidistributed, by_slope=True)
