"""Sparseness: whether a map names few features or all of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from igc_dist.metrics.base import Maps, Metric, Predict


@dataclass(frozen=True)
class Sparseness(Metric):
    """The Gini index of ``p_i = |a_i|``: ``sum_i (2 i - n - 1) p_(i) / (n sum_i p_i)``, p sorted, i from 1 to n.

    0 for a uniform map, ``1 - 1/n`` for a single feature. "_entropy" is ``-sum_i q_i ln q_i`` with ``q = p / sum p``:
    ln n and 0. Both are NaN for a map of zeros. Source: Chalasani et al. 2020, arXiv:1810.06583 (Gini); Bhatt, Weller
    and Moura 2020, arXiv:2005.00631 (entropy).
    """

    name = "sparseness"

    def __call__(self, predict: Predict, maps: Maps) -> dict[str, Float64[Tensor, "M *T"]]:
        p = maps.values.flatten(1).abs().sort(1).values
        p = p / p[:, -1:]  # NaN for zeros; no sum of large values overflows
        n, total = p.shape[1], p.sum(1)
        weight = 2 * torch.arange(1, n + 1, device=p.device, dtype=p.dtype) - n - 1
        return {"": (weight * p).sum(1) / (n * total), "entropy": torch.special.entr(p / total[:, None]).sum(1)}
