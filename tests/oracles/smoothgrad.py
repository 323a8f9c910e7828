"""SmoothGrad one copy at a time, and Expected Gradients one draw at a time, in float64. Random numbers are passed
in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from tests.oracles.attributions import Arrays, gradient, samples


def smoothgrad(
    host: Callable[[int, Arrays], Arrays],
    x: Sequence[np.ndarray],
    eps: Sequence[Sequence[Arrays]],
    noise: float,
    form: str,
) -> Arrays:
    """(N, J, *P) per input; `host(n, point)` gives the (J, *P) of a point in the place of sample n, `eps[n][m][i]`
    standard normals."""
    result = []
    for n, point in enumerate(samples(x)):
        maps = []
        for draws in eps[n]:
            noisy = []
            for xi, z in zip(point, draws, strict=True):
                noisy.append(xi + noise * (max(xi.ravel()) - min(xi.ravel())) * z)
            maps.append(host(n, tuple(noisy)))
        of_sample = []
        for i in range(len(x)):
            every = [of_copy[i] for of_copy in maps]
            mean, square = sum(every) / len(every), sum(a * a for a in every) / len(every)
            spread = sum((a - mean) ** 2 for a in every) / len(every)
            of_sample.append({"linear": mean, "squared": square, "variance": spread}[form])
        result.append(of_sample)
    return tuple(np.array([of_sample[i] for of_sample in result]) for i in range(len(x)))


def expected_gradients(
    model: nn.Module,
    x: Sequence[np.ndarray],
    baselines: Sequence[Sequence[Arrays]],
    outputs: Sequence[int],
    nodes: np.ndarray,
) -> Arrays:
    """(N, J, *P) per input: the mean over draws b of ``(x - x0_b) d f(x0_b + nodes[n, b] (x - x0_b))``."""
    result = tuple(np.zeros((len(xi), len(outputs), *xi.shape[1:])) for xi in x)
    for n, point in enumerate(samples(x)):
        for b, start in enumerate(baselines[n]):
            at = tuple(x0 + nodes[n, b] * (x1 - x0) for x0, x1 in zip(start, point, strict=True))
            for j, k in enumerate(outputs):
                for i, g in enumerate(gradient(model, at, k)):
                    result[i][n, j] += (point[i] - start[i]) * g / len(baselines[n])
    return result
