"""Values that a run takes for each sample beside x and y: slice labels and weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from igc_dist.data.source import Source
from igc_dist.records import DataError


@dataclass(frozen=True)
class Sliced:
    """The slices of a data set: the slice number of each sample, and the label of each slice."""

    number: Int64[np.ndarray, " N"]
    labels: np.ndarray


MAX_SLICES = 256
"""The largest number of slices, as each has a state of its own. A column with more values is probably no label."""


def sliced(source: Source, wish: Any) -> Sliced | None:
    """Slices by labels: an array, or the name of an attribute of the data set. Raises `DataError`."""
    if wish is None:
        return None
    column = source.column(wish, "slices")
    if column.dtype.kind == "f" and np.isnan(column).any():
        raise DataError(f"slices: {int(np.isnan(column).sum())} samples have no label (NaN): give each one")
    if column.dtype.kind == "O":
        column = column.astype(str)
    labels, number = np.unique(column, return_inverse=True)
    if len(labels) > MAX_SLICES:
        raise DataError(
            f"slices: {len(labels)} different labels among {len(column)} samples, at most {MAX_SLICES}: group them "
            "first"
        )
    return Sliced(number.astype(np.int64), labels)


def weighted(source: Source, wish: Any) -> Float64[np.ndarray, " N"] | None:
    """Sample weights: an array, or the name of an attribute of the data set.

    Raises `DataError` unless they are finite and at least 0.
    """
    if wish is None:
        return None
    column = source.column(wish, "weights")
    try:
        column = column.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"weights of type {column.dtype}: give numbers") from error
    wrong = ~np.isfinite(column) | (column < 0)
    if wrong.any():
        n = int(np.flatnonzero(wrong)[0])
        raise DataError(f"weights: sample {n} has {column[n]}, weights are finite and at least 0")
    if not column.any():
        raise DataError("weights: all are 0")
    return column
