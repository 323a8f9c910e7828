"""The pointing game: whether the largest value of a map lies on the object."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from igc_dist.metrics.base import Maps, Predict, Subject, whole
from igc_dist.metrics.masks import OfMasks
from igc_dist.records import ConfigError


@dataclass(frozen=True)
class PointingGame(OfMasks):
    """1 if the position of the largest value lies in the mask, or at most `tolerance` pixels from it, else 0.

    The first of equal values counts. Its mean is the accuracy of the game. The original takes a tolerance of 15 pixels.
    Source: Zhang et al. 2016, arXiv:1608.00507.
    """

    name = "pointing_game"
    tolerance: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self, "tolerance", 0)

    def check(self, subject: Subject) -> None:
        super().check(subject)
        if self.tolerance and len(subject.positions) != 2:
            raise ConfigError(f"pointing_game: a tolerance in pixels needs images, and samples have {subject.shape}")

    def __call__(self, predict: Predict, maps: Maps) -> dict[str, Float64[Tensor, "M *T"]]:
        inside, fine = self.inside(maps)
        values = maps.positions()
        at = (values.abs() if self.rank == "absolute" else values).argmax(1)
        if self.tolerance:
            width = maps.x.shape[-1]
            places = torch.arange(values.shape[1], device=values.device)
            down = places // width - (at // width)[:, None]
            right = places % width - (at % width)[:, None]
            hit = (inside & (down.square() + right.square() <= self.tolerance**2)).any(1)
        else:
            hit = inside.gather(1, at[:, None])[:, 0]
        return {"": torch.where(fine, hit.double(), torch.nan)}
