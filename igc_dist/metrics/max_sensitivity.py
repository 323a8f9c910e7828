"""Max-sensitivity: how much a map changes when its sample hardly does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from igc_dist.metrics.base import FOUR, Effort, Maps, Metric, Predict, Subject, whole
from igc_dist.records import ConfigError
from igc_dist.seeds import generator


@dataclass(frozen=True)
class MaxSensitivity(Metric):
    """``max_u |a(x) - a(x + u)| / |a(x)|`` over `draws` of u, uniform in -`radius` to `radius`; lower is better.

    Norms are Euclidean; a map of zeros counts as of norm 1. "_average" is the mean over draws. Each sample has its own
    draws, the same for all of its maps. Maps of ``x + u`` are asked of `explain`.

    Source: Yeh et al. 2019, arXiv:1901.09392.
    """

    name = "max_sensitivity"
    draws: int = 10
    radius: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        whole(self, "draws")
        if not self.radius > 0:
            raise ConfigError(f"max_sensitivity: radius={self.radius!r}, give a number above 0")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"explain"})

    def effort(self, subject: Subject) -> Effort:
        return Effort(walks=self.draws, held=2 * FOUR * subject.size)

    def __call__(self, predict: Predict, maps: Maps) -> dict[str, Float64[Tensor, "M *T"]]:
        size = maps.values.flatten(1).norm(dim=1)
        changes = maps.values.new_empty(len(maps), self.draws)
        for draw in range(self.draws):
            u = [self._moved(sample, draw, maps.x.shape[1:]) for sample in maps.sample.tolist()]
            near = maps.x + torch.as_tensor(np.reshape(u, maps.x.shape)).to(maps.x)
            changes[:, draw] = (predict.explained(near, maps) - maps.values).flatten(1).norm(dim=1)
        changes = changes / torch.where(size == 0, 1.0, size)[:, None]
        return {"": changes.amax(1), "average": changes.mean(1)}

    def _moved(self, sample: int, draw: int, shape: torch.Size) -> Float64[np.ndarray, "*P"]:
        return generator(self.seed, sample, self.name, draw).uniform(-self.radius, self.radius, shape)
