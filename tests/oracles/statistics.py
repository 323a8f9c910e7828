"""Dataset-wise statistics of attributions, one sum at a time, and the jackknife by brute force. Nothing of the package is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt

import numpy as np


def mean(values: Sequence[float]) -> float:
    return sum(float(v) for v in values) / len(values)


def cov(u: Sequence[float], v: Sequence[float]) -> float:
    """Population covariance."""
    mean_u, mean_v = mean(u), mean(v)
    return mean([(a - mean_u) * (b - mean_v) for a, b in zip(u, v, strict=True)])


def std(u: Sequence[float]) -> float:
    return sqrt(cov(u, u))


def corr(u: Sequence[float], v: Sequence[float]) -> float:
    return cov(u, v) / (std(u) * std(v))


def per_feature(a: np.ndarray, fold: Callable[[Sequence[float], int], float]) -> np.ndarray:
    """(J, *P) from (N, J, *P): `fold` of the N numbers of each output and feature."""
    flat = a.reshape(*a.shape[:2], -1)
    table = [[fold([float(row[j, i]) for row in flat], j) for i in range(flat.shape[2])] for j in range(flat.shape[1])]
    return np.array(table).reshape(a.shape[1:])


def igc(a: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    """``Cov_n(a[n, j, i], y[n, j]) / (std y_j std r_j)``."""
    return per_feature(a, lambda values, j: cov(values, y[:, j]) / (std(y[:, j]) * std(r[:, j])))


def igac(a: np.ndarray, r: np.ndarray) -> np.ndarray:
    """``Cov_n(a[n, j, i], r[n, j]) / var r_j``."""
    return per_feature(a, lambda values, j: cov(values, r[:, j]) / cov(r[:, j], r[:, j]))


def attribution_mean(a: np.ndarray) -> np.ndarray:
    return per_feature(a, lambda values, j: mean(values))


def attribution_std(a: np.ndarray) -> np.ndarray:
    return per_feature(a, lambda values, j: std(values))


def correlations(y: np.ndarray, r: np.ndarray) -> np.ndarray:
    """``corr(r_j, y_j)`` for each output."""
    return np.array([corr(r[:, j], y[:, j]) for j in range(y.shape[1])])


def rho0(y: np.ndarray, r: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``Cov(mean_b f(x0), y) / (std y std r)`` for each output."""
    return np.array([cov(b[:, j], y[:, j]) / (std(y[:, j]) * std(r[:, j])) for j in range(y.shape[1])])


def jackknife(statistic: Callable[[Sequence[int]], np.ndarray], folds: Sequence[Sequence[int]]) -> np.ndarray:
    """Delete-one-fold standard error: `statistic` of the rows that are kept is run again without each fold.

    ``h_g = N / N_g``, ``p_g = h_g t - (h_g - 1) t_(-g)``, ``SE**2 = mean_g (p_g - mean p)**2 / (h_g - 1)``.
    """
    everyone = [n for fold in folds for n in fold]
    whole = statistic(everyone)
    pseudo, h = [], []
    for left_out in folds:
        h.append(len(everyone) / len(left_out))
        pseudo.append(h[-1] * whole - (h[-1] - 1) * statistic([n for n in everyone if n not in left_out]))
    middle = sum(pseudo) / len(folds)
    return np.sqrt(sum((p - middle) ** 2 / (hg - 1) for p, hg in zip(pseudo, h, strict=True)) / len(folds))


def jackknife_of_equal_folds(statistic: Callable[[Sequence[int]], np.ndarray], folds: Sequence[Sequence[int]]) -> np.ndarray:
    """``SE**2 = (G - 1) / G sum_g (t_(-g) - mean t_(-))**2``."""
    everyone = [n for fold in folds for n in fold]
    without = [statistic([n for n in everyone if n not in fold]) for fold in folds]
    middle = sum(without) / len(folds)
    return np.sqrt((len(folds) - 1) / len(folds) * sum((t - middle) ** 2 for t in without))
