"""Sensitivity-n: whether sums of a map tell what the removal of as many features does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from igc_dist.metrics.base import Effort, Maps, Predict, Subject, whole
from igc_dist.metrics.similarity import pearson
from igc_dist.metrics.subsets import Subsets, drawn
from igc_dist.seeds import generator


@dataclass(frozen=True)
class SensitivityN(Subsets):
    """The correlation over random subsets S of n positions of ``sum_S a`` and ``f(x) - f(x without S)``.

    The curve has it for `points` sizes n, spread geometrically from 1 to 80 % of the positions; the score is its mean.
    NaN where the model or the sums do not change. Source: Ancona et al. 2018, arXiv:1711.06104.
    """

    name = "sensitivity_n"
    points: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self, "points")

    def sizes(self, n_positions: int) -> Int64[np.ndarray, " T"]:
        """n, at each point of the curve."""
        return np.unique(np.rint(np.geomspace(1, max(1, 0.8 * n_positions), self.points)).astype(np.int64))

    def axis(self, subject: Subject) -> Float64[np.ndarray, " T"]:
        return self.sizes(subject.n_positions) / subject.n_positions

    def effort(self, subject: Subject) -> Effort:
        return self.spent(subject, len(self.sizes(subject.n_positions)))

    def __call__(self, predict: Predict, maps: Maps) -> dict[str, Float64[Tensor, "M *T"]]:
        n = maps.positions().shape[1]
        curve = []
        for size in self.sizes(n).tolist():
            subsets = {sample: self._subsets(sample, size, n) for sample in set(maps.sample.tolist())}
            if not subsets:
                curve.append(maps.values.new_empty(0))
                continue
            curve.append(pearson(*self.drops(predict, maps, drawn(maps, subsets))))
        found = torch.stack(curve, 1)
        return {"": found.nanmean(1), "curve": found}

    def _subsets(self, sample: int, size: int, n: int) -> Bool[np.ndarray, "D S"]:
        draws = generator(self.seed, sample, self.name, size).random((self.subsets, n))
        return draws.argsort(1).argsort(1) < size
