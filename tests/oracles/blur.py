"""Blur Integrated Gradients one node and one pixel at a time, in float64; blurs by the exponential of the matrix of
differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import expm
from torch import nn

from tests.oracles.attributions import Arrays, gradient, samples


def differences(n: int, reflect: bool) -> np.ndarray:
    """Second differences of n pixels; beyond the edges the next pixel is the edge again, or 0."""
    matrix = np.zeros((n, n))
    for i in range(n):
        for k in (i - 1, i + 1):
            matrix[i, i] -= 1
            if 0 <= k < n:
                matrix[i, k] += 1
            elif reflect:
                matrix[i, i] += 1
    return matrix


def heat(image: np.ndarray, tau: float, boundary: str) -> tuple[np.ndarray, np.ndarray]:
    """(..., H, W): the image after a time tau of ``d L / d tau = 1/2 (second differences)``, and these second
    differences there.

    What is 0 outside is set into a frame of zeros so wide that nothing comes back from its edges.
    """
    flat = image.reshape(-1, *image.shape[-2:])
    frame = 0 if boundary == "reflect" else int(10 * np.sqrt(tau)) + 12
    blurred, curved = np.zeros(flat.shape), np.zeros(flat.shape)
    height, width = image.shape[-2:]
    along = [differences(size + 2 * frame, boundary == "reflect") for size in (height, width)]
    down, across = (expm(tau / 2 * matrix) for matrix in along)
    for c, channel in enumerate(flat):
        whole = down @ np.pad(channel, frame) @ across.T
        bent = along[0] @ whole + whole @ along[1].T
        blurred[c] = whole[frame : frame + height, frame : frame + width]
        curved[c] = bent[frame : frame + height, frame : frame + width]
    return blurred.reshape(image.shape), curved.reshape(image.shape)


def blur_ig(
    model: nn.Module,
    x: Sequence[np.ndarray],
    outputs: Sequence[int],
    rule: tuple[Sequence[float], Sequence[float]],
    sigma_max: float,
    schedule: str = "sigma",
    boundary: str = "reflect",
) -> Arrays:
    """(N, J, *P) per input: ``a_i = sum_k w_k d_i f(L_k) * dL_k/dt``, dL/dt = sigma Laplace(L) dsigma/dt, or 1/2
    Laplace(L) dtau/dt."""
    result = tuple(np.zeros((len(xi), len(outputs), *xi.shape[1:])) for xi in x)
    for n, point in enumerate(samples(x)):
        for t, w in zip(*rule, strict=True):
            if schedule == "sigma":
                sigma = (1 - t) * sigma_max
                tau, speed = sigma**2, -sigma_max * sigma
            else:
                tau, speed = (1 - t) * sigma_max**2, -(sigma_max**2) / 2
            walked = [heat(xi, tau, boundary) for xi in point]
            for j, k in enumerate(outputs):
                for i, g in enumerate(gradient(model, tuple(blurred for blurred, _ in walked), k)):
                    result[i][n, j] += w * g * walked[i][1] * speed
    return result
