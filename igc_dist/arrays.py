"""Arrays as users give them, made plain: numpy arrays or tensors of numbers. Nothing in them is dropped in silence.

A value is *missing* if it is masked (`numpy.ma`, `torch.masked`), or None, NA or NaT. NaN is a number here: what it
means is said where it is used. Types without numbers, such as text, dates or sparse matrices, are errors that name the
way out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from igc_dist.records import DataError, IgcError

Error = type[IgcError]

NO_NUMBERS = {
    "U": "text: give numbers; np.unique(labels, return_inverse=True)[1] numbers labels",
    "M": "dates: give numbers, as (dates - dates[0]) / np.timedelta64(1, 'D') does",
    "m": "time differences: give numbers, as differences / np.timedelta64(1, 's') does",
    "V": "records of several fields: give a table of numbers, one column for each",
    "O": "objects that are no numbers: give numbers of one shape",
}
"""Kinds of numpy's types that hold no numbers, and the way out. Bytes and strings of any length are text too."""

WIDE = {"g": np.dtype(np.float64), "G": np.dtype(np.complex128)}
"""What torch has in place of numpy's longest types."""


def is_array(values: Any) -> bool:
    """Whether these are an array of some package, and no list or number of Python."""
    array = any(hasattr(values, name) for name in ("__array__", "todense", "shape"))
    return isinstance(values, Tensor) or (array and not isinstance(values, np.generic))


def entries(values: Any, name: str, error: Error = DataError) -> tuple[np.ndarray, Bool[np.ndarray, "..."] | None]:
    """Values of any type as a numpy array, and where they are missing (None: nowhere).

    Raises `error` for values that no dense array holds.
    """
    if isinstance(values, Tensor):
        mask = getattr(_dense(values, name, error), "get_mask", None)  # of torch.masked: True where there is a value
        missing = None if mask is None else mask().logical_not().numpy(force=True)
        plain = values if mask is None else values.get_data()  # type: ignore[attr-defined]
        plain = plain.dequantize() if plain.is_quantized else plain.detach()
        return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy(force=True), missing
    _dense(values, name, error)
    try:
        found = np.asanyarray(values)
    except (TypeError, ValueError) as cause:
        raise error(f"{name}: a {type(values).__name__} is no array ({cause}): give numbers of one shape") from cause
    if isinstance(values, list | tuple) and found.dtype.kind in "US":
        found = np.array(values, dtype=object)  # numpy would make text of NaN and of numbers beside text
    missing = np.ma.getmaskarray(found) if isinstance(found, np.ma.MaskedArray) else None
    found = np.asarray(np.ma.getdata(found))
    if found.dtype.kind in "OTMm":
        import pandas as pd

        absent = np.asarray(pd.isna(found.astype(object) if found.dtype.kind == "T" else found))
        if found.dtype.kind == "O":  # a NaN among objects is a number, unless they are text
            floats = np.array([isinstance(v, float | np.floating) for v in found.flat], dtype=bool)
            absent = np.asarray(absent & ~floats.reshape(found.shape))
        missing = absent if missing is None else missing | absent
    return found, missing if missing is not None and missing.any() else None


def numbers(values: Any, name: str, error: Error = DataError) -> tuple[np.ndarray, Bool[np.ndarray, "..."] | None]:
    """Like `entries`, but a missing value is NaN too, and all values are numbers in the byte order of the machine.

    Integers with missing values become float64. Raises `error` for values that are no numbers.
    """
    found, missing = entries(values, name, error)
    kind = "U" if found.dtype.kind in "ST" else found.dtype.kind
    if kind == "O":
        found = _common(np.where(False if missing is None else missing, np.nan, found))
        kind = found.dtype.kind
    if kind in NO_NUMBERS:
        raise error(f"{name} holds {NO_NUMBERS[kind]}")
    known = WIDE.get(found.dtype.char, found.dtype.newbyteorder("="))
    found = found.astype(known, copy=False)
    if missing is not None:
        found = np.where(missing, np.nan, found if found.dtype.kind in "fc" else found.astype(np.float64))
    return found, missing


def tensor(values: Any, name: str, error: Error = DataError, gaps: bool = False) -> Tensor:
    """Numbers as a tensor. With `gaps`, missing values are NaN; otherwise they raise `error`, with their index."""
    if isinstance(values, Tensor):
        if not hasattr(_dense(values, name, error), "get_mask") and not values.is_quantized:
            return (values.clone() if values.is_inference() else values.detach()).as_subclass(Tensor)
    elif hasattr(values, "__cuda_array_interface__"):
        return torch.as_tensor(values)
    found, missing = numbers(values, name, error)
    if missing is not None and not gaps:
        raise error(absent(name, missing))
    if not viewed(found):
        found = found.copy()
    return torch.from_numpy(found) if found.ndim else torch.tensor(found[()])


def real(values: Any, name: str, error: Error = DataError) -> Tensor:
    """Numbers as a tensor of real numbers, all of them there. Raises `error` for others, and never drops a part."""
    found = tensor(values, name, error)
    if found.is_complex():
        raise error(f"{name} is complex ({found.dtype}): give real numbers, such as its absolute values")
    return found


def viewed(values: np.ndarray) -> bool:
    """Whether torch can share the memory of the array of numbers: of its types, open to writing, with usual strides."""
    steps = all(stride >= 0 and stride % values.itemsize == 0 for stride in values.strides)
    return values.flags.writeable and values.dtype.isnative and values.dtype.char not in WIDE and steps


def absent(name: str, missing: Bool[np.ndarray, "..."]) -> str:
    """The message for missing values where every value must be there."""
    at = tuple(int(i) for i in np.argwhere(missing)[0])
    return f"{name} has a missing value (masked, None or NA) at index {at}: fill it in, or leave it out"


def _dense(values: Any, name: str, error: Error) -> Any:
    """The values. Raises `error` if they are sparse, or rows of different sizes."""
    strided = isinstance(values, Tensor) and values.layout == torch.strided
    if isinstance(values, Tensor) and values.is_nested:
        raise error(f"{name} is nested: its rows must have one size, so pad them (torch.nested.to_padded_tensor)")
    if not strided and (isinstance(values, Tensor) or hasattr(values, "todense")):
        raise error(
            f"{name} is sparse ({type(values).__name__}): give it dense (x.toarray(), x.todense() or x.to_dense()), or "
            "a data set whose __getitem__ makes one row dense"
        )
    return values


def _common(objects: np.ndarray) -> np.ndarray:
    """Objects as an array of their common type; still of objects if they have none. Text stays text."""
    found = np.array(objects.tolist())
    if any(isinstance(value, str | bytes) for value in objects.flat):
        return found if found.dtype.kind == "U" else found.astype("U")
    try:
        return found.astype(np.float64) if found.dtype.kind == "O" else found  # decimals, fractions
    except (TypeError, ValueError):
        return found
