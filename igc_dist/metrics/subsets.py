"""What sensitivity-n and MuFidelity share: random subsets of features are removed, and their sums compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from igc_dist.metrics.base import FOUR, Effort, Maps, Metric, Predict, Subject, check_of, choice, whole

STARTS = ("black", "mean", "baseline")


@dataclass(frozen=True)
class Subsets(Metric):
    """Metrics of ``f(x) - f(x without S)`` against ``sum_S a``, for random subsets S of positions.

    `start` is what removed positions become: "black", zeros; "mean", the mean sample; "baseline", that of the map.
    `of`: "logit" or "probability". `subsets`: how many. `seed`: each sample has its own subsets, the same for all of
    its maps.
    """

    start: str = "black"
    of: str = "logit"
    subsets: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        choice(self, "start", STARTS)
        whole(self, "subsets", 3)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.start} & {"mean", "baseline"})

    def check(self, subject: Subject) -> None:
        check_of(self, self.of, subject)

    def spent(self, subject: Subject, n: int = 1) -> Effort:
        """Of n draws of subsets, one after the other: each is held for all maps, and once more in float64; and of each
        subset the prediction, in parts and as one, the drop and the sum, both centred, a square and their product."""
        subsets = self.subsets * ((1 + 8 + 1) * subject.n_positions + 8 * 8)
        return Effort(n * (1 + self.subsets), held=FOUR * subject.size + subsets, row=8 * subject.size)

    def drops(
        self, predict: Predict, maps: Maps, removed: Bool[Tensor, "M D S"]
    ) -> tuple[Float64[Tensor, "M D"], Float64[Tensor, "M D"]]:
        """``f(x) - f(x without S)`` and ``sum_S a`` of each subset."""
        x0 = maps.mean if self.start == "mean" else maps.baseline if self.start == "baseline" else maps.x.new_zeros(())
        assert x0 is not None  # `needs` says so
        x, x0 = maps.x[:, None], x0.expand_as(maps.x)[:, None]
        form = (1, *maps.x.shape[2:]) if maps.x.ndim == 4 else maps.x.shape[1:]

        def made(m: slice, t: slice) -> Float[Tensor, "m t *P"]:
            return torch.where(removed[m, t].unflatten(2, form), x0[m], x[m])

        before = predict(self.of, maps.output, lambda rows: maps.x[rows])
        after = predict.grid(self.of, maps.output, removed.shape[1], made)
        sums = torch.einsum("mds,ms->md", removed.double(), maps.positions())
        return before[:, None] - after, sums


def drawn(maps: Maps, per_sample: dict[int, Bool[np.ndarray, "D S"]]) -> Bool[Tensor, "M D S"]:
    """The subsets of the samples, for each map."""
    return torch.as_tensor(np.stack([per_sample[n] for n in maps.sample.tolist()]), device=maps.x.device)
