"""The shards of a store: each chunk has one writer; the digest, written last, says that a shard is done."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from igc_dist.faults import fault
from igc_dist.planning import KEPT
from igc_dist.records import StoreError
from igc_dist.store.address import objects_at
from igc_dist.store.arrays import CODEC, encoded, fill_of, stored, whole
from igc_dist.store.bound import Bound
from igc_dist.store.guarded import opened
from igc_dist.store.layout import DIGEST, Phase
from igc_dist.store.record import joined, parted


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
        self._waiting: dict[tuple[str, int], dict[str, bytes]] = {}
        """Packed arrays of the shards that are not committed, by name."""
        self._decoded: dict[str, np.ndarray] = {}
        """Decoded records by their key: to read an array takes all of its record, and others are read next."""

    def array(self, path: str) -> zarr.Array[Any]:
        """An array of the store, to read."""
        if path not in self._arrays:
            self._arrays[path] = opened(self.objects, path)
        return self._arrays[path]

    def write(
        self, phase: str, number: int, name: str, values: np.ndarray, start: tuple[int, ...] | None = None
    ) -> None:
        """Write the chunk of an array that a shard owns; if it owns several, the one that begins at element `start`.

        Packed arrays are kept until the shard is committed.
        """
        family = self.phases[phase]
        array = family.arrays[name]
        if name in family.packed:
            self._waiting.setdefault((phase, number), {})[name] = whole(array, values).tobytes()
            return
        first = start or tuple(cut.start for cut in array.region(family.cell(number)))
        at = [
            *(begin // size for begin, size in zip(first, array.chunks, strict=False)),
            *(0,) * (len(array.chunks) - len(first)),
        ]
        chunk = encoded(array, values)
        with self.objects.explained():
            self.objects.set(array.key(at), chunk)

    def commit(self, phase: str, number: int) -> None:
        """Declare a shard done: write its digest, over the bytes as stored, in the last object."""
        fault("arrays")
        self.guard()
        family, waiting = self.phases[phase], self._waiting.pop((phase, number), {})
        frame, key = None, family.digest_key(number)
        if family.packed:
            if lacking := [name for name in family.packed if name not in waiting]:
                raise StoreError(f"store {self.path}: {phase} shard {number} has no {', '.join(lacking)}")
            record = b"".join(waiting[name] for name in family.packed)
            frame = CODEC.encode(record)
        digest = self._digest(family, number, frame, self.objects.map)
        if digest is None:
            raise StoreError(f"store {self.path}: an array of {phase} shard {number} has vanished since it was written")
        fault("digest")
        with self.objects.explained():
            self.objects.set(key, digest if frame is None else joined(frame, digest))
        if frame is not None:
            self._keep(key, np.frombuffer(record, np.uint8))

    def _digest(
        self, family: Phase, number: int, frame: bytes | None, each: Callable[..., Iterable[Any]] = map
    ) -> bytes | None:
        """The digest of a shard's objects and of the `frame` of its record; None if an object is missing."""
        digest, keys = hashlib.sha256(), family.keys(number)
        for key, found in zip(keys, each(self.objects.pieces, keys), strict=True):
            if found is None:
                return None
            size, pieces = found
            digest.update(f"{key} {size} ".encode())
            for piece in pieces:
                digest.update(piece)
        if frame is not None:
            digest.update(f"{family.digest_key(number)} {len(frame)} ".encode())
            digest.update(frame)
        return digest.digest()

    def is_done(self, phase: str, number: int) -> bool:
        """Whether a shard's digest exists and matches its bytes."""
        family = self.phases[phase]
        found = self.objects.pieces(family.digest_key(number))
        if found is None or (not family.packed and found[0] != DIGEST):
            return False
        text = b"".join(map(bytes, found[1]))
        if not family.packed:
            return text == self._digest(family, number, None)
        parts = parted(text)
        return parts is not None and parts[1] == self._digest(family, number, parts[0])

    def damage(self, family: Phase, number: int) -> list[str]:
        """What is wrong with a shard, a line each."""
        if self.is_done(family.name, number):
            return []
        its = (*family.keys(number), family.digest_key(number))
        missing = [key for key in its if self.objects.pieces(key) is None]
        if missing:
            return [f"{key}: missing ({family.name} shard {number})" for key in missing]
        return [f"{family.name} shard {number}: changed ({' or '.join(its)} does not match its digest)"]

    def _sum(self, key: str) -> str | None:
        found, digest = self.objects.pieces(key), hashlib.sha256()
        for piece in found[1] if found else ():
            digest.update(piece)
        return digest.hexdigest() if found else None

    def pending(self, phase: str, upto: int | None = None) -> list[int]:
        """Numbers of the shards that are not done; with `upto`, only of the first parts of the grid."""
        family = self.phases[phase]
        there = {*self.objects.below(family.mark.path)}  # a listing takes less than to look for each one
        some = [number for number in family.numbers(upto) if family.digest_key(number) in there]
        done = self.objects.map(lambda number: self.is_done(phase, number), some)
        found = {number for number, its in zip(some, done, strict=True) if its}
        return [number for number in family.numbers(upto) if number not in found]

    def read(self, phase: str, name: str, region: tuple[slice, ...] | None = None) -> np.ndarray:
        """An array of a phase, or a region of it; NaN, or 0, where a shard is not done."""
        family = self.phases[phase]
        array = family.arrays[name]
        some = (*(region or ()), *[slice(None)] * len(array.shape))
        cuts = [slice(*cut.indices(size)) for cut, size in zip(some, array.shape, strict=False)]
        found = np.full([cut.stop - cut.start for cut in cuts], fill_of(array), array.dtype)
        grid = [range(cut.start // n, -(-cut.stop // n)) for cut, n in zip(cuts, array.chunks, strict=True)]
        cells = [*product(*grid)]
        for cell, chunk in zip(cells, self.objects.map(partial(self._chunk, family, name), cells), strict=True):
            if chunk is not None:
                here, there = zip(*map(_overlap, cuts, cell, array.chunks), strict=True)
                found[here] = chunk[there]
        return found

    def read_own(self, phase: str, number: int, name: str) -> np.ndarray:
        """The one chunk of an array that a shard wrote: what a rank reads of its own."""
        family = self.phases[phase]
        if name in family.packed:
            return self.read_tables(phase, number, (name,))[0]
        array, cell = family.arrays[name], family.cell(number)
        (key,), inside = array.keys(cell), tuple(slice(cut.stop - cut.start) for cut in array.region(cell))
        if (chunk := stored(self.objects, array, key)) is None:
            raise StoreError(f"{self.path}/{key} is missing, see igc-dist verify")
        return chunk[inside].copy()  # a copy, as a buffer is read-only

    def read_tables(self, phase: str, number: int, names: Sequence[str]) -> list[np.ndarray]:
        """Several arrays as `read_own` gives them: a record is looked for once."""
        family = self.phases[phase]
        if not {*names} <= {*family.packed}:
            return [self.read_own(phase, number, name) for name in names]
        cell, found = family.cell(number), self._record(family, number)
        if found is None:
            raise StoreError(f"{self.path}/{family.digest_key(number)} is missing, see igc-dist verify")
        made = []
        for name in names:
            array = family.arrays[name]
            chunk = found[family.places[name]].view(array.dtype).reshape(array.chunks)
            made.append(chunk[array.inside(cell)].copy())  # a copy, as a buffer is read-only
        return made

    def _chunk(self, family: Phase, name: str, at: tuple[int, ...]) -> np.ndarray | None:
        """A whole chunk of an array by its place in the grid of chunks, read-only; None if it is not there."""
        if name in family.packed:
            return self._packed(family, name, family.number(name, at))
        array = family.arrays[name]
        return stored(self.objects, array, array.key(at))

    def _packed(self, family: Phase, name: str, number: int) -> np.ndarray | None:
        """The chunk of a packed array of a shard, read-only; None if the shard has no record."""
        record, array = self._record(family, number), family.arrays[name]
        return None if record is None else record[family.places[name]].view(array.dtype).reshape(array.chunks)

    def _record(self, family: Phase, number: int) -> np.ndarray | None:
        """The decoded record of a shard, read-only; None if there is none."""
        key = family.digest_key(number)
        if (record := self._decoded.get(key)) is None and (found := stored(self.objects, family.mark, key)) is not None:
            record = self._keep(key, found.ravel())
        return record

    def _keep(self, key: str, record: np.ndarray) -> np.ndarray:
        """Keep a decoded record, and forget the others if that is too much."""
        if (len(self._decoded) + 1) * record.nbytes > KEPT:  # those of a phase have one size, and are read in turn
            self._decoded.clear()
        self._decoded[key] = record
        return record

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
        self.forget()
        for key, value in objects.items():
            self.objects.set(key, value)

    def forget(self) -> None:
        """Keep nothing of what was read: another rank replaces it."""
        self._decoded.clear()

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
