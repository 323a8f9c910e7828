"""The mean area of segments, and the correlation for each unit of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from igc_dist.statistics.base import Finalized, Statistic
from igc_dist.statistics.correlation import Correlation
from igc_dist.statistics.state import State


@dataclass(frozen=True)
class Area(Statistic):
    """``A_q = mean_n s[n, q]``: the part of an image that a segment takes, on average over all samples; 0 to 1.

    A sample without the segment counts as 0. Beside it, where the covariance is folded as well, ``IGC_q / A_q``: the
    segment's share of the correlation for each unit of its area, NaN if the area is 0. Source: the segment attribution
    tables of Hinns and Martens (2025, arXiv 2506.23247), which divide by the area of each image.
    """

    name = "area"
    terms = ("s",)
    linear = True
    n_maps = 2

    def finalize(self, state: State) -> Finalized:
        """`features[i]["area"]`, and `features[i]["correlation_per_area"]`, (..., J, *Q_i)."""
        area = tuple(state.mean("s", i) for i in range(len(state.features)))
        maps: tuple[dict[str, np.ndarray], ...] = tuple({"area": each} for each in area)
        if all("ay" in sums for sums in state.features):
            for into, each, igc in zip(maps, area, Correlation().finalize(state).features, strict=True):
                with np.errstate(invalid="ignore", divide="ignore"):
                    into["correlation_per_area"] = np.where(each > 0, igc["correlation"] / each, np.nan)
        return Finalized({}, maps)
