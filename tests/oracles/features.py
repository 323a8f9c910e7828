"""Reductions of attributions by loops over features, in float64. Nothing of the package is used."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import ceil

import numpy as np


def summed(a: np.ndarray, shape: tuple[int, ...], where: Callable[[tuple[int, ...]], tuple[int, ...]]) -> np.ndarray:
    """(n, J, *Q) from (n, J, *P): every feature is added to the place that `where` gives for it."""
    result = np.zeros((*a.shape[:2], *shape))
    for n, j in product(*map(range, a.shape[:2])):
        for p in product(*map(range, a.shape[2:])):
            result[(n, j, *where(p))] += float(a[(n, j, *p)])
    return result


def segments(a: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labels over the last dimensions; those before are summed."""
    return summed(a, (int(labels.max()) + 1,), lambda p: (int(labels[p[len(p) - labels.ndim :]]),))


def masks(a: np.ndarray, maps: np.ndarray, n_segments: int) -> np.ndarray:
    """Labels of each sample over the last two dimensions; those before are summed."""
    each = [summed(a[n : n + 1], (n_segments,), lambda p, own=own: (int(own[p[-2:]]),)) for n, own in enumerate(maps)]
    return np.concatenate(each)


def patches(a: np.ndarray, h: int, w: int) -> np.ndarray:
    *lead, height, width = a.shape[2:]
    return summed(a, (*lead, ceil(height / h), ceil(width / w)), lambda p: (*p[:-2], p[-2] // h, p[-1] // w))


def channels(a: np.ndarray) -> np.ndarray:
    return summed(a, a.shape[3:], lambda p: p[1:])


def total(a: np.ndarray) -> np.ndarray:
    return summed(a, (), lambda p: ())


def dct(n: int) -> np.ndarray:
    """The orthonormal DCT-II by its sum."""
    rows = np.zeros((n, n))
    for k, p in product(range(n), range(n)):
        rows[k, p] = np.sqrt((1 if k == 0 else 2) / n) * np.cos(np.pi * (p + 0.5) * k / n)
    return rows


def bands(a: np.ndarray, n: int) -> np.ndarray:
    """Bands of radial frequency over the last two dimensions, as many as occur."""
    h, w = a.shape[-2:]

    def band(k: int, m: int) -> int:
        return min(int(np.sqrt((k / h) ** 2 + (m / w) ** 2) / np.sqrt(2) * n), n - 1)

    most = max(band(k, m) for k, m in product(range(h), range(w)))
    return summed(a, (*a.shape[2:-2], most + 1), lambda p: (*p[:-2], band(*p[-2:])))


def haar_scales(a: np.ndarray) -> np.ndarray:
    """Sums over scales of the Haar basis of a side of 4: rows are mean, coarse difference, two fine ones."""
    return summed(a, (*a.shape[2:-2], 3), lambda p: (*p[:-2], max((0, 1, 2, 2)[p[-2]], (0, 1, 2, 2)[p[-1]])))


def luminance(a: np.ndarray) -> np.ndarray:
    return summed(a, (2, *a.shape[3:]), lambda p: (min(p[0], 1), *p[1:]))
