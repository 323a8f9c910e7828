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


def patches(a: np.ndarray, h: int, w: int) -> np.ndarray:
    *lead, height, width = a.shape[2:]
    return summed(a, (*lead, ceil(height / h), ceil(width / w)), lambda p: (*p[:-2], p[-2] // h, p[-1] // w))


def channels(a: np.ndarray) -> np.ndarray:
    return summed(a, a.shape[3:], lambda p: p[1:])


def total(a: np.ndarray) -> np.ndarray:
    return summed(a, (), lambda p: ())
