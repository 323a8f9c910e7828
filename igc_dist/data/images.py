"""Photographs in folders, or in a table of paths and labels, as a data set addressed by index."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from torch import Tensor

from igc_dist.data.decoding import Decoding
from igc_dist.data.label_maps import segments_of
from igc_dist.data.labelled import KINDS, Labelled, coded, tabulated
from igc_dist.data.manifest import Manifest, manifest
from igc_dist.records import DataError, near
from igc_dist.targets import class_names

PATHS = ("path", "file", "filename", "image")
"""What the column of paths may be called."""


class ImageFolder(Labelled):
    """Photographs below `root`: `x` is an image (3, height, width) in [0, 1], float32 (see `Decoding`), `y` its label.

    Without a `table`, each folder in `root` is a class, and images are taken in the order of their paths. `table`: a
    CSV or Parquet file with a column of paths below `root` (see `PATHS`) and a column `label`: the name of a class, or
    its number. A list of columns, such as 0/1 attributes or measurements, gives a vector of targets. All other columns
    are columns of the data set: ``data.slices=place`` or ``data.weights=weight`` names them.

    `classes`: the names of the model's outputs, in their order: a list, or a text file with one on each line. None: the
    names that occur, sorted, or the columns. Labels may differ from them in capitals and in ``_`` for a space.
    `masks`: the column of the paths below `root` of label maps (`label_map`), which `reduce=masks` takes: PNG of one
    channel or a palette, .npy or .npz, of the size of the image. `mask_names`: the names of their labels 0, 1, ...: a
    list, a file with one on each line, or label: name.
    `decoding`: the fields of `Decoding`; a `Vision` of `igc_dist.models` knows them: ``ImageFolder("photos",
    **vision.takes)``.

    A file that changes is another data set: `identity`, which holds the digest of all files, is part of a run's spec.
    Raises `DataError` or `ConfigError` that names the file, the column or the class.
    """

    def __init__(
        self,
        root: str | Path,
        table: str | Path | None = None,
        label: str | Sequence[str] = "label",
        classes: Sequence[str] | str | Path | None = None,
        masks: str | None = None,
        mask_names: Any = None,
        **decoding: Any,
    ) -> None:
        self.root = Path(os.path.expanduser(root))
        if not self.root.is_dir():
            raise DataError(f"data: {self.root} is no folder: give the folder of the images (data.root)")
        self.columns = {}
        below, labels = self._by_folder() if table is None else self._by_table(Path(os.path.expanduser(table)), label)
        several = None if isinstance(label, str) or table is None else [*label]
        self.classes, self.y = coded(labels, class_names(classes) or several)
        self.decoded = Decoding(**decoding)
        self.manifest: Manifest = manifest(self.root, below)
        self.digest = self.manifest.digest
        self.paths = [str(self.root / file) for file in below]
        self.segments = segments_of(masks, mask_names)
        if masks is not None:
            self.masks = self._masks(masks)
            self.maps_from = self.masks.digest

    def image(self, index: int) -> Float[Tensor, "3 height width"]:
        """The image of a sample."""
        return self.decoded(self.paths[index])

    def label_map(self, index: int) -> Integer[np.ndarray, "height width"]:
        """The label of each pixel of a sample."""
        return self.decoded.labels(self.masks.root / self.masks.paths[index], self.paths[index])

    def _masks(self, column: str) -> Manifest:
        """The files of the label maps. Raises `DataError` for a column or a file that is not there."""
        if column not in self.columns:
            raise DataError(
                f"data.masks={column!r} is no column of the table{near(column, [*self.columns])}: it has "
                f"{', '.join(map(repr, self.columns)) or 'none beside path and label'}"
            )
        files = self.columns[column].tolist()
        lost = [n for n, file in enumerate(files) if not isinstance(file, str) or not (self.root / file).is_file()]
        if lost:
            raise DataError(
                f"data: {len(lost)} of {len(files)} images have no label map, the first is {self.paths[lost[0]]} with "
                f"{files[lost[0]]!r}: column {column!r} has paths below data.root, one for each image"
            )
        return manifest(self.root, files)

    def _by_folder(self) -> tuple[list[str], np.ndarray]:
        """The path and the class of each image: the folder in `root` that holds it."""
        images = sorted(file for file in _below(self.root) if file.lower().endswith(KINDS))
        if lost := [file for file in images if not (self.root / file).exists()]:
            raise DataError(
                f"data: {self.root / lost[0]} is a link to a file that is not there ({len(lost)} such links): mend or "
                "remove it"
            )
        found = [file for file in images if (self.root / file).is_file()]
        if not found:
            raise DataError(f"data: no image below {self.root}: images end with {', '.join(KINDS)}")
        if loose := [file for file in found if "/" not in file]:
            raise DataError(
                f"data: {self.root / loose[0]} is in no class folder ({len(loose)} such images): put images into one "
                "folder for each class, or give a table of paths and labels (data.table)"
            )
        return found, np.array([file.split("/")[0] for file in found], dtype=object)

    def _by_table(self, table: Path, label: str | Sequence[str]) -> tuple[list[str], np.ndarray]:
        """The path and the label of each row: a name or number, or one number for each of several columns."""
        rows = _read(table)
        path = next((name for name in PATHS if name in rows), PATHS[0])
        labels, self.columns = tabulated(rows, label, f"the table {table}", path)
        files = [str(file) for file in rows[path]]
        if not files:
            raise DataError(f"data: {table} has no rows")
        if doubled := _doubled(files):
            raise DataError(f"data: {table} has {doubled[0]} twice or more ({len(doubled)} such paths): give each once")
        lost = [file for file in files if not (self.root / file).is_file()]
        if lost:
            raise DataError(
                f"data: {len(lost)} of {len(files)} images of {table} are not there, the first is "
                f"{self.root / lost[0]}: paths are below data.root"
            )
        return files, labels


def _doubled(values: Sequence[str]) -> list[str]:
    """What is there more than once."""
    return sorted(value for value, often in Counter(values).items() if often > 1)


def _read(table: Path) -> Any:
    """The table, as a DataFrame."""
    import pandas as pd

    try:
        return pd.read_parquet(table) if table.suffix == ".parquet" else pd.read_csv(table)
    except (OSError, ValueError, ImportError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"data: the table {table} cannot be read ({why}): give a CSV or Parquet file") from error


def _below(root: Path) -> Iterator[str]:
    """The files below a folder, also through links to folders, by their names from there; without hidden ones."""
    for folder, inside, names in os.walk(root, followlinks=True):
        here = os.path.realpath(folder)
        inside[:] = [
            name
            for name in inside
            if not name.startswith(".")
            and not f"{here}/".startswith(f"{os.path.realpath(os.path.join(folder, name))}/")
        ]  # a link to what holds it has no end
        for name in names:
            if not name.startswith("."):
                yield Path(os.path.relpath(os.path.join(folder, name), root)).as_posix()
