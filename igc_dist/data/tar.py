"""Images in tar files, as WebDataset writes them, addressed by index."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int64, Integer
from torch import Tensor

from igc_dist import files
from igc_dist.data.decoding import Decoding
from igc_dist.data.label_maps import ARRAYS, segments_of
from igc_dist.data.labelled import KINDS, Labelled, coded, tabulated
from igc_dist.data.manifest import manifest
from igc_dist.records import DataError
from igc_dist.targets import class_names

CLASS = "cls"
"""The member that holds a label as text, in WebDataset's convention."""

LARGEST = 1 << 20
"""The largest member that is read as text, in bytes: others are no labels."""


class TarFolder(Labelled):
    """Images of the tar files below `root`, or of the one tar file `root`, in the order of their names.

    A sample is what lies together and has one name up to the first dot: ``0001.jpg``, ``0001.cls``, ``0001.json``. The
    member `cls` is its label, a number or the name of a class; the entries of `json` are its fields. `label`: the field
    that is the label, or a list of them that gives a vector; without such a field it is that of `cls`. All other fields
    are columns. `masks`: the end of the name of the members that are label maps, as ``seg.png`` of ``0001.seg.png``.
    `classes`, `mask_names`, `decoding`: see `ImageFolder`.

    Nothing is unpacked: an index of where members begin is built once for each tar file, and kept in the cache under
    the file's SHA-256. Compressed tar files cannot be read by index. Raises `DataError` or `ConfigError`.
    """

    def __init__(
        self,
        root: str | Path,
        label: str | Sequence[str] = "label",
        classes: Sequence[str] | str | Path | None = None,
        masks: str | None = None,
        mask_names: Any = None,
        **decoding: Any,
    ) -> None:
        self.root = Path(os.path.expanduser(root))
        folder = self.root if self.root.is_dir() else self.root.parent
        tars = sorted(self.root.rglob("*.tar")) if self.root.is_dir() else [self.root]
        if not tars:
            raise DataError(f"data: no tar file below {self.root}: their names end with .tar")
        below = [file.relative_to(folder).as_posix() for file in tars]
        made = manifest(folder, below)
        self.digest = made.digest
        found = [_index(file, digest) for file, digest in zip(tars, made.hashes, strict=True)]
        self.tars = [str(file) for file in tars]
        self.segments = segments_of(masks, mask_names)
        self.maps_from = None if masks is None else masks.lower().lstrip(".")
        every = [
            (n, *chosen, one.fields)
            for n, its in enumerate(found)
            for one in its
            if (chosen := one.chosen(self.maps_from))
        ]
        if not every:
            raise DataError(f"data: no image in the tar files of {self.root}: images end with {', '.join(KINDS)}")
        self.paths = [f"{self.tars[n]}/{image.name}" for n, image, *_ in every]
        self._images = _places((n, image) for n, image, *_ in every)
        self._maps = _places((n, image if its is None else its) for n, image, its, _ in every)
        lost = [path for path, (*_, its, _) in zip(self.paths, every, strict=True) if its is None]
        if masks and lost:
            raise DataError(
                f"data: {len(lost)} of {len(every)} images have no label map, the first is {lost[0]}: each sample has "
                f"a member whose name ends with .{self.maps_from} (data.masks)"
            )
        fields = [one[-1] for one in every]
        if isinstance(label, str) and not any(label in one for one in fields):
            label = CLASS
        labels, self.columns = tabulated(fields, label, f"the samples of {self.root}")
        several = None if isinstance(label, str) else [*label]
        self.classes, self.y = coded(labels, class_names(classes) or several)
        self.decoded = Decoding(**decoding)

    def image(self, index: int) -> Float[Tensor, "3 height width"]:
        """The image of a sample."""
        return self.decoded(self._read(self._images, index))

    def label_map(self, index: int) -> Integer[np.ndarray, "height width"]:
        """The label of each pixel of a sample."""
        name = f"{_split(self.paths[index])[0]}.{self.maps_from}"
        opened = self._read(self._maps, index), self._read(self._images, index)
        return self.decoded.labels(name, self.paths[index], opened)

    def _read(self, places: Int64[np.ndarray, "N 3"], index: int) -> io.BytesIO:
        """A member of a sample."""
        tar, at, size = places[index].tolist()
        with open(self.tars[tar], "rb") as file:
            file.seek(at)
            return io.BytesIO(file.read(size))


