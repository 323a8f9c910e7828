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
    pseudo, h, used = _pseudo(whole, without, weight)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = np.nansum(pseudo, axis=0) / used
        variance = np.nansum((pseudo - centre) ** 2 / (h - 1), axis=0) / used
    return np.where(_undefined(whole, without, h), np.nan, np.sqrt(variance))


def deviations(
    whole: Float64[np.ndarray, "*rest"], without: Float64[np.ndarray, "G *rest"], weight: Float64[np.ndarray, "G *lead"]
) -> Float64[np.ndarray, "G *rest"]:
    """What each fold adds to the standard error: ``d_g = (p_g - mean p) / sqrt(G (h_g - 1))``, ``SE**2 = sum d_g**2``.

    So the standard error of a difference of two results over the same folds is that of the difference of their d (it
    is paired), and over other folds that of both sets of d. 0 for a fold without weight; NaN where the standard error
    is NaN.
    """
    pseudo, h, used = _pseudo(whole, without, weight)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = np.nansum(pseudo, axis=0) / used
        found = (pseudo - centre) / np.sqrt(used * (h - 1))
    return np.where(_undefined(whole, without, h), np.nan, np.where(np.isnan(h), 0.0, found))


def _pseudo(whole: np.ndarray, without: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pseudo-values of the folds, their h (NaN for a fold without weight), and how many folds have weight."""
    weight = weight.reshape(*weight.shape, *(1,) * (whole.ndim + 1 - weight.ndim))
    total = weight.sum(0)
    # a fold in which every sample is masked changes nothing: its term is 0 / infinity
    with np.errstate(divide="ignore", invalid="ignore"):
        h = np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan)
        return h * whole - (h - 1) * without, h, np.isfinite(h).sum(0)


def _undefined(whole: np.ndarray, without: np.ndarray, h: np.ndarray) -> np.ndarray:
    return np.isnan(whole) | (np.isnan(without) & np.isfinite(h)).any(0) | (np.isfinite(h).sum(0) < 2)
