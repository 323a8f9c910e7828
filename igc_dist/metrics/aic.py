"""AIC: whether an image is recognised, against the information that it shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from igc_dist.metrics.base import Predict
from igc_dist.metrics.performance import Performance


@dataclass(frozen=True)
class Aic(Performance):
    """Accuracy information curve: the score is 1 where the output is the model's largest, else 0. See `Performance`."""

    name = "aic"

    @classmethod
    def study(cls, measure: str = "png") -> Aic:
        """As the study does: 25 shares, no filling but blur, PNG (or "ms_ssim"), 100 points. Its score is `_mean`."""
        return cls(thresholds=25, measure=measure, fill="bokeh", points=100)

    def scores(self, predict: Predict, output: Tensor, made: Callable[[slice, slice], Tensor], n: int) -> Tensor:
        return predict.grid("recognised", output, n, made)
