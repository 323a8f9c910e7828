"""Images in tar files, as WebDataset writes them, addressed by index."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from igc_dist import files
from igc_dist.data.decoding import Decoding
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
    are columns. `classes`, `decoding`: see `ImageFolder`.

    Nothing is unpacked: an index of where members begin is built once for each tar file, and kept in the cache under
    the file's SHA-256. Compressed tar files cannot be read by index. Raises `DataError` or `ConfigError`.
    """

    def __init__(
        self,
        root: str | Path,
        label: str | Sequence[str] = "label",
        classes: Sequence[str] | str | Path | None = None,
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
        every = [(n, *one) for n, members in enumerate(found) for one in members]
        if not every:
            raise DataError(f"data: no image in the tar files of {self.root}: images end with {', '.join(KINDS)}")
        self.paths = [f"{self.tars[n]}/{name}" for n, name, *_ in every]
        self._places = np.asarray([(n, at, size) for n, _, at, size, _ in every], dtype=np.int64)
        fields = [one[-1] for one in every]
        if isinstance(label, str) and not any(label in one for one in fields):
            label = CLASS
        labels, self.columns = tabulated(fields, label, f"the samples of {self.root}")
        several = None if isinstance(label, str) else [*label]
        self.classes, self.y = coded(labels, class_names(classes) or several)
        self.decoded = Decoding(**decoding)

    def image(self, index: int) -> Float[Tensor, "3 height width"]:
        """The image of a sample."""
        tar, at, size = self._places[index].tolist()
        with open(self.tars[tar], "rb") as file:
            file.seek(at)
            return self.decoded(io.BytesIO(file.read(size)))


Member = tuple[str, int, int, dict[str, Any]]
"""The name of an image, where it begins, how long it is, and the fields of its sample."""


def _index(tar: Path, digest: str) -> list[Member]:
    """The images of a tar file, from the cache if it is there."""
    kept = files.cache() / "tars" / f"{digest}.json"
    with suppress(OSError, ValueError, TypeError):
        return [_member(*one) for one in json.loads(files.read(kept))]
    try:
        with tarfile.open(tar, "r:") as opened:
            found = [*_members(opened, tar)]
    except (OSError, tarfile.TarError) as error:
        raise DataError(
            f"data: {tar} cannot be read as a tar file that is not compressed ({error}): unpack it from .gz or .zst "
            "first, as a compressed file cannot be read by index"
        ) from error
    with files.Aside(kept).trying():
        files.folder(kept.parent)
        files.write(kept, json.dumps(found).encode())
    return found


def _member(name: Any, at: Any, size: Any, fields: Any) -> Member:
    """An entry of the cache. Raises TypeError if it is not what `_index` writes."""
    if [*map(type, (name, at, size, fields))] != [str, int, int, dict]:
        raise TypeError(f"an entry of {[*map(type, (name, at, size, fields))]}")
    return name, at, size, fields


def _members(opened: tarfile.TarFile, tar: Path) -> Iterator[Member]:
    """The images with their fields. Members of one sample lie together."""
    seen: set[str] = set()
    for key, group in groupby((one for one in opened if one.isreg()), lambda one: _split(one.name)[0]):
        if key in seen:
            raise DataError(f"data: {tar} has the sample {key} in two places: members of a sample lie together")
        seen.add(key)
        image: tarfile.TarInfo | None = None
        fields: dict[str, Any] = {}
        for member in group:
            kind = _split(member.name)[1]
            if f".{kind.rpartition('.')[2]}" in KINDS:
                image = image or member
            elif member.size <= LARGEST and kind in (CLASS, "json"):
                fields |= _fields(opened, member, kind, tar)
        if image is not None:
            yield image.name, image.offset_data, image.size, fields


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
