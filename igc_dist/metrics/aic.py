"""AIC: whether an image is recognised, against the information that it shows."""

from __future__ import annotations

from dataclasses import dataclass

from igc_dist.metrics.performance import Performance


@dataclass(frozen=True)
class Aic(Performance):
    """Accuracy information curve: the score is 1 where the output is the model's largest, else 0. See `Performance`.

    That of the study is `_mean`.
    """

    name = "aic"
    score = "recognised"
