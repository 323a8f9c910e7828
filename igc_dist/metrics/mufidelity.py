"""MuFidelity: whether sums of a map rank what the removal of patches does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from igc_dist.metrics.base import Effort, Maps, Predict, Subject, whole
from igc_dist.metrics.similarity import spearman
from igc_dist.metrics.subsets import Subsets, drawn
from igc_dist.records import ConfigError
from igc_dist.seeds import generator


@dataclass(frozen=True)
class MuFidelity(Subsets):
    """The rank correlation over random subsets S of ``sum_S a`` and ``f(x) - f(x without S)``; 1 is best.

    Images have patches of `grid` x `grid`, other samples their features; a subset has the `fraction` of them. NaN where
    the model or the sums do not change. Source: Bhatt, Weller and Moura 2020, arXiv:2005.00631; grid and numbers are
    those of xplique, whose subsets are the same for all images of a batch, and here each sample has its own.
    """

    name = "mufidelity"
    subsets: int = 200
    grid: int = 9
    fraction: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self, "grid", 2)
        if not 0 < self.fraction < 1:
            raise ConfigError(f"mufidelity: fraction={self.fraction!r}, give a number between 0 and 1")

    def patches(self, positions: tuple[int, ...]) -> Int64[np.ndarray, " S"]:
        """The number of the patch of each position."""
        if len(positions) != 2:
            return np.arange(int(np.prod(positions)))
        rows, columns = (np.arange(side) * min(self.grid, side) // side for side in positions)
        return (rows[:, None] * (columns.max() + 1) + columns).ravel()

    def effort(self, subject: Subject) -> Effort:
        return self.spent(subject)

    def __call__(self, predict: Predict, maps: Maps) -> dict[str, Float64[Tensor, "M *T"]]:
        if not len(maps):
            return {"": maps.values.new_empty(0)}
        patches = self.patches(Subject(0, tuple(maps.x.shape[1:]), maps.values.new_empty(0)).positions)
        subsets = {sample: self._subsets(sample, patches) for sample in set(maps.sample.tolist())}
        return {"": spearman(*self.drops(predict, maps, drawn(maps, subsets)))}

    def _subsets(self, sample: int, patches: Int64[np.ndarray, " S"]) -> Bool[np.ndarray, "D S"]:
        n = int(patches.max()) + 1
        draws = generator(self.seed, sample, self.name).random((self.subsets, n))
        return (draws.argsort(1).argsort(1) < max(1, round(self.fraction * n)))[:, patches]
