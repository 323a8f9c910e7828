"""Average drop: how much of the score is lost when a map dims the sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from igc_dist.metrics.base import FOUR, Effort, Maps, Metric, Predict, Subject, check_of, choice
from igc_dist.metrics.subsets import STARTS

SMALL = 1e-8
"""Added to the probability that is divided by."""


@dataclass(frozen=True)
class AverageDrop(Metric):
    """``max(p(x) - p(z), 0) / (p(x) + 1e-8)`` with ``z = x0 + m (x - x0)``; lower is better.

    m is the map of each position in [0, 1]: ``(a - min a) / (max a - min a)``. `start` is x0: "black", zeros; "mean",
    the mean sample; "baseline", that of the map. p is the probability. "_increase" is 1 if ``p(z) > p(x)``, else 0;
    higher is better. NaN for a map of equal values.

    Source: Chattopadhay et al. 2018, arXiv:1710.11063, with the small number of xplique.
    """

    name = "average_drop"
    start: str = "black"

    def __post_init__(self) -> None:
        choice(self, "start", STARTS)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.start} & {"mean", "baseline"})

    def check(self, subject: Subject) -> None:
        check_of(self, "probability", subject)

    def effort(self, subject: Subject) -> Effort:
        return Effort(2, held=FOUR * subject.size, row=FOUR * subject.size)

    def __call__(self, predict: Predict, maps: Maps) -> dict[str, Float64[Tensor, "M *T"]]:
        a = maps.positions()
        least, span = a.amin(1, keepdim=True), a.amax(1, keepdim=True) - a.amin(1, keepdim=True)
        mask = maps.spread(((a - least) / span).nan_to_num()).to(maps.x.dtype)
        x0 = maps.mean if self.start == "mean" else maps.baseline if self.start == "baseline" else maps.x.new_zeros(())
        assert x0 is not None  # `needs` says so
        x0 = x0.expand_as(maps.x)

        def dimmed(rows: Tensor) -> Float[Tensor, "r *P"]:
            return x0[rows] + mask[rows] * (maps.x[rows] - x0[rows])

        before = predict("probability", maps.output, lambda rows: maps.x[rows])
        after = predict("probability", maps.output, dimmed)
        found = {
            "": (before - after).clamp_min(0) / (before + SMALL),
            "increase": (after > before).double(),
        }
        return {name: torch.where(span[:, 0] > 0, part, torch.nan) for name, part in found.items()}
