"""Items of a data set, made plain before they are collated: `default_collate` would drop the mask of an array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from igc_dist.arrays import is_array, tensor, viewed


def plain(pairs: Sequence[Any], indices: Sequence[int]) -> list[Any]:
    """The pairs (x, y) of a batch, with missing values of y as NaN.

    Raises `DataError` for missing values of x, with the sample.
    """
    xs, ys = zip(*pairs, strict=True)
    lengths = {len(x) if isinstance(x, list | tuple) else None for x in xs}
    if lengths == {None}:
        made = _alike(xs, "x", indices)
    elif len(lengths) == 1:
        parts = [_alike(part, f"x[{i}]", indices) for i, part in enumerate(zip(*xs, strict=True))]
        made = list(zip(*parts, strict=True))
    else:
        made = list(xs)
    return list(zip(made, _alike(ys, "y", indices), strict=True))


def _alike(values: Sequence[Any], name: str, indices: Sequence[int]) -> list[Any]:
    """Values of one part of the items, of one type if they are numbers: else the first would decide for all."""
    gaps = name == "y"
    made = [_leaf(value, f"{name} of sample {i}", gaps) for value, i in zip(values, indices, strict=True)]
    if len({type(value) for value in made}) > 1 and all(is_array(v) or isinstance(v, _NUMBERS) for v in made):
        return [tensor(value, name, gaps=gaps) for value in made]
    return made


_NUMBERS = (bool, int, float, complex, np.number, np.bool_)


def _leaf(value: Any, name: str, gaps: bool) -> Any:
    """The value, unless its collation would lose or misread something."""
    if type(value) is np.ndarray and viewed(value) and value.dtype.kind in "biufc":
        return value
    if isinstance(value, Tensor) or is_array(value):
        return tensor(value, name, gaps=gaps)
    if gaps and type(value).__name__ == "NAType":
        return torch.tensor(torch.nan, dtype=torch.float64)
    return value
