"""What may be read as a store: bounded documents, numbers and text in our own codecs, and names that stay inside.

Documents are bounded in size and depth. Anybody may have written a store: its seals show that nothing changed by
accident, not who wrote it. So sizes and shapes are checked before anything is allocated for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from igc_dist.records import StoreError

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

MAX_DEPTH = 100
"""Largest depth of a document: what reads one calls itself for each level."""

MAX_KEY, MAX_NAME = 1024, 255
"""Bytes of an object's key, and of a part of it: the limits of object stores and file systems."""

TYPES = frozenset(
    ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")
)

SEPARATORS = (".", "/")
"""What may stand between the numbers in a chunk's key."""

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


def check_size(size: int, key: str, path: Any, most: int | None = None) -> None:
    """Raise `StoreError` for an object of more than `most` bytes, before it is read.

    By default a document has at most `MAX_DOCUMENT`, and a chunk what `MAX_CHUNK` decoded bytes take.
    """
    document = key.endswith("zarr.json") or key.startswith(".")
    most = most or (MAX_DOCUMENT if document else MAX_CHUNK + MAX_CHUNK // 64 + 1024)
    if size > most:
        what = "a document" if document else "such a chunk"
        raise StoreError(
            f"{path}/{key} has {size:,} bytes, {what} of a store has at most {most:,}: it is not one of ours"
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
    if deep(document):
        raise ValueError("it is nested too deeply")
    return document


def deep(document: Any) -> bool:
    """Whether a document is nested more deeply than `MAX_DEPTH`."""
    level, inner = [document], 0
    while level and inner <= MAX_DEPTH:
        parts = [part.values() if isinstance(part, dict) else part for part in level]
        level, inner = [item for part in parts for item in part if isinstance(item, dict | list)], inner + 1
    return bool(level)


# -- the content of a root document -----------------------------------------------------------------------------------

KINDS: Mapping[str, tuple[type, ...]] = {
    "spec": (dict,),
    "spec_hash": (str,),
    "status": (str,),
    "error": (str,),
    "method": (str,),
    "provenance": (dict,),
    "recipe": (dict, type(None)),
    "cost": (dict,),
    "budget": (dict,),
    "fallback": (str, bool, type(None)),
    "sums_to_prediction": (bool,),
    "digests": (dict,),
    "skipped": (list,),
    "retried": (list,),
}
"""Types of the entries of a root document. All but `spec` and `spec_hash` may be missing."""


def check_root(attributes: Mapping[str, Any], path: Any) -> None:
    """Raise `StoreError` unless all entries have the types, sizes and names that a run writes."""
    try:
        expect({"spec", "spec_hash"} <= attributes.keys(), "spec")
        for name, kinds in KINDS.items():
            expect(name not in attributes or type(attributes[name]) in kinds, name)
        digests = attributes.get("digests", {})
        expect(all(isinstance(value, str) for value in digests.values()), "digests")
        for key in digests:
            check_key(key, path)
        _check_told(attributes)
        paths: list[list[str]] = []
        for phase in attributes["layout"]:
            _check_phase(phase)
            paths += [array["path"].split("/") for array in phase["arrays"].values()] + [
                ["shards", phase["name"], "record" if phase.get("packed") else "digest"]
            ]
        expect(len(paths) <= MAX_ARRAYS, f"{len(paths):,} arrays")
        expect(
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


def _check_told(attributes: Mapping[str, Any]) -> None:
    """What a run tells about itself: samples that were skipped, shards that ran out of memory, cost and budget."""
    for entry in attributes.get("skipped", []):
        expect(whole(entry["index"]) and isinstance(entry["reason"], str), "skipped")
    for entry in attributes.get("retried", []):
        sizes = entry["micro_batch"]
        expect(whole(entry["shard"]) and isinstance(sizes, list) and all(map(whole, sizes)), "retried")
    for value in attributes.get("cost", {}).values():
        expect(whole(value) or isinstance(value, str), "cost")
    budget = attributes.get("budget", {})
    used, counts = budget.get("used", {}), [budget.get(name, 0) for name in ("folds", "of")]
    expect(all(value is None or whole(value) for value in used.values()) and all(map(whole, counts)), "budget")
    for name in ("reason", "advice"):
        expect(isinstance(budget.get(name), str | None), f"{name} of the budget")


def _check_phase(phase: Mapping[str, Any]) -> None:
    grid = phase["grid"]
    expect(phase["name"].isidentifier() and len(grid) in (1, 2) and all(map(whole, grid)), "grid of a phase")
    expect(prod(grid) <= MAX_SHARDS, f"{prod(grid):,} shards")
    chunks = 0
    for name, array in phase["arrays"].items():
        fields = array.keys() - {"separator"}  # not before schema 5
        expect(fields == {"path", "shape", "chunks", "dtype", "dims", "axes", "per"}, f"fields of {name}")
        expect(array.get("separator", "/") in SEPARATORS, f"keys of the chunks of {name}")
        shape, cuts, axes, per = (array[key] for key in ("shape", "chunks", "axes", "per"))
        expect(identifiers(name) and identifiers(array["path"]), f"path {array['path']!r}")
        expect(array["dtype"] in TYPES, f"type {array['dtype']!r}")
        expect(len({*map(len, (shape, cuts, axes, per, array["dims"]))}) == 1, f"dimensions of {name}")
        expect(all(isinstance(dim, str) for dim in array["dims"]), f"names of the dimensions of {name}")
        expect(all(map(whole, (*shape, *cuts, *per))) and 0 not in cuts and 0 not in per, f"shape of {name}")
        expect(all(axis is None or (whole(axis) and axis < len(grid)) for axis in axes), f"axes of {name}")
        expect(prod(cuts) * np.dtype(array["dtype"]).itemsize <= MAX_CHUNK, f"chunks of {name}")
        # if no shard cuts an axis, the chunks of every shard have all of it
        again = prod(size for number, size in enumerate(grid) if number not in axes)
        chunks += prod(-(-size // cut) for size, cut in zip(shape, cuts, strict=True)) * again
    expect(chunks <= MAX_CHUNKS, f"{chunks:,} chunks")
    expect(len(phase["arrays"]) > 0, "a phase without arrays")
    _check_packed(grid, phase["arrays"], phase.get("packed", []))


def _check_packed(grid: list[int], arrays: Mapping[str, Any], names: Any) -> None:
    """The arrays of a record: each shard writes one chunk of each, and the record is a chunk too."""
    expect(isinstance(names, list) and names == sorted({*names}) and {*names} <= arrays.keys(), "packed arrays")
    for name in names:
        shape, cuts, axes, per = (arrays[name][key] for key in ("shape", "chunks", "axes", "per"))
        expect(sorted(axis for axis in axes if axis is not None) == [*range(len(grid))], f"axes of packed {name}")
        for size, cut, axis, one in zip(shape, cuts, axes, per, strict=True):
            expect(one == 1 and -(-size // cut) == (1 if axis is None else grid[axis]), f"chunks of packed {name}")
    size = sum(prod(arrays[name]["chunks"]) * np.dtype(arrays[name]["dtype"]).itemsize for name in names)
    expect(size <= MAX_CHUNK, f"a record of {size:,} bytes")


def expect(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)


def whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def identifiers(path: Any) -> bool:
    return isinstance(path, str) and all(part.isidentifier() for part in path.split("/"))
