"""SIC: the softmax of an image against the information that it shows."""

from __future__ import annotations

from dataclasses import dataclass

from igc_dist.metrics.performance import Performance


@dataclass(frozen=True)
class Sic(Performance):
    """Softmax information curve; higher is better. See `Performance`. The score of the study is `_median`."""

    name = "sic"
    score = "probability"
