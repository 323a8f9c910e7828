"""Dataset-wise statistics of attributions, one sum at a time, and the jackknife by brute force. Nothing of the package
is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, lgamma, pi, sqrt

import numpy as np
from scipy.integrate import quad


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


def controlled(a: np.ndarray, y: np.ndarray, r: np.ndarray, z: np.ndarray) -> np.ndarray:
    """``(Cov(a, y) - Cov(a, z) / Var z * Cov(z, y)) / (std y std r)`` with the mean baseline z (N, *P)."""
    found = igc(a, y, r)
    for j in range(a.shape[1]):
        for at in np.ndindex(*z.shape[1:]):
            one, mine = z[(slice(None), *at)], a[(slice(None), j, *at)]
            beta = cov(mine, one) / cov(one, one) if std(one) > 0 else 0.0
            found[(j, *at)] -= beta * cov(one, y[:, j]) / (std(y[:, j]) * std(r[:, j]))
    return found


def pearson(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``Cov_n(a[n, j, i], y[n, j]) / (std a std y)``."""
    return per_feature(a, lambda values, j: corr(values, y[:, j]) if std(values) * std(y[:, j]) > 0 else np.nan)


def t_test(a: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Student's t of the samples `high[n, j]` against those `low[n, j]`, and the two-sided p-value by the area under
    the density."""

    def t(values: Sequence[float], j: int) -> float:
        one = [v for v, member in zip(values, high[:, j], strict=True) if member]
        two = [v for v, member in zip(values, low[:, j], strict=True) if member]
        if min(len(one), len(two)) < 2:
            return np.nan
        squares = sum((v - mean(one)) ** 2 for v in one) + sum((v - mean(two)) ** 2 for v in two)
        pooled = squares / (len(one) + len(two) - 2)
        return (mean(one) - mean(two)) / sqrt(pooled * (1 / len(one) + 1 / len(two))) if pooled > 0 else np.nan

    def p(values: Sequence[float], j: int) -> float:
        nu, found = int(low[:, j].sum() + high[:, j].sum()) - 2, t(values, j)
        if np.isnan(found):
            return np.nan
        density = exp(lgamma((nu + 1) / 2) - lgamma(nu / 2)) / sqrt(nu * pi)
        inside, _ = quad(
            lambda x: density * (1 + x * x / nu) ** (-(nu + 1) / 2), 0, abs(found), epsabs=1e-13, epsrel=1e-12
        )
        return 1 - 2 * inside

    return per_feature(a, t), per_feature(a, p)


def slices(
    a: np.ndarray, y: np.ndarray, r: np.ndarray, label: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """IGC of each slice (S, J, *P), its share (S, J), and the part between the slices (J, *P), from sums over samples.

    ``share_s = sqrt(C_yy^s C_rr^s / (C_yy C_rr))``, ``beta = sum_s n_s (mean_s a - mean a) (mean_s y - mean y) /
    sqrt(C_yy C_rr)``. Returned: IGC by slice, shares, beta, and IGC of the whole.
    """
    n, kinds = len(y), sorted(set(label.tolist()))
    members = [[k for k in range(n) if label[k] == kind] for kind in kinds]
    scale = [sqrt(n * cov(y[:, j], y[:, j]) * n * cov(r[:, j], r[:, j])) for j in range(y.shape[1])]
    by_slice = np.array([igc(a[rows], y[rows], r[rows]) for rows in members])
    shares = np.array(
        [
            [
                sqrt(len(m) * cov(y[m, j], y[m, j]) * len(m) * cov(r[m, j], r[m, j])) / scale[j]
                for j in range(y.shape[1])
            ]
            for m in members
        ]
    )

    def beta(values: Sequence[float], j: int) -> float:
        total = 0.0
        for m in members:
            total += len(m) * (mean([values[k] for k in m]) - mean(values)) * (mean(y[m, j]) - mean(y[:, j]))
        return total / scale[j]

    return by_slice, shares, per_feature(a, beta), igc(a, y, r)


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


def jackknife_of_equal_folds(
    statistic: Callable[[Sequence[int]], np.ndarray], folds: Sequence[Sequence[int]]
) -> np.ndarray:
    """``SE**2 = (G - 1) / G sum_g (t_(-g) - mean t_(-))**2``."""
    everyone = [n for fold in folds for n in fold]
    without = [statistic([n for n in everyone if n not in fold]) for fold in folds]
    middle = sum(without) / len(folds)
    return np.sqrt((len(folds) - 1) / len(folds) * sum((t - middle) ** 2 for t in without))
