"""Label maps: to which named segment of its image each pixel of a sample belongs."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Integer, UInt8
from torch import Tensor
from torch.utils.data import Subset

from igc_dist.arrays import absent, numbers
from igc_dist.data.subsets import attribute, whole
from igc_dist.records import ConfigError, DataError
from igc_dist.targets import class_names

ARRAYS = (".npy", ".npz")
"""Files of label maps that are arrays; all others are images."""

MAX_SEGMENTS = 256
"""The largest number of named segments: a map then takes a byte for each pixel."""


@dataclass(frozen=True)
class LabelMaps:
    """The label maps of a data set: `read(index)` gives the labels of the pixels of a sample, integers (H, W).

    `names`: the names of the segments, in the order of the features; `labels`: the number of each in a map.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...]
    read: Callable[[int], Integer[np.ndarray, "H W"]]

    def __call__(self, index: int) -> UInt8[Tensor, "H W"]:
        """The place in `names` of each pixel's segment, as bytes. Raises `DataError` for a label without a name."""
        found, known = np.asarray(self.read(index)), np.asarray(self.labels)
        order = np.argsort(known)
        place = order[np.searchsorted(known, found, sorter=order).clip(max=len(known) - 1)]
        if (lost := known[place] != found).any():
            raise DataError(
                f"its label map has the label {found[lost][0]} in {int(lost.sum())} pixels, and segments have the "
                f"labels {', '.join(map(str, self.labels))}: name it as well (data.mask_names), as every pixel belongs "
                "to a segment"
            )
        return torch.from_numpy(place.astype(np.uint8))

    def part(self, indices: Sequence[int]) -> LabelMaps:
        """The label maps of some samples."""
        return replace(self, read=_Part(self.read, np.asarray(indices)))


