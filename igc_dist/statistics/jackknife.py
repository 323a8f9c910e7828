"""Delete-one-fold jackknife: standard errors of any result of a state, from the states of the folds."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64


def leave_one_out(slots: Float64[np.ndarray, "G *rest"]) -> Float64[np.ndarray, "G *rest"]:
    """Sums over all folds but one, by prefix and suffix sums: without subtraction there is no cancellation."""
    without = np.empty_like(slots)
    for order, add in ((range(len(slots)), False), (reversed(range(len(slots))), True)):
        running = np.zeros_like(slots[0])
        for fold in order:
            without[fold] = without[fold] + running if add else running
            running += slots[fold]
    return without


def standard_error(
    whole: Float64[np.ndarray, "*rest"], without: Float64[np.ndarray, "G *rest"], weight: Float64[np.ndarray, "G *lead"]
) -> Float64[np.ndarray, "*rest"]:
    """Standard error of `whole` from its values without each fold, for folds of unequal weight.

    With ``h_g = W / W_g``: pseudo-values ``p_g = h_g t - (h_g - 1) t_(-g)``, ``SE**2 = mean_g (p_g - mean p)**2 / (h_g
    - 1)`` (Busing, Meijer, van der Leeden 1999); for equal folds this is ``(G-1)/G sum_g (t_(-g) - mean)**2``. NaN with
    fewer than two folds. The leading axes of `whole` are those of `weight` after the folds: the output, or slice and
    output.
    """
    if len(without) < 2:
        return np.full_like(whole, np.nan)
    weight = weight.reshape(*weight.shape, *(1,) * (whole.ndim + 1 - weight.ndim))
    total = weight.sum(0)
    # a fold in which every sample is masked changes nothing: its term is 0 / infinity
    with np.errstate(divide="ignore", invalid="ignore"):
        h = np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan)
        pseudo = h * whole - (h - 1) * without
        used = np.isfinite(h).sum(0)
        centre = np.nansum(pseudo, axis=0) / used
        variance = np.nansum((pseudo - centre) ** 2 / (h - 1), axis=0) / used
    undefined = np.isnan(whole) | (np.isnan(without) & (weight > 0)).any(0) | (used < 2)
    return np.where(undefined, np.nan, np.sqrt(variance))
