"""Mean and standard deviation of attributions over the data set."""

from __future__ import annotations

from dataclasses import dataclass

from igc_dist.statistics.base import Finalized, Statistic
from igc_dist.statistics.state import State


@dataclass(frozen=True)
class Moments(Statistic):
    """Population mean and standard deviation over inputs of a[n, j, i], one map each per output.

    Not linear: the deviation of a mean over baselines is not the mean of deviations, so baselines are never cut.
    """

    name = "moments"
    terms = ("a", "aa")
    linear = False
    n_maps = 2

    def finalize(self, state: State) -> Finalized:
        """`features[i]["mean"]` and `features[i]["std"]`, (..., J, *P_i)."""
        return Finalized(
            {}, tuple({"mean": state.mean("a", i), "std": state.std("a", i)} for i in range(len(state.features)))
        )