def named(names: Any) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names of segments and their labels, from a list or file of names (labels 0, 1, ...), or a table label: name.

    Raises `ConfigError`.
    """
    table = names if isinstance(names, Mapping) else dict(enumerate(class_names(names) or ()))
    try:
        labels = tuple(int(label) for label in table)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"mask_names={dict(table)}: give names in the order of their labels, or label: name"
        ) from error
    said = tuple(map(str, table.values()))
    if not said or len(set(said)) < len(said) or len(said) > MAX_SEGMENTS:
        raise ConfigError(f"mask_names={[*said]}: give each segment a name of its own, 1 to {MAX_SEGMENTS} of them")
    return said, labels


def segments_of(masks: str | None, names: Any) -> dict[int, str]:
    """The names of segments by their labels, of a data set that was told where its label maps are; {} if it has none.

    Raises `ConfigError` for one of both without the other.
    """
    if masks is None and names is None:
        return {}
    if names is None:
        raise ConfigError("data.masks without data.mask_names: give the names of the labels 0, 1, ... or label: name")
    if masks is None:
        raise ConfigError("data.mask_names without data.masks: say where the label maps are")
    said, labels = named(names)
    return dict(zip(labels, said, strict=True))


def maps_in(dataset: Any, masks: Any = None, names: Any = None) -> LabelMaps:
    """The label maps of a data set: `masks`, or those that it has itself (`label_map(index)` and `segments`).

    `masks`: an array of integers (N, H, W), or the name of an attribute of the data set that is one. `names`: see
    `named`; None: what the data set says, or "segment 0", ... Raises `ConfigError` or `DataError`.
    """
    if isinstance(masks, str):
        name, masks = masks, attribute(dataset, masks)
        if masks is None:
            raise ConfigError(
                f"reduce.masks={name!r} is no .npy or .npz file, and the data set {type(whole(dataset)).__name__} has "
                "no such attribute"
            )
    if masks is not None:
        return _of_array(masks, names, len(dataset))
    if isinstance(dataset, Subset):
        return maps_in(dataset.dataset, None, names).part(dataset.indices)
    if not callable(getattr(dataset, "label_map", None)) or not len(getattr(dataset, "segments", ())):
        raise ConfigError(
            f"reduce=masks: the data set {type(dataset).__name__} has no label maps: say where they are and name the "
            "segments (data.masks, data.mask_names), or give reduce.masks, an array (samples, height, width)"
        )
    return LabelMaps(*named(dataset.segments if names is None else names), dataset.label_map)


def _of_array(masks: Any, names: Any, n: int) -> LabelMaps:
    """The label maps in an array."""
    found, missing = numbers(masks, "reduce: masks", ConfigError)
    if missing is not None:
        raise ConfigError(absent("reduce: masks", missing))
    if found.dtype.kind not in "iub" or found.ndim != 3 or len(found) != n:
        raise ConfigError(
            f"reduce: masks of type {found.dtype} and shape {found.shape}, expected integers of shape ({n}, height, "
            "width): a label map for each sample"
        )
    found = found.astype(np.uint8) if found.dtype.kind == "b" else found
    if names is None:
        names = [f"segment {label}" for label in range(int(found.max()) + 1)]
    return LabelMaps(*named(names), _Rows(found))


@dataclass(frozen=True)
class _Rows:
    """Label maps in memory; it can be sent to workers."""

    array: Integer[np.ndarray, "N H W"]

    def __call__(self, index: int) -> Integer[np.ndarray, "H W"]:
        return self.array[index]


@dataclass(frozen=True)
class _Part:
    """The label maps of some samples."""

    read: Callable[[int], Integer[np.ndarray, "H W"]]
    rows: Int64[np.ndarray, " n"]

    def __call__(self, index: int) -> Integer[np.ndarray, "H W"]:
        return self.read(int(self.rows[index]))


def loaded(masks: Any) -> Any:
    """The array of an .npy or .npz file, if `masks` is the path of one, else `masks`."""
    return array_of(masks) if isinstance(masks, str | Path) and Path(masks).suffix in ARRAYS else masks


def array_of(path: str | Path, file: io.BytesIO | str | Path | None = None) -> np.ndarray:
    """The only array of an .npy or .npz file, or of an open one. Raises `DataError` with the path."""
    try:
        found: Any = np.load(path if file is None else file, allow_pickle=False)
        if Path(path).suffix == ".npz":
            with found:
                if len(found.files) != 1:
                    raise ValueError(f"it has {len(found.files)} arrays, expected one")
                return found[found.files[0]]
        return np.asarray(found)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"label map {path} cannot be read: {error}") from error


def pixels_of(path: str | Path, file: io.BytesIO | str | Path | None = None) -> Integer[np.ndarray, "H W"]:
    """The labels in a file, or an open one: an image with one channel, or palette, or an array.

    Raises `DataError` with the path.
    """
    from PIL import Image

    if Path(path).suffix in ARRAYS:
        found = array_of(path, file)
    else:
        try:
            with Image.open(path if file is None else file) as opened:
                found = np.asarray(opened)
        except (OSError, ValueError) as error:
            raise DataError(f"label map {path} cannot be read: {error}") from error
    if found.ndim != 2 or found.dtype.kind not in "iub":
        raise DataError(
            f"label map {path} has shape {found.shape} and type {found.dtype}, expected integers (height, width): save "
            "the number of each pixel's segment in one channel"
        )
    return found.astype(np.int32)


def maps_of(maps: LabelMaps, read: Any) -> tuple[UInt8[Tensor, "n H W"], dict[int, Exception]]:
    """The label maps of the samples of a `Read`, and why those cannot be read that are 0 instead, by position."""
    found: dict[int, Tensor] = {}
    wrong: dict[int, Exception] = {}
    for n, index in enumerate(read.indices):
        try:
            found[n] = maps(index)
        except (DataError, OSError, ValueError) as error:
            wrong[n] = error
    x = read.batch[0]
    shape = next(iter(found.values())).shape if found else (x[0] if isinstance(x, list | tuple) else x).shape[-2:]
    for n, one in found.items():
        if one.shape != shape:
            wrong[n] = DataError(f"its label map has shape {tuple(one.shape)}, and others have {tuple(shape)}")
    blank = torch.zeros(shape, dtype=torch.uint8)
    return torch.stack([blank if n in wrong else found[n] for n in range(len(read.indices))]), wrong
