"""SIC: the softmax of an image against the information that it shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from igc_dist.metrics.base import Predict
from igc_dist.metrics.performance import Performance


@dataclass(frozen=True)
class Sic(Performance):
    """Softmax information curve; higher is better. See `Performance`."""

    name = "sic"

    @classmethod
    def study(cls, measure: str = "png") -> Sic:
        """As the study does: 25 shares, no filling but blur, PNG (or "ms_ssim"), 100 points. Its score is `_median`."""
        return cls(thresholds=25, measure=measure, fill="bokeh", points=100)

    def scores(self, predict: Predict, output: Tensor, made: Callable[[slice, slice], Tensor], n: int) -> Tensor:
        return predict.grid("probability", output, n, made)
