"""Insertion: how fast the score rises when the positions that a map finds most important appear first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from igc_dist.metrics.curves import Curve


@dataclass(frozen=True)
class Insertion(Curve):
    """The area under ``f(x where rank < m_t, else x0)``; higher is better. See `Curve`.

    Source: Petsiuk, Das and Saenko 2018, arXiv:1806.07421. The default grid is the one of the reproducibility study of
    IDGI (2024, arXiv:2409.09043): black start, 21 points.
    """

    name = "insertion"

    @classmethod
    def rise(cls) -> Insertion:
        """As RISE does: from the blurred image, 224 pixels at a time."""
        return cls(start="blurred", pixels=224)

    @classmethod
    def study(cls) -> Insertion:
        """As the study does: from black, 21 points. Its black is that of raw pixels: where inputs are standardised,
        take ``start="baseline"`` and give `score` the baseline ``-mean / std``."""
        return cls()

    def row(
        self, exchanged: Bool[Tensor, "m t *S"], x: Float[Tensor, "m 1 *P"], x0: Float[Tensor, "m 1 *P"]
    ) -> Float[Tensor, "m t *P"]:
        return torch.where(exchanged, x, x0)

    def whole(self, curve: Float64[Tensor, "M T"]) -> Float64[Tensor, " M"]:
        return curve[:, -1]
