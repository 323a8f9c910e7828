"""Integrated Gradient auto-Correlation: the variance of the prediction, split over the features."""

from __future__ import annotations

from dataclasses import dataclass

from igc_dist.statistics.correlation import Correlation


@dataclass(frozen=True)
class AutoCorrelation(Correlation):
    """``C[j, i] = Cov_n(a[n, j, i], r[n, j]) / var r_j`` (IGaC of Lelievre and Chen 2024 when a = IG).

    ``sum_i C = 1 - Cov(mean_b f(x0), r) / var r + quadrature error``. NaN for a constant prediction.
    """

    name = "autocorrelation"
    terms = ("a", "ar")
    against = "r"
