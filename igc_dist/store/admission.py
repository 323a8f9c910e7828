"""What may be read as a store: bounded documents, numbers and text in our own codecs, and names that stay inside.

Documents are bounded in size and depth. Anybody may have written a store: its seals show that nothing changed by
accident, not who wrote it. So sizes and shapes are checked before anything is allocated for them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from igc_dist.records import StoreError
from igc_dist.store.bound import Bound

MAX_DOCUMENT = 64 << 20
"""Bytes of a JSON document. 10,000 digests of chunks take 1 MB."""

MAX_CHUNK = 1 << 31
"""Bytes of a decoded chunk: what the codec takes at most."""

MAX_TEXT = 64 << 20
"""Bytes of a decoded chunk of text, and of an array of a partial store that is read in one piece."""

MAX_SHARDS, MAX_CHUNKS = 1 << 20, 10_000_000
"""Largest numbers of shards and chunks of a phase: their numbers are held in lists."""

MAX_ARRAYS = 10_000
"""Largest number of shard arrays: verifying a store builds the document of each one again, which takes milliseconds."""

MAX_KEY, MAX_NAME = 1024, 255
"""Bytes of an object's key, and of a part of it: the limits of object stores and file systems."""

TYPES = frozenset(
    ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")
)
CODECS = (("bytes",), ("bytes", "zstd"), ("vlen-utf8",), ("vlen-utf8", "zstd"))


NOWHERE = frozenset(("", ".", ".."))
"""Values that no part of a key may have."""


def check_key(key: str, path: Any) -> None:
    """Raise `StoreError` for an object's key that leads out of the store."""
    good = "\\" not in key and key.isprintable()  # an unpaired surrogate does not encode
    parts, size = (key.split("/"), len(key.encode())) if good else ([""], 0)
    long = size > MAX_NAME and (size > MAX_KEY or any(len(part.encode()) > MAX_NAME for part in parts))
    if long or not NOWHERE.isdisjoint(parts):
        raise StoreError(
            f"store {path}: {key[:200]!r} is no name of an object in it; the store is damaged or hostile, do not use it"
        )


def check_document(size: int, file: Any) -> None:
    """Raise `StoreError` for a document of more than `MAX_DOCUMENT` bytes, before it is read."""
    if size > MAX_DOCUMENT:
        raise StoreError(
            f"{file} has {size:,} bytes, a document of a store has at most {MAX_DOCUMENT:,}: it is not one of ours"
        )


