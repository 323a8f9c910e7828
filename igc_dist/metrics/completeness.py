"""Completeness: whether a map sums to the difference of the model's outputs that it explains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from igc_dist.metrics.base import FOUR, Effort, Maps, Metric, Predict, Subject, check_of, slices, whole
from igc_dist.records import ConfigError


@dataclass(frozen=True)
class Completeness(Metric):
    """``|sum_i a_i - d|`` with ``d = f(x) - f(x0)``, x0 the baseline; lower is better.

    "_relative" is the same over ``|d|``, NaN if that is not above `floor`. "_difference" is ``|d|``: the error of the
    whole data set, ``sum |sum a - d| / sum |d|`` (Swain and Singhi 2024, arXiv:2410.04118), is the quotient of the two
    means. `of`: "logit" (the output as it is) or "probability".

    With `segments` = S, the curve tells where on the straight line from x0 to x a sum over S steps goes wrong, whatever
    the map: ``r_k = f(t_k+1) - f(t_k) - (f'(t_k) + f'(t_k+1)) / (2 S)``, at the ends ``t_k+1`` of the S segments.
    """

    name = "completeness"
    of: str = "logit"
    floor: float = 1e-6
    segments: int = 0

    def __post_init__(self) -> None:
        whole(self, "segments", 0)
        if self.segments and self.of != "logit":
            raise ConfigError("completeness: segments take gradients of outputs as they are: set of='logit'")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"baseline"})

    def check(self, subject: Subject) -> None:
        check_of(self, self.of, subject)

    def axis(self, subject: Subject) -> Float64[np.ndarray, " T"] | None:
        return np.arange(1, self.segments + 1) / self.segments if self.segments else None

    def effort(self, subject: Subject) -> Effort:
        points = self.segments + 1 if self.segments else 0
        return Effort(2 + points, points, held=FOUR * subject.size, row=FOUR * subject.size)

    def __call__(self, predict: Predict, maps: Maps) -> dict[str, Float64[Tensor, "M *T"]]:
        x0 = maps.baseline
        assert x0 is not None  # `needs` says so
        after = predict(self.of, maps.output, lambda rows: maps.x[rows])
        difference = after - predict(self.of, maps.output, lambda rows: x0[rows])
        error = (maps.values.flatten(1).sum(1) - difference).abs()
        size = difference.abs()
        relative = torch.where(size > self.floor, error / size, torch.nan)
        found = {"": error, "relative": relative, "difference": size}
        return found | {"curve": self._residuals(predict, maps)} if self.segments else found

    def _residuals(self, predict: Predict, maps: Maps) -> Float64[Tensor, "M S"]:
        """What the trapezoid rule misses of each segment."""
        assert maps.baseline is not None
        t = torch.linspace(0, 1, self.segments + 1, device=maps.x.device, dtype=maps.x.dtype)
        found = maps.values.new_empty(len(maps), self.segments)
        for m in slices(len(maps), max(1, predict.rows // len(t))):
            x, x0 = maps.x[m, None], maps.baseline[m, None]
            step = x - x0
            points = x0 + t.reshape(-1, *(1,) * (x.ndim - 2)) * step
            f, slope = predict.slopes(maps.output[m], points, step)
            found[m] = f.diff(dim=1) - (slope[:, 1:] + slope[:, :-1]) / (2 * self.segments)
        return found