class Member(NamedTuple):
    """A member of a tar file: its name, where it begins and how long it is."""

    name: str
    at: int
    size: int


class Sample(NamedTuple):
    """The members of a sample that are images or arrays, and its fields."""

    members: list[Member]
    fields: dict[str, Any]

    def chosen(self, masks: str | None) -> tuple[Member, Member | None] | None:
        """The image and the label map, whose name ends with `masks`; None without an image.

        The image is the first one with a plain end, as .jpg, or the first one.
        """
        kinds = {member: _split(member.name)[1] for member in self.members}
        images = [one for one, kind in kinds.items() if kind != masks and f".{kind.rpartition('.')[2]}" in KINDS]
        if not images:
            return None
        plain = [one for one in images if "." not in kinds[one]]
        return (plain or images)[0], next((one for one, kind in kinds.items() if kind == masks), None)


def _places(members: Iterable[tuple[int, Member]]) -> Int64[np.ndarray, "N 3"]:
    """The number of the tar file, where it begins and how long it is, of each member."""
    return np.asarray([(n, one.at, one.size) for n, one in members], dtype=np.int64)


def _index(tar: Path, digest: str) -> list[Sample]:
    """The samples of a tar file, from the cache if it is there."""
    kept = files.cache() / "tars" / f"{digest}.json"
    with suppress(OSError, ValueError, TypeError):
        return [_sample(*one) for one in json.loads(files.read(kept))]
    try:
        with tarfile.open(tar, "r:") as opened:
            found = [*_samples(opened, tar)]
    except (OSError, tarfile.TarError) as error:
        raise DataError(
            f"data: {tar} cannot be read as a tar file that is not compressed ({error}): unpack it from .gz or .zst "
            "first, as a compressed file cannot be read by index"
        ) from error
    with files.Aside(kept).trying():
        files.folder(kept.parent)
        files.write(kept, json.dumps(found).encode())
    return found


def _sample(members: Any, fields: Any) -> Sample:
    """An entry of the cache. Raises TypeError if it is not what `_index` writes."""
    found = [Member(*one) for one in members]
    if type(fields) is not dict or any([*map(type, one)] != [str, int, int] for one in found):
        raise TypeError(f"an entry of {found} and {type(fields)}")
    return Sample(found, fields)


def _samples(opened: tarfile.TarFile, tar: Path) -> Iterator[Sample]:
    """The samples with their fields. Members of one sample lie together."""
    seen: set[str] = set()
    for key, group in groupby((one for one in opened if one.isreg()), lambda one: _split(one.name)[0]):
        if key in seen:
            raise DataError(f"data: {tar} has the sample {key} in two places: members of a sample lie together")
        seen.add(key)
        found = Sample([], {})
        for member in group:
            kind = _split(member.name)[1]
            if f".{kind.rpartition('.')[2]}" in (*KINDS, *ARRAYS):
                found.members.append(Member(member.name, member.offset_data, member.size))
            elif member.size <= LARGEST and kind in (CLASS, "json"):
                found.fields.update(_fields(opened, member, kind, tar))
        if found.members:
            yield found


def _split(name: str) -> tuple[str, str]:
    """The name of a member up to the first dot of its last part, and what follows."""
    path = PurePosixPath(name)
    stem, _, kind = path.name.partition(".")
    return str(path.with_name(stem or path.name)), kind.lower()


def _fields(opened: tarfile.TarFile, member: tarfile.TarInfo, kind: str, tar: Path) -> dict[str, Any]:
    """The label of a member `cls`, or the entries of a member `json` that are numbers or text."""
    reader = opened.extractfile(member)
    assert reader is not None, "it is a regular file"
    try:
        text = reader.read().decode()
        if kind == CLASS:
            word = text.strip()
            return {CLASS: int(word) if word.lstrip("-").isdigit() else word}
        return {key: value for key, value in dict(json.loads(text)).items() if isinstance(value, str | int | float)}
    except (ValueError, TypeError) as error:
        raise DataError(f"data: {tar}/{member.name} is no {kind} ({error})") from error
