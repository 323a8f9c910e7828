"""The shards of a store: each chunk has one writer; the digest, written last, says that a shard is done."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from igc_dist.faults import fault
from igc_dist.records import StoreError
from igc_dist.store.address import objects_at
from igc_dist.store.arrays import encoded, fill_of, stored
from igc_dist.store.bound import Bound
from igc_dist.store.guarded import opened
from igc_dist.store.layout import DIGEST, Phase


def _overlap(cut: slice, at: int, size: int) -> tuple[slice, slice]:
    """What a chunk holds of a cut along one dimension: in the cut, and in the chunk."""
    start, stop = max(cut.start, at * size), min(cut.stop, (at + 1) * size)
    return slice(start - cut.start, stop - cut.start), slice(start - at * size, stop - at * size)


class Shards:
    """The part of a store that all ranks read and write: the shards of its phases."""

    def __init__(self, path: str | Path | None, phases: Iterable[Phase]) -> None:
        self.path, self.objects = path, objects_at(path)
        self.phases = {phase.name: phase for phase in phases}
        self.guard: Callable[[], None] = lambda: None
        """Raises if this run has lost the right to write (`igc_dist.store.lock`)."""
        self._arrays: dict[str, zarr.Array[Any]] = {}

    def array(self, path: str) -> zarr.Array[Any]:
        """An array of the store, to read."""
        if path not in self._arrays:
            self._arrays[path] = opened(self.objects, path)
        return self._arrays[path]

    def write(
        self, phase: str, number: int, name: str, values: np.ndarray, start: tuple[int, ...] | None = None
    ) -> None:
        """Write the chunk of an array that a shard owns; if it owns several, the one that begins at element `start`."""
        family = self.phases[phase]
        array = family.arrays[name]
        first = start or tuple(cut.start for cut in array.region(family.cell(number)))
        at = [
            *(begin // size for begin, size in zip(first, array.chunks, strict=False)),
            *(0,) * (len(array.chunks) - len(first)),
        ]
        chunk = encoded(array, values)
        with self.objects.explained():
            self.objects.set(array.key(at), chunk)

    def commit(self, phase: str, number: int) -> None:
        """Declare a shard done: write its digest, over the bytes as stored, as the last object."""
        fault("arrays")
        self.guard()
        family = self.phases[phase]
        digest = self._digest(family, number, self.objects.map)
        if digest is None:
            raise StoreError(f"store {self.path}: an array of {phase} shard {number} has vanished since it was written")
        fault("digest")
        with self.objects.explained():
            self.objects.set(family.digest_key(number), digest)

    def _digest(self, family: Phase, number: int, each: Callable[..., Iterable[Any]] = map) -> bytes | None:
        digest, keys = hashlib.sha256(), family.keys(number)
        for key, found in zip(keys, each(self.objects.pieces, keys), strict=True):
            if found is None:
                return None
            size, pieces = found
            digest.update(f"{key} {size} ".encode())
            for piece in pieces:
                digest.update(piece)
        return digest.digest()

    def is_done(self, phase: str, number: int) -> bool:
        """Whether a shard's digest exists and matches its bytes."""
        family = self.phases[phase]
        found = self.objects.pieces(family.digest_key(number))
        if found is None or found[0] != DIGEST:
            return False
        return b"".join(map(bytes, found[1])) == self._digest(family, number)

    def pending(self, phase: str, upto: int | None = None) -> list[int]:
        """Numbers of the shards that are not done; with `upto`, only of the first parts of the grid."""
        numbers = self.phases[phase].numbers(upto)
        done = self.objects.map(lambda number: self.is_done(phase, number), numbers)
        return [number for number, its in zip(numbers, done, strict=True) if not its]

    def read(self, phase: str, name: str, region: tuple[slice, ...] | None = None) -> np.ndarray:
        """An array of a phase, or a region of it; NaN, or 0, where a shard is not done."""
        array = self.phases[phase].arrays[name]
        some = (*(region or ()), *[slice(None)] * len(array.shape))
        cuts = [slice(*cut.indices(size)) for cut, size in zip(some, array.shape, strict=False)]
        found = np.full([cut.stop - cut.start for cut in cuts], fill_of(array), array.dtype)
        grid = [range(cut.start // n, -(-cut.stop // n)) for cut, n in zip(cuts, array.chunks, strict=True)]
        cells = [*product(*grid)]
        keys = [array.key(cell) for cell in cells]
        for cell, chunk in zip(cells, self.objects.map(partial(stored, self.objects, array), keys), strict=True):
            if chunk is not None:
                here, there = zip(*map(_overlap, cuts, cell, array.chunks), strict=True)
                found[here] = chunk[there]
        return found

    def read_own(self, phase: str, number: int, name: str) -> np.ndarray:
        """The one chunk of an array that a shard wrote: what a rank reads of its own."""
        family = self.phases[phase]
        array = family.arrays[name]
        (key,) = array.keys(family.cell(number))
        inside = tuple(slice(cut.stop - cut.start) for cut in array.region(family.cell(number)))
        chunk = stored(self.objects, array, key)
        if chunk is None:
            raise StoreError(f"{self.path}/{key} is missing, see igc-dist verify")
        return chunk[inside].copy()  # a copy, as a buffer is read-only

    def objects_of(self, phase: str, numbers: Iterable[int]) -> dict[str, bytes]:
        """The objects of some shards, to send to another rank's memory."""
        family = self.phases[phase]
        return {
            key: self.objects.get(key, Bound.of(array).most) or b""
            for number in numbers
            for array in family.every
            for key in array.keys(family.cell(number))
        }

    def absorb(self, objects: Mapping[str, bytes]) -> None:
        """Add the objects of another rank's memory."""
        for key, value in objects.items():
            self.objects.set(key, value)

    def _chunks(self) -> set[str]:
        """Folders of chunks that shards wrote before schema 5: tens of thousands, each in a folder or folders of its
        own."""
        return {f"{array.path}/c" for family in self.phases.values() for array in family.every}

    def _owned(self) -> set[str]:
        """Keys whose bytes a shard's digest covers."""
        return {
            key
            for f in self.phases.values()
            for number in range(len(f))
            for key in (*f.keys(number), f.digest_key(number))
        }
