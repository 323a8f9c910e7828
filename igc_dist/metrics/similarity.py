"""How alike two maps or images are: structural similarity, at one scale and at several, and rank correlation."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata
from torch import Tensor

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the five scales (Wang, Simoncelli and Bovik 2003)."""
SIGMA, REACH = 1.5, 5
"""Of the Gaussian window: 11 x 11 pixels."""

LIKENESS = 1e-6
"""Seconds per position to compare two maps by SSIM and rank correlation, on one core of an Intel Xeon at 2.5 GHz."""


def _parts(a: Float64[np.ndarray, "H W"], b: Float64[np.ndarray, "H W"], data_range: float) -> tuple[float, float]:
    """The means of SSIM and of its contrast and structure, over the pixels whose window is whole."""

    def smooth(z: np.ndarray) -> np.ndarray:
        edge = [min(REACH, (side - 1) // 2) for side in z.shape]
        whole = gaussian_filter(z, SIGMA, mode="reflect", truncate=REACH / SIGMA)
        return whole[edge[0] : z.shape[0] - edge[0], edge[1] : z.shape[1] - edge[1]]

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    ma, mb = smooth(a), smooth(b)
    va, vb, vab = smooth(a * a) - ma * ma, smooth(b * b) - mb * mb, smooth(a * b) - ma * mb
    cs = (2 * vab + c2) / (va + vb + c2)
    return float(((2 * ma * mb + c1) / (ma * ma + mb * mb + c1) * cs).mean()), float(cs.mean())


def ssim(a: Float64[np.ndarray, "H W"], b: Float64[np.ndarray, "H W"], data_range: float | None = None) -> float:
    """Structural similarity with a Gaussian window (11 x 11 pixels, sigma 1.5); 1 for equal maps.

    `data_range`: of the values; None: that of the pair. Of maps below 11 pixels the centre line is taken. Source: Wang,
    Bovik, Sheikh and Simoncelli 2004.
    """
    if data_range is None:
        data_range = float(max(a.max(), b.max()) - min(a.min(), b.min()))
    if data_range == 0:
        return 1.0
    return _parts(a / data_range, b / data_range, 1.0)[0]


def ms_ssim(a: Float64[np.ndarray, "H W"], b: Float64[np.ndarray, "H W"], data_range: float) -> float:
    """SSIM over five scales, each half of the one before. Images have at least 176 pixels a side. Negative parts are 0.

    Source: Wang, Simoncelli and Bovik 2003.
    """
    found = 1.0
    for scale, weight in enumerate(WEIGHTS):
        whole, cs = _parts(a, b, data_range)
        found *= max(whole if scale == len(WEIGHTS) - 1 else cs, 0.0) ** weight
        a, b = (z[: len(z) // 2 * 2, : z.shape[1] // 2 * 2] for z in (a, b))
        a, b = ((z[::2, ::2] + z[1::2, ::2] + z[::2, 1::2] + z[1::2, 1::2]) / 4 for z in (a, b))
    return found


def spearman(a: Float64[Tensor, "M S"], b: Float64[Tensor, "M S"]) -> Float64[Tensor, " M"]:
    """The rank correlation of each row with mean ranks for ties; NaN for a constant row."""
    ranks = (torch.as_tensor(rankdata(z.cpu().numpy(), axis=1), device=a.device) for z in (a, b))
    return pearson(*ranks)


def pearson(a: Float64[Tensor, "M S"], b: Float64[Tensor, "M S"]) -> Float64[Tensor, " M"]:
    """The correlation of each row; NaN for a constant row."""
    a, b = (z - z.mean(1, keepdim=True) for z in (a, b))
    size = a.square().sum(1).sqrt() * b.square().sum(1).sqrt()
    return torch.where(size > 0, (a * b).sum(1) / size, torch.nan)
