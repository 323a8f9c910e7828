"""Correlation with a control variate: it removes what the choice of the baselines adds by chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from igc_dist.statistics.base import Finalized
from igc_dist.statistics.correlation import Correlation, feature_sum, over
from igc_dist.statistics.state import State


@dataclass(frozen=True)
class ControlledCorrelation(Correlation):
    """``C_i - beta_i Cov_n(z_i, y) / (std y std r)`` with ``beta_i = Cov_n(a_i, z_i) / Var_n z_i``.

    z is the mean baseline of a sample. Baselines that are drawn for each sample are independent of its target (except
    that one in N samples may draw itself). So the covariance of z and y is 0 except for chance, and its effect on the
    covariance of a and y is known. For a linear model only the second-order noise of the baselines remains: that of
    beta times that of the covariance. It needs four more sums than a correlation. Source: Glasserman (2003, section
    4.1).
    """

    name = "controlled_correlation"
    terms = ("a", "ay", "z", "zz", "az", "zy")
    whole = True

    def finalize(self, state: State) -> Finalized:
        """The same names and shapes as of a correlation."""
        scale, maps = self.scale(state), []
        for i in range(len(state.features)):
            spread = state.std("z", i)  # exactly 0 for a feature in which all baselines agree
            with np.errstate(invalid="ignore", divide="ignore"):
                beta = np.where(spread > 0, state.covariance("a", "z", i) / spread**2, 0.0)
            maps.append(over(state.covariance("a", "y", i) - beta * state.covariance("z", "y", i), scale))
        return Finalized(
            {f"{self.name}_sum": feature_sum(tuple(maps), scale.ndim)}, tuple({self.name: array} for array in maps)
        )
