"""Data sets that Hugging Face's `datasets` has saved to a folder, as images with labels."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from torch import Tensor

from igc_dist.data.decoding import Decoding
from igc_dist.data.label_maps import segments_of
from igc_dist.data.labelled import Labelled, coded, vectors
from igc_dist.data.manifest import manifest
from igc_dist.records import ConfigError, DataError, near
from igc_dist.targets import class_names


class HuggingFace(Labelled):
    """The data set that ``save_to_disk`` wrote to the folder `root`; nothing is looked for on a network.

    `image`: the column of images; `label`: that of labels, or a list of columns that gives a vector. Names of classes
    are those of the column's `ClassLabel`, unless `classes` says which outputs the model has. Other columns of numbers
    or text are columns of the data set. `masks`: the column of images that are label maps. `classes`, `mask_names`,
    `decoding`: see `ImageFolder`. Needs the extra `huggingface`. Raises `DataError` or `ConfigError`.
    """

    def __init__(
        self,
        root: str | Path,
        image: str = "image",
        label: str | Sequence[str] = "label",
        classes: Sequence[str] | str | Path | None = None,
        masks: str | None = None,
        mask_names: Any = None,
        **decoding: Any,
    ) -> None:
        self.root = Path(os.path.expanduser(root))
        table = _opened(self.root)
        wanted = [label] if isinstance(label, str) else [*label]
        self.segments, self.maps_from = segments_of(masks, mask_names), masks
        pictures = [image] if masks in (None, image) else [image, masks]
        for name in (*pictures, *wanted):
            if name not in table.column_names:
                raise DataError(
                    f"data: {self.root} has no column {name!r}{near(name, table.column_names)}: it has "
                    f"{', '.join(map(repr, table.column_names))}"
                )
        for name, key in zip(pictures, ("data.build.image", "data.masks"), strict=False):
            if type(table.features[name]).__name__ != "Image":
                raise DataError(
                    f"data: column {name!r} of {self.root} holds {table.features[name]}, no images: give {key}"
                )
        names = getattr(table.features[wanted[0]], "names", None) if isinstance(label, str) else wanted
        values = {name: np.asarray(table[name]) for name in wanted}
        labels = values[label] if isinstance(label, str) else vectors(values, label, str(self.root))
        chosen = class_names(classes)
        if isinstance(label, str) and names and chosen not in (None, names):  # numbers count the data's own names
            labels = np.array([names[code] if code >= 0 else None for code in labels.tolist()], dtype=object)
        self.classes, self.y = coded(labels, chosen or names)
        self.columns = {
            name: np.asarray(table[name])
            for name, kind in table.features.items()
            if name not in (*pictures, *wanted) and type(kind).__name__ in ("Value", "ClassLabel")
        }
        self.decoded = Decoding(**decoding)
        held = sorted(file.relative_to(self.root).as_posix() for file in self.root.rglob("*") if file.is_file())
        self.digest = manifest(self.root, held).digest
        self._images, self._name = table.select_columns(pictures), image
        for name in pictures:  # they stay bytes: `Decoding` reads all images in one way
            self._images = self._images.cast_column(name, type(table.features[name])(decode=False))

    def image(self, index: int) -> Float[Tensor, "3 height width"]:
        """The image of a sample."""
        return self.decoded(_file(self._images[int(index)][self._name]))

    def label_map(self, index: int) -> Integer[np.ndarray, "height width"]:
        """The label of each pixel of a sample."""
        row = self._images[int(index)]
        map_file, image_file = _file(row[self.maps_from]), _file(row[self._name])
        return self.decoded.labels(f"{self.maps_from} of row {index}", f"{self._name} of it", (map_file, image_file))


def _opened(root: Path) -> Any:
    """The table in a folder."""
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            f"data=huggingface: datasets is missing ({error}): pip install 'igc-dist[huggingface]'"
        ) from error
    try:
        table = datasets.load_from_disk(str(root))
    except (OSError, ValueError) as error:
        raise DataError(
            f"data: {root} is no folder of save_to_disk ({error}): save the data set first, datasets.load_dataset(...)."
            "save_to_disk(FOLDER)"
        ) from error
    if isinstance(table, dict):
        raise DataError(f"data: {root} has parts: give one of {', '.join(str(root / part) for part in table)}")
    return table


def _file(found: Any) -> str | io.BytesIO:
    """An image that is not decoded."""
    return str(found["path"]) if found["bytes"] is None else io.BytesIO(found["bytes"])
