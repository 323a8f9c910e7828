"""Documents that zarr parses: made anew, field by field, from what a store says. Nothing else of it reaches zarr.

Only arrays as a run writes them are taken over, and the groups that hold them: Zarr format 3, our types, our codecs,
our chunk keys; no attributes, no fill values, no consolidated metadata below the root.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from igc_dist.records import StoreError
from igc_dist.store.admission import MAX_ARRAYS, MAX_CHUNK, MAX_CHUNKS, SEPARATORS, TYPES, expect, identifiers, whole
from igc_dist.store.arrays import described
from igc_dist.store.bound import Bound
from igc_dist.store.layout import Array

MAX_GROUPS = 1000
"""Largest number of groups that hold arrays: xarray opens each one, which takes milliseconds."""

DEPTH = 8
"""Largest number of parts of an array's path."""

CODECS = (("bytes",), ("bytes", "zstd"), ("vlen-utf8",), ("vlen-utf8", "zstd"))
GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {}}


def rebuilt(name: str, document: Any, place: str) -> tuple[Array, Bound] | None:
    """The array that a document describes, and the bound of its chunks; None for a group.

    Raises `StoreError` for what no run writes, with the `place` of the document.
    """
    try:
        expect(identifiers(name) and name.count("/") < DEPTH, f"name {str(name)[:200]!r}")
        expect(whole(document["zarr_format"]) and document["zarr_format"] == 3, "another format of Zarr")
        expect(document["node_type"] in ("array", "group"), f"node {str(document['node_type'])[:200]!r}")
        return _array(name, document) if document["node_type"] == "array" else None
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, OverflowError) as error:
        what = f"{type(error).__name__}: {error}"[:300]
        raise StoreError(f"{place} describes nothing that a run writes ({what}): do not use it") from error


def _array(path: str, document: Mapping[str, Any]) -> tuple[Array, Bound]:
    shape, cut = document["shape"], document["chunk_grid"]["configuration"]["chunk_shape"]
    kind, dims = document["data_type"], document.get("dimension_names", [])
    names = tuple(codec["name"] for codec in document["codecs"])
    order = document["codecs"][0].get("configuration", {}).get("endian", "little")
    expect(document["chunk_grid"]["name"] == "regular", "grid of chunks")
    for numbers in (shape, cut):
        expect(isinstance(numbers, list) and len(numbers) <= 32 and all(map(whole, numbers)), f"shape {numbers}")
    expect(0 not in cut and len(shape) == len(cut), f"shape {shape}, chunks {cut}")
    expect(isinstance(dims, list) and len(dims) == len(shape) and all(map(identifiers, dims)), "names of dimensions")
    expect(isinstance(kind, str) and (kind == "string" or kind in TYPES), f"type {str(kind)[:200]!r}")
    expect(names in CODECS and (kind == "string") == (names[0] == "vlen-utf8"), f"codecs {names}")
    expect(order == "little", f"order of bytes {str(order)[:200]!r}")
    expect(not document.get("storage_transformers"), "storage transformers")
    separator = document["chunk_key_encoding"]["configuration"]["separator"]
    keys = {"name": "default", "configuration": {"separator": separator}}
    expect(document["chunk_key_encoding"] == keys and separator in SEPARATORS, "keys of chunks")
    expect(prod(-(-size // part) for size, part in zip(shape, cut, strict=True)) <= MAX_CHUNKS, "that many chunks")
    itemsize = 8 if kind == "string" else np.dtype(kind).itemsize
    expect(prod(cut) * itemsize <= MAX_CHUNK, f"chunks of {prod(cut) * itemsize:,} bytes, at most {MAX_CHUNK:,}")
    array = Array(path, tuple(shape), tuple(cut), kind, tuple(dims), separator=separator)
    return array, Bound.of(array, packed="zstd" in names)


def tree_of(arrays: Mapping[str, Array], path: Any) -> dict[str, Any]:
    """The document of a root with these arrays, and with the groups that hold them. Raises `StoreError` for too many.

    A group without an array is left out: there is nothing to read in it. The arrays declare no compression, as their
    chunks are handed on decoded.
    """
    groups = {name.rpartition("/")[0] for name in arrays} - {""}
    for name in [*groups]:
        while name := name.rpartition("/")[0]:
            groups.add(name)
    for what, n, most in (("arrays", len(arrays), MAX_ARRAYS), ("groups", len(groups), MAX_GROUPS)):
        if n > most:
            raise StoreError(f"store {path} has {n:,} {what}, a run writes at most {most:,}: do not use it")
    if twice := groups & {*arrays}:
        raise StoreError(
            f"store {path}: {min(twice)} is an array and holds another one: no run wrote it, do not use it"
        )
    metadata = {  # zarr relies on the order
        name: described(arrays[name], plain=True) if name in arrays else GROUP for name in sorted(groups | {*arrays})
    }
    return {**GROUP, "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": metadata}}
