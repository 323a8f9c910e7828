"""Deletion: how fast the score falls when the positions that a map finds most important go first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from igc_dist.metrics.curves import Curve


@dataclass(frozen=True)
class Deletion(Curve):
    """The area under ``f(x0 where rank < m_t, else x)``; lower is better. See `Curve`: here `start` is where it ends.

    Source: Petsiuk, Das and Saenko 2018, arXiv:1806.07421.
    """

    name = "deletion"

    @classmethod
    def rise(cls) -> Deletion:
        """As RISE does: to zeros, 224 pixels at a time."""
        return cls(pixels=224)

    def row(
        self, exchanged: Bool[Tensor, "m t *S"], x: Float[Tensor, "m 1 *P"], x0: Float[Tensor, "m 1 *P"]
    ) -> Float[Tensor, "m t *P"]:
        return torch.where(exchanged, x0, x)

    def whole(self, curve: Float64[Tensor, "M T"]) -> Float64[Tensor, " M"]:
        return curve[:, 0]
