"""The record of a shard: its small arrays in one object, with the digest of all that the shard wrote.

It is a chunk of an array of bytes, `shards/PHASE/record`: a frame of zstd that holds the arrays one after the other, as
the attribute `fields` of the array says, and then a skippable frame of the digest. Decoders pass over skippable frames
(RFC 8878, section 3.1.2), so that whoever reads Zarr reads records. An object is replaced as a whole: a record is there
with its digest, or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from igc_dist.planning import LARGE
from igc_dist.store.admission import MAX_CHUNK
from igc_dist.store.layout import DIGEST, Array, Phase

_SKIPPABLE = b"\x5f\x2a\x4d\x18" + DIGEST.to_bytes(4, "little")
TAIL = len(_SKIPPABLE) + DIGEST
"""Bytes of the frame of the digest."""


def packable(grid: tuple[int, ...], arrays: Mapping[str, Array]) -> tuple[str, ...]:
    """Names of the arrays that go into the records of a phase, sorted: those of which a shard writes one small chunk.

    A large one stays apart: to read one array of a record, all of it is decoded. So do attributions of samples: they
    are results, and are written by micro-batches.
    """
    most = LARGE
    while True:
        found = [
            name
            for name, array in sorted(arrays.items())
            if array.path.startswith("shards/") and single(grid, array) and array.chunk_bytes <= most
        ]
        if sum(arrays[name].chunk_bytes for name in found) <= MAX_CHUNK:
            return tuple(found)
        most //= 2


def single(grid: tuple[int, ...], array: Array) -> bool:
    """Whether each shard of a grid writes exactly one chunk of an array, and no other shard writes it."""
    cuts = [axis for axis in array.axes if axis is not None]
    numbers = [1 if axis is None else grid[axis] for axis in array.axes]
    return sorted(cuts) == [*range(len(grid))] and array.grid == tuple(numbers) and {*array.per} <= {1}


def fields(phase: Phase) -> dict[str, Any]:
    """What a reader of bytes needs to find the arrays of a record."""
    return {
        name: {"offset": place.start, "data_type": (array := phase.arrays[name]).dtype, "shape": array.chunks}
        for name, place in phase.places.items()
    }


def joined(frame: bytes, digest: bytes) -> bytes:
    """The object of a record."""
    return frame + _SKIPPABLE + digest


def parted(text: bytes) -> tuple[bytes, bytes] | None:
    """The frame and the digest of an object; None if it does not end as a record does."""
    if text[-TAIL:-DIGEST] != _SKIPPABLE:
        return None
    return text[:-TAIL], text[-DIGEST:]
