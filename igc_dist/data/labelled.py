"""Images with labels, wherever they are kept: what folders, shards and tables of them share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.utils.data import Dataset

from igc_dist.data.decoding import Decoding
from igc_dist.records import DataError, near, near_names
from igc_dist.targets import place, places

KINDS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Files that are taken for images, by the ends of their names."""


class Labelled(Dataset[Any]):
    """Images as a data set addressed by index: `x` is an image (3, height, width), float32 in [0, 1], `y` its label.

    Those who inherit set what is declared here.
    """

    columns: dict[str, np.ndarray]
    """Further values of each sample, by name: ``dataset[name]``."""
    classes: list[str] | None
    """The names of the outputs, in their order."""
    y: Tensor
    decoded: Decoding
    digest: str
    """SHA-256 of all that the samples are read from."""
    segments: Mapping[int, str]
    """The names of the segments of label maps, by their labels; empty without such maps."""
    maps_from: str | None = None
    """What label maps are read from: a digest of files, or what `data.masks` says."""

    @abstractmethod
    def image(self, index: int) -> Float[Tensor, "3 height width"]:
        """The image of a sample."""

    @property
    def column_names(self) -> list[str]:
        """The columns beside image and label."""
        return [*self.columns]

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the samples are made of, as JSON, for the spec of a run."""
        maps = {"masks": self.maps_from, "segments": self.segments} if self.segments else {}
        return {
            "files": self.digest,
            "classes": self.classes,
            "size": self.decoded.sides,
            "resize": self.decoded.resize,
            "background": list(self.decoded.background),
            "interpolation": self.decoded.interpolation,
            **maps,
        }

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int | str) -> Any:
        """The image and the label of a sample, or the column of a name."""
        if isinstance(index, str):
            return self.columns[index]
        return self.image(index), self.y[index]


def tabulated(
    rows: Any, label: str | Sequence[str], where: str, path: str | None = None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The labels of a table, which are numbers or text, or vectors of several columns; and its other columns.

    `rows`: what pandas takes for a table. `path`: a column that is neither. Raises `DataError` for a column that is not
    there.
    """
    import pandas as pd

    table = pd.DataFrame(rows)
    wanted = [label] if isinstance(label, str) else [*label]
    for name in (*wanted, *([] if path is None else [path])):
        if name not in table:
            raise DataError(
                f"data: {where}: no column {name!r}{near(name, [*table])}: there are {', '.join(map(repr, table))}"
            )
    columns = {str(name): np.asarray(table[name]) for name in table if name not in (path, *wanted)}
    own = {name: np.asarray(table[name]) for name in wanted}
    return own[label] if isinstance(label, str) else vectors(own, label, where), columns


def vectors(columns: Mapping[str, np.ndarray], names: Sequence[str], where: str) -> Float64[np.ndarray, "N J"]:
    """Some columns of numbers as one vector for each sample. Raises `DataError` for other columns."""
    try:
        return np.stack([np.asarray(columns[name], np.float64) for name in names], axis=1)
    except (TypeError, ValueError) as error:
        raise DataError(f"data: the columns {', '.join(names)} of {where} are not all numbers: {error}") from error


def coded(given: np.ndarray, classes: list[str] | None) -> tuple[list[str] | None, Tensor]:
    """The names of classes, if labels are names, and labels as tensors. Missing labels are NaN.

    Raises `DataError` for a label that is no class.
    """
    if given.ndim == 2:
        return classes, torch.from_numpy(given)
    if given.dtype.kind in "biu":
        return classes, torch.from_numpy(given.astype(np.int64))
    if given.dtype.kind == "f":
        whole = bool((given == np.floor(given))[np.isfinite(given)].all())
        return classes, torch.from_numpy(given.astype(np.int64) if whole and np.isfinite(given).all() else given.copy())
    names = [name if isinstance(name, str) else None for name in given.tolist()]
    known = classes if classes is not None else sorted({name for name in names if name is not None})
    by_name = places(known)
    codes = [np.nan if name is None else _code(name, by_name, known) for name in names]
    return known, torch.tensor(codes) if None in names else torch.tensor(codes, dtype=torch.int64)


def _code(label: str, by_name: Mapping[str, int], classes: Sequence[str]) -> int:
    found = place(label, by_name)
    if found is None:
        near = near_names(label, classes)
        hint = f" (near are {', '.join(near)})" if near else ""
        raise DataError(
            f"data: label {label!r} is no class{hint}: there are {len(classes)}, of the model or in data.classes, by "
            "the names of its outputs; data.classes=null takes the labels that occur"
        )
    return found
