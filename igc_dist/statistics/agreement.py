"""The agreement of predictions and targets: everything that needs no attribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from igc_dist.statistics.base import Finalized, Statistic
from igc_dist.statistics.correlation import over
from igc_dist.statistics.state import State

CONSTANT_TARGET, CONSTANT_PREDICTION = 1, 2
"""Bits of the array `constant`: the reason why the maps of an output are NaN."""


@dataclass(frozen=True)
class Agreement(Statistic):
    """Counts, means, deviations, ``corr(r, y)`` and the baseline term ``rho0 = Cov(mean_b f(x0), y) / (std y std r)``.

    `completeness_error` is the mean of ``|sum_i a_i - (f(x) - mean_b f(x0_b))|``; if the baselines of a sample are cut
    into blocks, it is an upper bound of this mean.
    """

    name = "agreement"
    terms = ()
    linear = True

    def finalize(self, state: State) -> Finalized:
        """Per-output arrays (..., J).

        n, target_mean, target_std, prediction_mean, prediction_std, correlation, baseline_term, constant.
        """
        target_std, prediction_std = state.std("y"), state.std("r")
        scale = target_std * prediction_std
        with np.errstate(invalid="ignore", divide="ignore"):
            residual = state.scalars["d"] / state.scalars[""]
        return Finalized(
            {
                "completeness_error": residual,
                "n": np.rint(state.scalars["n"]).astype(np.int64),
                "target_mean": state.mean("y"),
                "target_std": target_std,
                "prediction_mean": state.mean("r"),
                "prediction_std": prediction_std,
                "correlation": over(state.covariance("y", "r"), scale),
                "baseline_term": over(state.covariance("y", "b"), scale),
                "constant": (CONSTANT_TARGET * (target_std == 0) + CONSTANT_PREDICTION * (prediction_std == 0)).astype(
                    np.uint8
                ),
            },
            tuple({} for _ in state.features),
        )


def unexplained(state: State) -> float:
    """The mean completeness residual over the root mean square of ``f(x) - mean_b f(x0_b)``, of the worst output.

    0 if all these differences are 0.
    """
    sums = {
        term: state.scalars[term].reshape(-1, state.scalars[term].shape[-1]).sum(0)
        for term in ("", "d", "r", "b", "rr", "bb", "rb")
    }
    weight, apart = sums[""], state.centre.r - state.centre.b
    square = sums["rr"] - 2 * sums["rb"] + sums["bb"] + 2 * apart * (sums["r"] - sums["b"]) + weight * apart**2
    rose = (weight > 0) & (square > 0)
    return float(np.max(sums["d"][rose] / np.sqrt(weight[rose] * square[rose]), initial=0.0))
