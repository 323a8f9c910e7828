"""The Zarr arrays of a store: how an array is created, and how the bytes of one of its chunks are made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import zarr
from numcodecs.zstd import Zstd
from zarr.codecs import ZstdCodec

from igc_dist.store.layout import Array, Phase
from igc_dist.store.objects import InMemory, Objects

LEVEL = 1
CODEC = Zstd(level=LEVEL, checksum=True)


def create(root: zarr.Group, array: Array, overwrite: bool = False, plain: bool = False) -> None:
    """Create an array: checksummed codec (none if `plain`), empty chunks written, NaN fill."""
    kind = np.dtype(array.dtype) if array.dtype != "string" else None
    root.create_array(
        array.path,
        shape=array.shape,
        chunks=array.chunks or "auto",
        dtype="string" if kind is None else kind,
        dimension_names=array.dims,
        compressors=None if plain else [ZstdCodec(level=LEVEL, checksum=True)],
        fill_value="" if kind is None else (np.nan if kind.kind == "f" else 0),
        config={"write_empty_chunks": True},
        overwrite=overwrite,
    )


def opened(objects: Objects, path: str) -> zarr.Array[Any]:
    """An existing array, to read and to write."""
    array = zarr.open_array(objects.zarr, path=path, mode="r+", zarr_format=3)
    return array.with_config({"write_empty_chunks": True}) if hasattr(array, "with_config") else array


def documents_of(phases: Iterable[Phase]) -> dict[str, bytes]:
    """The documents of the shard arrays by key. Their text follows from the layout."""
    scratch = InMemory()
    root = zarr.create_group(scratch.zarr, zarr_format=3)
    root.require_group("shards")
    for phase in phases:
        for array in phase.arrays.values():
            create(root, array)
        create(root, phase.digest, plain=True)
    return {key: scratch.get(key) or b"" for key in scratch.names() if key not in ("zarr.json", "shards/zarr.json")}


def encoded(array: Array, values: np.ndarray) -> bytes:
    """The bytes of a chunk. The last chunk is stored whole, so it is filled up with zeros.

    The bytes are the same as zarr's, but zarr's event loop and threads take 2 ms per chunk.
    """
    chunk = np.asarray(values, dtype=array.dtype)
    if chunk.shape != array.chunks:
        chunk = np.pad(chunk, [(0, size - have) for size, have in zip(array.chunks, chunk.shape, strict=True)])
    return CODEC.encode(np.ascontiguousarray(chunk))


def decoded(array: Array, chunk: bytes | None) -> np.ndarray:
    """The whole chunk that these bytes hold, read-only."""
    return np.frombuffer(CODEC.decode(chunk), dtype=array.dtype).reshape(array.chunks)
