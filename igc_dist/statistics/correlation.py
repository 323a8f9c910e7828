"""Integrated Gradient Correlation: the correlation of prediction and target, split over the features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from igc_dist.statistics.base import Finalized, Statistic
from igc_dist.statistics.state import Array, State, widen


def over(covariance: Array, scale: Array) -> Array:
    """``covariance / scale`` per output, NaN where the scale is 0 (a constant target or prediction)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return covariance / widen(np.where(scale > 0, scale, np.nan), covariance.ndim - scale.ndim)


@dataclass(frozen=True)
class Correlation(Statistic):
    """``C[j, i] = Cov_n(a[n, j, i], y[n, j]) / (std y_j * std r_j)`` (population statistics, r = f(x)).

    With a = IG this is IGC (Lelievre and Chen 2024, arXiv:2404.13910), and ``sum_i IGC = corr(r, y) - rho0 + e`` with
    ``rho0 = Cov(mean_b f(x0), y) / (std std)`` and the quadrature error e. NaN for a constant target or prediction.
    """

    name = "correlation"
    terms: ClassVar[tuple[str, ...]] = ("a", "ay")
    linear = True
    against: ClassVar[str] = "y"
    """The variable whose correlation with attributions is computed."""

    def scale(self, state: State) -> Array:
        """The divisor of the covariance: (..., J)."""
        return state.std(self.against) * state.std("r")

    def finalize(self, state: State) -> Finalized:
        """`features[i]["correlation"]` (..., J, *P_i) and `outputs["correlation_sum"]` (..., J).

        "correlation" stands for the statistic's own name.
        """
        scale = self.scale(state)
        maps = tuple(over(state.covariance("a", self.against, i), scale) for i in range(len(state.features)))
        return Finalized(
            {f"{self.name}_sum": feature_sum(maps, scale.ndim)}, tuple({self.name: array} for array in maps)
        )


def feature_sum(maps: tuple[Array, ...], n_dims: int) -> Array:
    """Sum over all features of all inputs: (..., J) from (..., J, *P_i)."""
    return sum(array.reshape(*array.shape[:n_dims], -1).sum(-1) for array in maps)
