"""The files of a data set: their paths, sizes and SHA-256. Their order is that of the samples."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from igc_dist import files
from igc_dist.records import DataError

THREADS = 8
"""Files that are hashed at a time: SHA-256 leaves Python's lock, and a disk on the network waits."""


@dataclass(frozen=True)
class Manifest:
    """`paths` below `root`, with the size in bytes and the SHA-256 of each."""

    root: Path
    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    hashes: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all lines ``path, size, SHA-256``. It is part of the identity of a run."""
        lines = [*zip(self.paths, self.sizes, self.hashes, strict=True)]
        return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def manifest(root: Path, paths: Sequence[str]) -> Manifest:
    """The manifest of the files at `paths` below `root`.

    Hashes are remembered in ``$XDG_CACHE_HOME/igc-dist/manifests`` (by default below ``~/.cache``): a file whose size
    and time of change are the same is not read again. Raises `DataError` for a file that is not there.
    """
    kept = files.cache() / "manifests" / f"{hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:16]}.json"
    known = _known(kept)

    def entry(path: str) -> list[Any]:
        try:
            state = (root / path).stat()
            at = [state.st_size, state.st_mtime_ns]
            if (before := known.get(path)) and before[:2] == at:
                return before
            with open(root / path, "rb") as file:
                return [*at, hashlib.file_digest(file, "sha256").hexdigest()]
        except OSError as error:
            raise DataError(f"{root / path} cannot be read: {error.strerror}") from error

    with ThreadPoolExecutor(THREADS) as threads:
        found = dict(zip(paths, threads.map(entry, paths), strict=True))
    if any(known.get(path) != made for path, made in found.items()):
        with files.Aside(kept).trying():
            files.folder(kept.parent)
            files.write(kept, json.dumps({**known, **found}).encode())
    sizes, hashes = tuple(made[0] for made in found.values()), tuple(made[2] for made in found.values())
    return Manifest(root, tuple(paths), sizes, hashes)


def _known(kept: Path) -> dict[str, list[Any]]:
    """What is remembered; nothing if it is not what `manifest` writes."""
    with suppress(OSError, ValueError, AttributeError, TypeError):
        said = json.loads(files.read(kept))
        return {path: entry for path, entry in said.items() if [*map(type, entry)] == [int, int, str]}
    return {}
