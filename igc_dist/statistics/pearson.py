"""Pearson's correlation of the attribution itself with the target."""

from __future__ import annotations

from dataclasses import dataclass

from igc_dist.statistics.base import Finalized, Statistic
from igc_dist.statistics.correlation import over
from igc_dist.statistics.state import State, widen


@dataclass(frozen=True)
class Pearson(Statistic):
    """``corr_n(a[n, j, i], y[n, j]) = Cov_n(a, y) / (std_n a * std y)``, between -1 and 1 (population statistics).

    With a = x it is the naive correlation of inputs and targets, which needs no model. NaN for a constant feature or
    target. Unlike IGC it is divided by the deviation of the attribution, so its sum has no meaning, and it is not
    linear.
    """

    name = "pearson"
    terms = ("a", "aa", "ay")
    linear = False

    def finalize(self, state: State) -> Finalized:
        """`features[i]["pearson"]` (..., J, *P_i)."""
        y = state.std("y")
        maps = []
        for i in range(len(state.features)):
            a = state.std("a", i)
            maps.append({"pearson": over(state.covariance("a", "y", i), a * widen(y, a.ndim - y.ndim))})
        return Finalized({}, tuple(maps))
