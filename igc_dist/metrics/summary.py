"""The mean of a score over samples, with its interval."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from scipy.special import stdtrit

from igc_dist.statistics import leave_one_out, standard_error


class Mean(NamedTuple):
    """A mean over samples, for each output: NaN is left out of it. `n`: the number of samples in it."""

    mean: Float64[np.ndarray, " J"]
    se: Float64[np.ndarray, " J"]
    ci_low: Float64[np.ndarray, " J"]
    ci_high: Float64[np.ndarray, " J"]
    n: Int64[np.ndarray, " J"]


def mean(scores: Float64[np.ndarray, "N J"], level: float) -> Mean:
    """The mean, its standard error by the jackknife over samples, and ``mean -+ t SE``.

    t is the quantile of Student's t with n - 1 degrees of freedom, as in `igc_dist.interval`. NaN with fewer than two
    samples.
    """
    there = np.isfinite(scores)
    weight, slots = there.astype(np.float64), np.where(there, scores, 0.0)
    n = there.sum(0)
    with np.errstate(invalid="ignore"):  # 0 / 0 without a sample
        centre = slots.sum(0) / n
        without = leave_one_out(slots) / leave_one_out(weight)
    se = standard_error(centre, without, weight)
    reach = se * np.where(n > 1, stdtrit(np.maximum(n - 1, 1), (1 + level) / 2), np.nan)
    return Mean(centre, se, centre - reach, centre + reach, n)


def median(curves: Float64[np.ndarray, "N J T"]) -> Float64[np.ndarray, "J T"]:
    """The median of curves over samples, point by point. Curves of NaN are left out; NaN without a curve."""
    found = np.full(curves.shape[1:], np.nan)
    for j in range(curves.shape[1]):
        there = curves[np.isfinite(curves[:, j, 0]), j]
        if len(there):
            found[j] = np.median(there, axis=0)
    return found


def mean_curve(curves: Float64[np.ndarray, "N J T"]) -> Float64[np.ndarray, "J T"]:
    """The mean of curves over samples, point by point, without NaN; NaN without a number."""
    there = np.isfinite(curves)
    with np.errstate(invalid="ignore"):  # 0 / 0 without a sample
        return np.where(there, curves, 0.0).sum(0) / there.sum(0)