def parsed(text: bytes) -> dict[str, Any]:
    """A JSON object without NaN and without duplicate keys. Raises `ValueError`, also if it is nested too deeply."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key is there twice")
        return found

    def never(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    try:
        document = json.loads(text, object_pairs_hook=once, parse_constant=never)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(document, dict):
        raise ValueError("it is not an object")
    return document


# -- the content of a root document -----------------------------------------------------------------------------------


def check_root(attributes: Mapping[str, Any], path: Any) -> None:
    """Raise `StoreError` unless layout, digests and budget have the types, sizes and names that a run writes."""
    try:
        _expect(isinstance(attributes["spec"], dict) and isinstance(attributes["spec_hash"], str), "spec")
        digests = attributes.get("digests", {})
        _expect(isinstance(digests, dict) and all(isinstance(value, str) for value in digests.values()), "digests")
        for key in digests:
            check_key(key, path)
        used = attributes.get("budget", {}).get("used", {})
        _expect(all(value is None or _whole(value) for value in used.values()), "budget")
        paths: list[list[str]] = []
        for phase in attributes["layout"]:
            _check_phase(phase)
            paths += [array["path"].split("/") for array in phase["arrays"].values()] + [
                ["shards", phase["name"], "digest"]
            ]
        _expect(len(paths) <= MAX_ARRAYS, f"{len(paths):,} arrays")
        _expect(
            not any(two[: len(one)] == one for one, two in pairwise(sorted(paths))),
            "an array at, or below, the place of another",
        )
    except StoreError:  # a ValueError too
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"{type(error).__name__} {error}"[:200]
        raise StoreError(
            f"store {path}: its root document zarr.json says what no run writes ({what}): do not use it"
        ) from error


def _check_phase(phase: Mapping[str, Any]) -> None:
    grid = phase["grid"]
    _expect(phase["name"].isidentifier() and len(grid) in (1, 2) and all(map(_whole, grid)), "grid of a phase")
    _expect(prod(grid) <= MAX_SHARDS, f"{prod(grid):,} shards")
    chunks = 0
    for name, array in phase["arrays"].items():
        _expect(array.keys() == {"path", "shape", "chunks", "dtype", "dims", "axes", "per"}, f"fields of {name}")
        shape, cuts, axes, per = (array[key] for key in ("shape", "chunks", "axes", "per"))
        _expect(_identifiers(name) and _identifiers(array["path"]), f"path {array['path']!r}")
        _expect(array["dtype"] in TYPES, f"type {array['dtype']!r}")
        _expect(len({*map(len, (shape, cuts, axes, per, array["dims"]))}) == 1, f"dimensions of {name}")
        _expect(all(isinstance(dim, str) for dim in array["dims"]), f"names of the dimensions of {name}")
        _expect(all(map(_whole, (*shape, *cuts, *per))) and 0 not in cuts and 0 not in per, f"shape of {name}")
        _expect(all(axis is None or (_whole(axis) and axis < len(grid)) for axis in axes), f"axes of {name}")
        _expect(prod(cuts) * np.dtype(array["dtype"]).itemsize <= MAX_CHUNK, f"chunks of {name}")
        # if no shard cuts an axis, the chunks of every shard have all of it
        again = prod(size for number, size in enumerate(grid) if number not in axes)
        chunks += prod(-(-size // cut) for size, cut in zip(shape, cuts, strict=True)) * again
    _expect(chunks <= MAX_CHUNKS, f"{chunks:,} chunks")


def _expect(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _identifiers(path: Any) -> bool:
    return isinstance(path, str) and all(part.isidentifier() for part in path.split("/"))


# -- the content of a store -------------------------------------------------------------------------------------------


def admit(path: Any, sizes: Mapping[str, int], read: Callable[[str], bytes]) -> dict[str, Bound]:
    """Check a store by the `sizes` of its objects and its documents, and return the largest decoded size of each array.

    `sizes` are by key; `read` returns a document. Raises `StoreError` with the name of the object for a document that
    is not JSON, for an array of another type or codec than a run writes, and for a shape that is much larger than the
    stored bytes.
    """
    metadata = _metadata(path, sizes, read)
    chunks: dict[str, int] = {}
    for key in sizes:
        array = key.partition("/c/")[0].removesuffix("/c")
        if array != key:
            chunks[array] = chunks.get(array, 0) + 1
    bounds = {}
    for name, document in metadata.items():
        file = f"{path}/{name}/zarr.json"
        try:
            if document["node_type"] == "array":
                bounds[name] = _bound(name, document, chunks.get(name, 0))
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            raise StoreError(
                f"{file} describes no array that a run writes ({type(error).__name__}: {error}): do not use it"
            ) from error
    for key, size in sizes.items():
        bound = bounds.get(key.partition("/c/")[0].removesuffix("/c")) if not key.endswith("zarr.json") else None
        if bound is not None and size > bound.size + bound.size // 64 + 1024:
            raise StoreError(
                f"{path}/{key} has {size:,} bytes, its array declares chunks of {bound.size:,}: do not use this store"
            )
    return bounds


def _metadata(path: Any, sizes: Mapping[str, int], load: Callable[[str], bytes]) -> dict[str, Any]:
    """The documents that zarr will read: the consolidated one of the root, or those of all groups and arrays."""

    def read(key: str) -> dict[str, Any]:
        try:
            return parsed(load(key))
        except ValueError as error:
            raise StoreError(f"{path}/{key} is no document of a store: {error}") from error

    inside = (read("zarr.json") if "zarr.json" in sizes else {}).get("consolidated_metadata")
    if isinstance(inside, dict) and isinstance(inside.get("metadata"), dict):
        for name in inside["metadata"]:
            check_key(name, path)
        return inside["metadata"]
    return {key.removesuffix("/zarr.json"): read(key) for key in sizes if key.endswith("/zarr.json")}


def _bound(name: str, document: Mapping[str, Any], stored: int) -> Bound:
    shape, cut = document["shape"], document["chunk_grid"]["configuration"]["chunk_shape"]
    kind, codecs = document["data_type"], tuple(codec["name"] for codec in document["codecs"])
    _expect(_identifiers(name), f"name {name[:200]!r}")
    _expect(
        all(map(_whole, (*shape, *cut))) and 0 not in cut and len(shape) == len(cut), f"shape {shape}, chunks {cut}"
    )
    _expect(kind == "string" or kind in TYPES, f"type {str(kind)[:200]!r}")
    _expect(codecs in CODECS and (kind == "string") == (codecs[0] == "vlen-utf8"), f"codecs {codecs}")
    _expect(not document.get("storage_transformers"), "storage transformers")
    _expect(
        document["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "/"}}, "keys of chunks"
    )
    itemsize = 8 if kind == "string" else np.dtype(kind).itemsize
    _expect(prod(cut) * itemsize <= MAX_CHUNK, f"chunks of {prod(cut) * itemsize:,} bytes, at most {MAX_CHUNK:,}")
    # a run writes every chunk except those of shards that it did not reach; reading would fill in missing chunks
    n_chunks = prod(-(-size // part) for size, part in zip(shape, cut, strict=True))
    at_once = len(shape) <= 1
    if not name.startswith(("shards/", "samples/")) or at_once:
        _expect(
            n_chunks <= stored or prod(shape) * itemsize <= MAX_TEXT,
            f"shape {shape} in {n_chunks:,} chunks, {stored:,} are there",
        )
    _expect(n_chunks <= MAX_CHUNKS, f"{n_chunks:,} chunks")
    packed = "zstd" in codecs
    return Bound(MAX_TEXT, max(prod(cut), 1), packed) if kind == "string" else Bound(prod(cut) * itemsize, 0, packed)
