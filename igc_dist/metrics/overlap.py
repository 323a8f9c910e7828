"""Overlap: how much of a map lies in the mask of the object."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from scipy.stats import rankdata
from torch import Tensor

from igc_dist.metrics.base import Maps, Predict
from igc_dist.metrics.curves import ranks_of
from igc_dist.metrics.masks import OfMasks


@dataclass(frozen=True)
class Overlap(OfMasks):
    """The share of the map in the mask: ``sum_mask a / sum a`` of the positive values; higher is better.

    NaN for a map without positive values. "_rank" is the share of the K largest values that lie in the mask of K
    positions, and "_auc" the probability that a position inside has a larger value than one outside, ties half.
    Source: Arras, Osman and Samek 2022, arXiv:2003.07258 (mass and rank accuracy).
    """

    name = "overlap"

    def __call__(self, predict: Predict, maps: Maps) -> dict[str, Float64[Tensor, "M *T"]]:
        inside, fine = self.inside(maps)
        values = maps.positions()
        values = values.abs() if self.rank == "absolute" else values
        size, n = inside.sum(1).double(), values.shape[1]
        positive = values.clamp_min(0)
        mass = (positive * inside).sum(1) / positive.sum(1)  # NaN without positive values
        top = ((ranks_of(values) < size[:, None]) & inside).sum(1) / size
        ranks = torch.as_tensor(rankdata(values.cpu().numpy(), axis=1), device=values.device)
        auc = ((ranks * inside).sum(1) - size * (size + 1) / 2) / (size * (n - size))
        return {name: torch.where(fine, part.double(), torch.nan)
                for name, part in {"": mass, "rank": top, "auc": auc}.items()}  # fmt: skip
