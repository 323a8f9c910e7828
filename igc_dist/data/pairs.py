"""A pair of arrays ``(x, y)`` or ``((x1, x2), y)`` as a map-style data set."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import Dataset, TensorDataset

from igc_dist.records import DataError


def paired(x: Any, y: Any) -> Dataset[Any]:
    """The arrays as a data set. Raises `DataError` if they have different numbers of rows."""
    return _Arrays(x, y)


def in_memory(dataset: Any) -> bool:
    """Whether reading takes no time that a thread could hide."""
    return isinstance(dataset, _Arrays | TensorDataset)


class _Arrays(Dataset[Any]):  # stores know it by this name
    def __init__(self, x: Any, y: Any) -> None:
        arrays = [torch.as_tensor(array) for array in ((*x, y) if isinstance(x, tuple) else (x, y))]
        lengths = {len(array) for array in arrays if array.ndim}
        if len(lengths) != 1 or any(array.ndim == 0 for array in arrays):
            raise DataError(
                f"arrays of shapes {[tuple(a.shape) for a in arrays]} do not pair up: all must have the same number "
                "of rows"
            )
        self.rows, self.single = TensorDataset(*arrays), not isinstance(x, tuple)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        *x, y = self.rows[index]
        return (x[0] if self.single else tuple(x)), y
