"""IDGI one sample, output, baseline, step and feature at a time, in float64. Nothing of the package is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from torch import nn

from tests.oracles.attributions import Arrays, gradient, output, samples

Path = list[Arrays]


def straight(start: Arrays, point: Arrays, n_steps: int) -> Path:
    """n + 1 points at equal distances."""
    return [
        tuple(x0 + k / n_steps * (x1 - x0) for x0, x1 in zip(start, point, strict=True)) for k in range(n_steps + 1)
    ]


def along(model: nn.Module, path: Path, k: int) -> Arrays:
    """Of output k over one path: each step gives its rise to the features by their squared gradients where it begins,
    or to nobody."""
    shares = tuple(np.zeros(np.shape(x)) for x in path[0])
    for here, there in pairwise(path):
        rise, grads = output(model, there, k) - output(model, here, k), gradient(model, here, k)
        places = [(i, at) for i, g in enumerate(grads) for at in np.ndindex(g.shape)]
        norm = sum(float(grads[i][at]) ** 2 for i, at in places)
        for i, at in places if norm > 0 else ():
            shares[i][at] += rise * float(grads[i][at]) ** 2 / norm
    return shares


def idgi(
    model: nn.Module,
    x: Sequence[np.ndarray],
    baselines: Sequence[Sequence[Arrays]],
    outputs: Sequence[int],
    path: Callable[[Arrays, Arrays, int], Path],
) -> Arrays:
    """(N, J, *P) per input: the mean over baselines; `path(start, point, k)` is the path from one of them to a sample,
    for output k."""
    result = tuple(np.zeros((len(xi), len(outputs), *xi.shape[1:])) for xi in x)
    for n, point in enumerate(samples(x)):
        for j, k in enumerate(outputs):
            for start in baselines[n]:
                for total, part in zip(result, along(model, path(start, point, k), k), strict=True):
                    total[n, j] += part / len(baselines[n])
    return result
