"""The Zarr arrays of a store: the text of their documents, and the bytes of their chunks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numcodecs.vlen import VLenUTF8
from numcodecs.zstd import Zstd
from zarr.dtype import parse_dtype

from igc_dist.store.bound import Bound
from igc_dist.store.layout import Array, Phase
from igc_dist.store.record import fields

if TYPE_CHECKING:
    from igc_dist.store.objects import Objects

LEVEL = 1
CODEC = Zstd(level=LEVEL, checksum=True)
STRINGS = VLenUTF8()
GROUP = json.dumps({"attributes": {}, "zarr_format": 3, "node_type": "group"}, indent=2).encode()
"""The document of a group without attributes."""


@lru_cache(4096)
def document_of(array: Array, plain: bool = False) -> bytes:
    """The document of an array.

    The text is zarr's, byte by byte. zarr itself takes 5 ms for it, which is a third of a small run.
    """
    return json.dumps(described(array, plain), indent=2).encode()


def described(array: Array, plain: bool = False) -> dict[str, Any]:
    """An array for zarr: checksummed codec (none if `plain`), NaN fill."""
    text, kind = array.dtype == "string", parse_dtype(array.dtype, zarr_format=3)
    bytewise = {"configuration": {"endian": "little"}} if not text and np.dtype(array.dtype).itemsize > 1 else {}
    codecs: list[dict[str, Any]] = [
        {"name": "vlen-utf8", "configuration": {}} if text else {"name": "bytes", **bytewise}
    ]
    if not plain:
        codecs.append({"name": "zstd", "configuration": {"level": LEVEL, "checksum": True}})
    grid = {"name": "regular", "configuration": {"chunk_shape": array.chunks}}
    return {
        "shape": array.shape, "data_type": kind.to_json(zarr_format=3), "chunk_grid": grid,
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": array.separator}},
        "fill_value": kind.to_json_scalar(fill_of(array), zarr_format=3), "codecs": codecs, "attributes": {},
        **({"dimension_names": array.dims} if array.dims else {}),
        "zarr_format": 3, "node_type": "array", "storage_transformers": [],
    }  # fmt: skip


def fill_of(array: Array) -> Any:
    """What an element holds that nobody has written."""
    if array.dtype == "string":
        return ""
    kind = np.dtype(array.dtype)
    return np.asarray(np.nan if kind.kind == "f" else 0).astype(kind)[()]


def groups_of(path: str) -> list[str]:
    """Keys of the documents of the groups above an array."""
    parts = path.split("/")[:-1]
    return ["/".join([*parts[:at], "zarr.json"]) for at in range(1, len(parts) + 1)]


def documents_of(phases: Iterable[Phase]) -> dict[str, bytes]:
    """The documents of the shard arrays by key. Their text follows from the layout."""
    found: dict[str, bytes] = {}
    for phase in phases:
        for array in phase.every:
            found |= dict.fromkeys(groups_of(array.path), GROUP)
            found[f"{array.path}/zarr.json"] = document_of(array, plain=array is phase.mark)
        if phase.packed:
            document = {**described(phase.mark), "attributes": {"fields": fields(phase)}}
            found[f"{phase.mark.path}/zarr.json"] = json.dumps(document, indent=2).encode()
    found.pop("shards/zarr.json", None)  # it has attributes
    return found


def encoded(array: Array, values: np.ndarray) -> bytes:
    """The bytes of a chunk.

    They are the same as zarr's, but zarr's event loop and threads take 2 ms per chunk.
    """
    if array.dtype == "string":
        return CODEC.encode(STRINGS.encode(np.asarray(values, dtype=object)))
    return CODEC.encode(whole(array, values))


def whole(array: Array, values: np.ndarray) -> np.ndarray:
    """A chunk of numbers in C order. The last chunk is stored whole, so it is filled up with zeros."""
    chunk = np.asarray(values, dtype=array.dtype)
    if chunk.shape != array.chunks:
        chunk = np.pad(chunk, [(0, size - have) for size, have in zip(array.chunks, chunk.shape, strict=True)])
    return np.ascontiguousarray(chunk)


def chunks_of(array: Array, values: np.ndarray, start: tuple[int, ...] = ()) -> Iterator[tuple[str, bytes]]:
    """Key and bytes of each chunk of a region, which begins at element `start` and holds whole chunks.

    The last chunk of an axis is filled up as zarr does it. Raises `ValueError` for a region that cuts a chunk.
    """
    first = (*start, *(0,) * (values.ndim - len(start)))
    axes = list(zip(array.shape, array.chunks, first, values.shape, strict=True))
    if any(begin % chunk or ((begin + n) % chunk and begin + n != size) for size, chunk, begin, n in axes):
        raise ValueError(f"{array.path}: a region of {values.shape} from {first} cuts chunks of {array.chunks}")
    whole = [(0, -n % chunk) for _, chunk, _, n in axes]
    if any(more for _, more in whole):
        values = np.pad(values, whole, constant_values=fill_of(array))
    for at in product(*(range(n // chunk) for n, chunk in zip(values.shape, array.chunks, strict=True))):
        inside: Any = [slice(i * chunk, (i + 1) * chunk) for i, chunk in zip(at, array.chunks, strict=True)]
        where = (begin // chunk + i for (_, chunk, begin, _), i in zip(axes, at, strict=True))
        yield array.key(where), encoded(array, values[(*inside, ...)])


def stored(objects: Objects, array: Array, key: str) -> np.ndarray | None:
    """A whole chunk of an array of numbers, read-only; None if it is not there.

    Raises `StoreError` for one that is damaged.
    """
    bound = Bound.of(array)
    chunk = objects.get(key, bound.most)
    if chunk is None:
        return None
    return np.frombuffer(bound.decoded(chunk, f"{objects.path}/{key}"), dtype=array.dtype).reshape(array.chunks)
