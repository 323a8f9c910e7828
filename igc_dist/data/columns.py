"""Values that a run takes for each sample beside x and y: slice labels and weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from igc_dist.arrays import numbers, tensor
from igc_dist.data.labelled import Labelled
from igc_dist.data.pairs import in_memory
from igc_dist.data.source import Source
from igc_dist.records import ConfigError, DataError

MAX_SLICES = 256
"""The largest number of slices, as each has a state of its own. A column with more values is probably no label."""

POLICIES = ("fail", "skip")


@dataclass(frozen=True)
class Sliced:
    """The slices of a data set: the slice number of each sample, and the label of each slice.

    The number is -1 for a sample without a label, which is left out of the run.
    """

    number: Int64[np.ndarray, " N"]
    labels: np.ndarray

    @property
    def unlabelled(self) -> Bool[np.ndarray, " N"]:
        return self.number < 0


def sliced(source: Source, wish: Any, on_unlabelled: str = "fail") -> Sliced | None:
    """Slices by labels: an array, or the name of an attribute of the data set.

    Labels are numbers or text; dates, time differences and bytes become text. A sample has no label if it is masked,
    None, NA or NaN. `on_unlabelled`: "fail" refuses such samples, "skip" leaves them out of the run and lists them.
    Raises `DataError`, or `ConfigError` for an unknown policy.
    """
    if on_unlabelled not in POLICIES:
        raise ConfigError(f"data.on_unlabelled={on_unlabelled!r}: choose one of {', '.join(POLICIES)}")
    if wish is None:
        return None
    column, missing = source.column(wish, "slices")
    missing = missing | _nan(column)
    if missing.any() and on_unlabelled == "fail":
        raise DataError(
            f"slices: {int(missing.sum())} samples have no label (masked, None, NA or NaN), the first is sample "
            f"{int(missing.argmax())}: give each one, or set on_unlabelled=skip (data.on_unlabelled) to leave such "
            "samples out and list them"
        )
    if missing.all():
        raise DataError("slices: no sample has a label")
    found, place = np.unique(_labels(column[~missing]), return_inverse=True)
    if len(found) > MAX_SLICES:
        raise DataError(
            f"slices: {len(found)} different labels among {len(column)} samples, at most {MAX_SLICES}: group them first"
        )
    number = np.full(len(column), -1, dtype=np.int64)
    number[~missing] = place
    return Sliced(number, found)


def labels(source: Source) -> Tensor | None:
    """y of all samples, if it is known without reading them: of `Labelled` images, and of arrays in memory."""
    dataset, rows = source.dataset, None
    while isinstance(dataset, Subset):
        own = np.asarray(dataset.indices)
        dataset, rows = dataset.dataset, own if rows is None else own[rows]
    if isinstance(dataset, Labelled):
        y = dataset.y
    elif isinstance(dataset, TensorDataset):
        y = dataset.tensors[-1]
    elif in_memory(dataset):
        y = tensor(dataset.columns[-1], "y", gaps=True)
    else:
        return None
    return y if rows is None else y[torch.from_numpy(rows)]


def weighted(source: Source, wish: Any) -> Float64[np.ndarray, " N"] | None:
    """Sample weights: an array, or the name of an attribute of the data set.

    Raises `DataError` unless they are finite and at least 0.
    """
    if wish is None:
        return None
    given, missing = source.column(wish, "weights")
    column, _ = numbers(np.ma.array(given, mask=missing), "weights")
    if column.dtype.kind == "c":
        raise DataError(f"weights of type {column.dtype}: give real numbers")
    column = column.astype(np.float64)
    wrong = ~np.isfinite(column) | (column < 0)
    if wrong.any():
        n = int(np.flatnonzero(wrong)[0])
        said = "none (masked, None or NA)" if missing[n] else column[n]
        raise DataError(f"weights: sample {n} has {said}, weights are finite and at least 0")
    if not column.any():
        raise DataError("weights: all are 0")
    return column


def _nan(labels: np.ndarray) -> Bool[np.ndarray, " N"]:
    """Where a label is NaN, alone or among objects: only NaN differs from itself."""
    if labels.dtype.kind not in "fO":
        return np.zeros(len(labels), bool)
    return np.array([isinstance(label, float | np.floating) and label != label for label in labels])


def _labels(column: np.ndarray) -> np.ndarray:
    """Labels as numbers or text. Objects are numbers if all of them are, and bytes are UTF-8.

    Raises `DataError` for labels of other types, and for different labels that are the same text.
    """
    if column.dtype.kind == "O" and not any(isinstance(label, str | bytes) for label in column):
        column = _of_numbers(column)
    if column.dtype.kind in "biufU":
        return column
    if column.dtype.kind not in "STMmO":
        raise DataError(f"slices of type {column.dtype}: labels are numbers, text or dates")
    of: dict[str, Any] = {}
    text = [label.decode(errors="backslashreplace") if isinstance(label, bytes) else str(label) for label in column]
    for said, label in zip(text, column, strict=True):
        if of.setdefault(said, label) != label:
            raise DataError(f"slices: {of[said]!r} and {label!r} are both {said!r} as text: give labels of one type")
    return np.array(text)


def _of_numbers(column: np.ndarray) -> np.ndarray:
    """The same labels as an array of numbers, if they are numbers. True is not 1 here."""
    found, truths = np.array(column.tolist()), {isinstance(label, bool) for label in column}
    return found if found.dtype.kind in "biuf" and found.shape == column.shape and len(truths) == 1 else column
