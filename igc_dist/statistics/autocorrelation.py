"""Integrated Gradient auto-Correlation: the variance of the prediction, split over the features."""

from __future__ import annotations

from dataclasses import dataclass

from igc_dist.statistics.base import Finalized, Statistic
from igc_dist.statistics.correlation import feature_sum, over
from igc_dist.statistics.state import State


@dataclass(frozen=True)
class AutoCorrelation(Statistic):
    """``C[j, i] = Cov_n(a[n, j, i], r[n, j]) / var r_j`` (IGaC of Lelievre and Chen 2024 when a = IG).

    ``sum_i C = 1 - Cov(mean_b f(x0), r) / var r + quadrature error``. NaN for a constant prediction.
    """

    name = "autocorrelation"
    terms = ("a", "ar")
    linear = True

    def finalize(self, state: State) -> Finalized:
        """`features[i]["autocorrelation"]` (..., J, *P_i) and `outputs["autocorrelation_sum"]` (..., J)."""
        scale = state.std("r") ** 2
        maps = tuple(over(state.covariance("a", "r", i), scale) for i in range(len(state.features)))
        return Finalized({"autocorrelation_sum": feature_sum(maps, scale.ndim)}, tuple({"autocorrelation": array} for array in maps))
