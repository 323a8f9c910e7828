"""A pair of arrays ``(x, y)`` or ``((x1, x2), y)`` as a map-style data set.

Rows of arrays on disk or made on demand (`numpy.memmap`, `zarr.Array`, `h5py.Dataset`, `xarray.DataArray`, dask) are
read when they are needed. What is in memory is shared with torch where it can be; otherwise its rows are copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from igc_dist.arrays import absent, numbers, tensor, viewed
from igc_dist.records import DataError


def paired(x: Any, y: Any) -> Dataset[Any]:
    """The arrays as a data set. Missing values of y are NaN. Raises `DataError`, also for missing values of x."""
    return _Arrays(x, y)


def in_memory(dataset: Any) -> bool:
    """Whether reading takes no time that a thread could hide."""
    if isinstance(dataset, Pair):
        return dataset.in_memory
    return isinstance(dataset, TensorDataset)


def stacked(dataset: Any, indices: Sequence[int]) -> Any:
    """The rows of a pair of arrays as the batch that `default_collate` makes of its items; None for other data sets."""
    if not isinstance(dataset, Pair):
        return None
    *x, y = (values.contiguous() for values in dataset.read(indices))
    return (x[0] if dataset.single else x), y


class Pair(Dataset[Any]):
    """Arrays whose rows are samples: an input, or a tuple of several, and a target."""

    def __init__(self, x: Any, y: Any) -> None:
        self.single = not isinstance(x, tuple)
        inputs = {"x": x} if self.single else {f"x[{i}]": one for i, one in enumerate(x)}
        self.names = (*inputs, "y")
        self.columns = tuple(_column(values, name) for name, values in {**inputs, "y": y}.items())
        shapes = [tuple(column.shape) for column in self.columns]
        if not all(shapes) or len({shape[0] for shape in shapes}) != 1:
            raise DataError(f"arrays of shapes {shapes} do not pair up: all must have the same number of rows")

    @cached_property
    def in_memory(self) -> bool:
        return not any(map(_on_demand, self.columns))

    def __len__(self) -> int:
        return int(self.columns[0].shape[0])

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        return [(x[0] if self.single else tuple(x), y) for *x, y in zip(*self.read(indices), strict=True)]

    def read(self, indices: Sequence[int]) -> list[Tensor]:
        """Several rows of each array, with one read of it: a chunk on disk is read once for all of its rows."""
        n, wished = len(self), np.asarray(indices, dtype=np.int64)
        if ((wished < -n) | (wished >= n)).any():
            raise IndexError(f"index {wished[(wished < -n) | (wished >= n)][0]} is out of {n} rows")
        named = list(zip(self.columns, self.names, strict=True))
        if self.in_memory:
            return [_rows(column, wished % n, name) for column, name in named]
        rows, where = np.unique(wished % n, return_inverse=True)
        return [_rows(column, rows, name)[where] for column, name in named]


class _Arrays(Pair):
    """What `paired` makes: stores know it by this name."""


def _on_demand(values: Any) -> bool:
    """Whether these are an array whose rows are to be read when they are needed. pandas is indexed by labels."""
    if isinstance(values, Tensor | np.ndarray):
        return isinstance(values, np.memmap)
    array = isinstance(getattr(values, "dtype", None), np.dtype) and hasattr(values, "shape")
    foreign = hasattr(values, "iloc") or hasattr(values, "todense") or hasattr(values, "__cuda_array_interface__")
    return array and hasattr(values, "__getitem__") and not foreign


def _column(values: Any, name: str) -> Any:
    """The array as a tensor, or as it is if its rows are converted when they are read."""
    if _on_demand(values):
        if values.shape:
            _rows(values, np.arange(min(1, values.shape[0])), name)  # raises if these are no numbers
        return values
    if isinstance(values, Tensor) or hasattr(values, "__cuda_array_interface__"):
        return tensor(values, name, gaps=name == "y")
    found, missing = numbers(values, name)
    if missing is None and type(_first(values)) is float:  # a number of Python has torch's type
        return torch.from_numpy(found).to(torch.get_default_dtype())
    if missing is not None and name != "y":
        raise DataError(absent(name, missing))
    return torch.from_numpy(found) if viewed(found) else found


def _first(values: Any) -> Any:
    """The first number of lists in lists."""
    while isinstance(values, list | tuple) and values:
        values = values[0]
    return values


def _rows(column: Any, rows: np.ndarray, name: str) -> Tensor:
    return (
        column[torch.from_numpy(rows)] if isinstance(column, Tensor) else tensor(column[rows], name, gaps=name == "y")
    )
