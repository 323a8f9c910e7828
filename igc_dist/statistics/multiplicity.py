"""P values of many tests at once, corrected so that they may be read together."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64


def p_values(
    values: Float64[np.ndarray, "*tests"], errors: Float64[np.ndarray, "*tests"], freedom: np.ndarray
) -> Float64[np.ndarray, "*tests"]:
    """Two-sided p values of ``values / errors`` in Student's t; NaN without a standard error, or one of zero."""
    from scipy.special import stdtr

    with np.errstate(invalid="ignore", divide="ignore"):
        known = np.isfinite(values) & (errors > 0) & (freedom > 0)
        size = np.abs(np.divide(values, errors, out=np.full(values.shape, np.nan), where=known))
        return np.asarray(np.where(known, 2 * stdtr(np.where(freedom > 0, freedom, 1), -size), np.nan))


def holm(p: Float64[np.ndarray, "*tests"]) -> Float64[np.ndarray, "*tests"]:
    """P values corrected by Holm's step-down: ``max over j <= i of min(1, (m - j + 1) p_(j))``. NaN stays NaN.

    The chance of one wrong rejection among all tests is then at most the level. Source: Holm 1979, Scandinavian Journal
    of Statistics 6(2), 65-70.
    """
    found = np.full(p.shape, np.nan)
    there = np.isfinite(p)
    order = np.argsort(p[there], kind="stable")
    factors = np.arange(len(order), 0, -1)
    corrected = np.minimum(np.maximum.accumulate(p[there][order] * factors), 1.0)
    values = np.empty(len(order))
    values[order] = corrected
    found[there] = values
    return found


def benjamini_hochberg(p: Float64[np.ndarray, "*tests"]) -> Float64[np.ndarray, "*tests"]:
    """The same by Benjamini and Hochberg's step-up: ``min over j >= i of min(1, m / j p_(j))``. NaN stays NaN.

    Of the tests with a corrected value below q, on average at most the share q is wrong, for independent or positively
    dependent tests. Source: Benjamini and Hochberg 1995, Journal of the Royal Statistical Society B 57(1), 289-300.
    """
    from scipy.stats import false_discovery_control

    found = np.full(p.shape, np.nan)
    there = np.isfinite(p)
    found[there] = false_discovery_control(p[there]) if there.any() else p[there]
    return found
