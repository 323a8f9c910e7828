"""What is inside a sample or a batch: the pair (x, y), where it was stored, and what is wrong with it."""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, Subset

from igc_dist.records import ConfigError, DataError

Fields = tuple[Any, str]
"""The keys of x (a key, or several for several inputs) and of y, for samples that are dicts."""

FEW = 16
"""The largest number of samples that a message names."""

PATHS = ("samples", "imgs", "paths", "files", "filenames", "image_paths", "image_files", "images")
"""Attributes where data sets keep the path of each sample, alone or at the head of a tuple."""


def fields_of(wish: Any) -> Fields | None:
    """The keys of x and of y. Raises `ConfigError` unless both are given."""
    if wish is None:
        return None
    if (
        not isinstance(wish, list | tuple)
        or len(wish) != 2
        or wish[0] in (None, "", [])
        or not isinstance(wish[1], str)
    ):
        raise ConfigError(
            f'fields={wish!r}: give the keys of x and of y, for example fields=("pixel_values", "labels"), or several '
            "for x; on the command line data.x=pixel_values data.y=labels"
        )
    x, y = wish
    return (x if isinstance(x, str) else tuple(x)), y


def pair(item: Any, fields: Fields | None, what: str) -> Any:
    """The item itself, or the pair of a dict. Raises `DataError` for a dict without the keys, and for other kinds."""
    if not isinstance(item, Mapping):
        if fields is not None:
            raise DataError(f"{what} is {kind_of(item)}, but fields={fields}: leave fields out, it is for dicts")
        if not isinstance(item, list | tuple) or len(item) != 2:
            raise DataError(
                f"{what} is {kind_of(item)}: it must be a pair (x, y), or ((x1, x2, ...), y) for several inputs"
            )
        return item
    keys = ", ".join(map(repr, item))
    if fields is None:
        raise DataError(
            f"{what} is a dict with the keys {keys}: say which is x and which is y, by fields=(x, y); on the command "
            "line data.x=... data.y=..."
        )
    x, y = fields
    missing = [key for key in ((x, y) if isinstance(x, str) else (*x, y)) if key not in item]
    if missing:
        raise DataError(f"{what} has no key {missing[0]!r}: it has {keys}")
    inputs = _numbers(item[x]) if isinstance(x, str) else tuple(_numbers(item[key]) for key in x)
    return inputs, _numbers(item[y])


def _numbers(value: Any) -> Any:
    """Lists of numbers as an array, because a list is otherwise several inputs."""
    if not isinstance(value, list):
        return value
    try:
        array = np.asarray(value)
    except ValueError:  # of different lengths
        return value
    return array if array.dtype.kind in "biufcO" else value


def wrong_with(items: Sequence[Any], indices: Sequence[int], error: Exception) -> str:
    """Which of some samples cannot be put into a batch, and why, after the collate function has failed with `error`."""
    first: dict[str, tuple[int, tuple[int, ...]]] = {}
    for index, item in zip(indices, items, strict=True):
        if not isinstance(item, list | tuple) or len(item) != 2:
            continue  # only the collate function knows what it is
        for name, value in parts(*item):
            if value is None or isinstance(value, str | bytes | Mapping) or type(value).__module__.startswith("PIL."):
                return f"sample {index}: {name} is {kind_of(value)}: {advice(value)}"
            shape = _shape(value)
            other, expected = first.setdefault(name, (index, shape))
            if shape != expected:
                return other_shape(name, index, shape, other, expected)
    what = f"sample {indices[0]}" if len(indices) == 1 else f"samples {', '.join(map(str, indices))}"
    return f"{what} cannot be put into a batch: {type(error).__name__}: {first_line(error)}"


def _shape(value: Any) -> tuple[int, ...]:
    """The shape of an array, or the length of a list."""
    return tuple(getattr(value, "shape", (len(value),) if isinstance(value, list | tuple) else ()))


def other_shape(name: str, index: int, shape: tuple[int, ...], other: int, expected: tuple[int, ...]) -> str:
    """The words for samples of different shapes."""
    return (
        f"sample {index}: {name} has shape {shape}, but in sample {other} it has {expected}: all samples need the same "
        "shape, so resize, crop or pad them in the data set"
    )


def parts(x: Any, y: Any) -> Iterator[tuple[str, Any]]:
    """The inputs and the target of a sample or a batch, by name."""
    inputs = x if isinstance(x, list | tuple) else (x,)
    yield from (("x" if len(inputs) == 1 else f"x[{i}]", value) for i, value in enumerate(inputs))
    yield "y", y


def samples(indices: Sequence[int]) -> str:
    """Samples in words: all of them, or the first of many."""
    more = f" and {len(indices) - FEW} more" if len(indices) > FEW else ""
    return f"samples {', '.join(map(str, indices[:FEW]))}{more}"


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    if value is None:
        return "None"
    if type(value).__module__.startswith("PIL."):
        return "a PIL image"
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, list | tuple) else "")


def advice(value: Any) -> str:
    """What to do about a value that is neither array, tensor nor number."""
    if type(value).__module__.startswith("PIL."):
        return "turn it into a tensor, for example by the data set's transform (torchvision.transforms.ToTensor())"
    if isinstance(value, Mapping):
        return "give its arrays as a tuple"
    if value is None:
        return "give arrays, tensors or numbers; NaN says that a target is missing"
    return "give arrays, tensors or numbers"


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).strip().splitlines() or ["no message"])[0]


def path_of(dataset: Any, index: int) -> str | None:
    """The path of a sample, if the data set tells it (as torchvision's `ImageFolder` does). Looks through parts."""
    if isinstance(dataset, Subset):
        return path_of(dataset.dataset, int(dataset.indices[index]))
    if isinstance(dataset, ConcatDataset):
        at = bisect.bisect_right(dataset.cumulative_sizes, index)
        return path_of(dataset.datasets[at], index - (dataset.cumulative_sizes[at - 1] if at else 0))
    for name in PATHS:
        entries = getattr(dataset, name, None)
        if isinstance(entries, Sequence | np.ndarray) and len(entries) == len(dataset):
            entry = entries[index]
            entry = entry[0] if isinstance(entry, list | tuple) and entry else entry
            if isinstance(entry, str | os.PathLike):
                return os.fspath(entry)
    return None
