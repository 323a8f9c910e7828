"""The layout of a store, as data: its arrays, how they are cut into chunks, and which shard writes which chunk.

Every chunk has one writer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np

DIGEST = 32
"""Bytes of a shard's digest, a SHA-256."""

_CHUNK = re.compile(r"(.+)/c(?:(?:/[0-9]+)*|(?:\.[0-9]+)+)")


def array_of(key: str) -> str:
    """The path of the array that a chunk's key belongs to; empty for the key of anything else.

    Parts of the path may be called "c" too.
    """
    found = _CHUNK.fullmatch(key)
    return found[1] if found else ""


@dataclass(frozen=True)
class Array:
    """An array of the layout, as data.

    For arrays that shards write: `axes` gives, per dimension, the axis of the shard grid that cuts it (None: not cut);
    `per` gives the number of chunks of one cell along it. So each chunk belongs to one shard.
    """

    path: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]
    axes: tuple[int | None, ...] = ()
    per: tuple[int, ...] = ()
    separator: str = "."
    """Between the numbers in a chunk's key: "." keeps all chunks in one folder, "/" is what schema 4 had."""

    @staticmethod
    def read(document: Mapping[str, Any]) -> Array:
        """An array from its JSON form, which has lists for tuples."""
        found: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in document.items()}
        return Array(**found)

    def document(self) -> dict[str, Any]:
        """The JSON form, which has lists for tuples."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: [*value] if isinstance(value, tuple) else value for name, value in values}

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """The number of chunks along each dimension."""
        return tuple(-(-size // chunk) for size, chunk in zip(self.shape, self.chunks, strict=True))

    @cached_property
    def _even(self) -> bool:
        """Whether no chunk is filled up."""
        return not any(size % chunk for size, chunk in zip(self.shape, self.chunks, strict=True))

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk."""
        return prod(self.chunks) * np.dtype(self.dtype).itemsize

    def box(self, cell: tuple[int, ...]) -> list[range]:
        """Chunks of a shard, as a range per dimension of the chunk grid."""
        ranges = []
        for n, axis, per in zip(self.grid, self.axes, self.per, strict=True):
            whole = range(n)
            ranges.append(whole if axis is None else whole[cell[axis] * per : (cell[axis] + 1) * per])
        return ranges

    def region(self, cell: tuple[int, ...]) -> tuple[slice, ...]:
        """Elements of a shard."""
        box = zip(self.box(cell), self.chunks, self.shape, strict=True)
        return tuple(slice(r.start * chunk, min(r.stop * chunk, size)) for r, chunk, size in box)

    def inside(self, cell: tuple[int, ...]) -> tuple[slice, ...]:
        """Elements of the array in the one chunk of a shard, which is filled up at the end of an axis."""
        if self._even:  # as most are: it is asked for each table of each fold
            return ()
        cut_up = zip(self.shape, self.chunks, self.axes, strict=True)
        return tuple(slice(min(cut, size - cut * (0 if axis is None else cell[axis]))) for size, cut, axis in cut_up)

    def key(self, at: Iterable[int]) -> str:
        """Object key of the chunk at a position of the chunk grid."""
        return f"{self.path}/{self.separator.join(['c', *map(str, at)])}"

    def keys(self, cell: tuple[int, ...]) -> list[str]:
        """Object keys of a shard's chunks."""
        return [self.key(at) for at in product(*self.box(cell))]


@dataclass(frozen=True)
class Phase:
    """A family of shards, as data: its grid and the arrays that each shard writes a cell of.

    `packed`: names of the arrays that a shard writes as one object, its record (`record.py`), which holds the digest
    too. If there are none, as before schema 5 and where many folds are in one chunk, the digest is an object by itself.
    """

    name: str
    grid: tuple[int, ...]
    arrays: Mapping[str, Array]
    packed: tuple[str, ...] = ()

    @cached_property
    def mark(self) -> Array:
        """The array of what a shard writes last: its record, or its digest."""
        dims = ("fold",) if len(self.grid) == 1 else ("part", "output_block")
        if any(array.dims[0] == dims[0] and array.shape[0] != self.grid[0] for array in self.arrays.values()):
            dims = ("whole", *dims[1:])  # one shard holds many folds (`folded`)
        what, size = ("record", self.places[self.packed[-1]].stop) if self.packed else ("digest", DIGEST)
        ones = (1,) * len(self.grid)
        shape, chunks, axes = (*self.grid, size), (*ones, size), (*range(len(self.grid)), None)
        separator = next(array.separator for array in self.arrays.values())
        return Array(f"shards/{self.name}/{what}", shape, chunks, "uint8", (*dims, "byte"), axes, (*ones, 1), separator)

    @cached_property
    def places(self) -> dict[str, slice]:
        """Bytes of the packed arrays in a record."""
        found, start = {}, 0
        for name in self.packed:
            found[name] = slice(start, start := start + self.arrays[name].chunk_bytes)
        return found

    def earlier(self) -> Phase:
        """The same shards as they were written before schema 5."""
        arrays = {name: replace(array, separator="/") for name, array in self.arrays.items()}
        return replace(self, arrays=arrays, packed=())

    @cached_property
    def document(self) -> dict[str, Any]:
        """The JSON form. `asdict` copies deeply, which takes milliseconds for each document of a store."""
        arrays = {name: array.document() for name, array in self.arrays.items()}
        return {"name": self.name, "grid": [*self.grid], "arrays": arrays, "packed": [*self.packed]}

    @cached_property
    def apart(self) -> dict[str, Array]:
        """The arrays with objects of their own, in fixed order."""
        return {name: array for name, array in sorted(self.arrays.items()) if name not in self.packed}

    @property
    def every(self) -> tuple[Array, ...]:
        """All arrays of the store that shards write."""
        return (*self.apart.values(), self.mark)

    def cell(self, number: int) -> tuple[int, ...]:
        """Position of a shard in the grid. The last of two axes is the output block, which varies slowest."""
        return (number,) if len(self.grid) == 1 else (number % self.grid[0], number // self.grid[0])

    def numbers(self, upto: int | None = None) -> list[int]:
        """Numbers of all shards; with `upto`, of those in the first parts of the grid."""
        return [number for number in range(len(self)) if upto is None or self.cell(number)[0] < upto]

    def number(self, name: str, at: tuple[int, ...]) -> int:
        """The shard that wrote the chunk of a packed array at a position of the chunk grid: it has no other."""
        axes = self.arrays[name].axes
        cell = [at[axes.index(axis)] for axis in range(len(self.grid))]
        return cell[0] if len(cell) == 1 else cell[1] * self.grid[0] + cell[0]

    def keys(self, number: int) -> list[str]:
        """Object keys of the chunks that a shard writes apart from its record, in fixed order."""
        return [key for array in self.apart.values() for key in array.keys(self.cell(number))]

    def digest_key(self, number: int) -> str:
        """Object key of what has a shard's digest: the record, or the digest by itself."""
        return f"{self.mark.path}/{self.mark.separator.join(('c', *map(str, self.cell(number)), '0'))}"

    def __len__(self) -> int:
        return prod(self.grid)

    @staticmethod
    def read(document: Mapping[str, Any]) -> Phase:
        """A phase from its JSON form in the root document."""

        arrays = {name: Array.read(array) for name, array in document["arrays"].items()}
        return Phase(document["name"], tuple(document["grid"]), arrays, tuple(document.get("packed", ())))


def plain(phases: Iterable[Phase]) -> list[Any]:
    """A layout as the root document has it."""
    return [phase.document for phase in phases]


class Dim(NamedTuple):
    """A dimension: name, size, chunk (None: one), the axis of the shard grid that cuts it, and chunks per cell."""

    name: str
    size: int
    chunk: int | None = None
    axis: int | None = None
    per: int = 1


def array(path: str, dtype: str, *dims: Dim) -> Array:
    """An array from its dimensions."""
    names, sizes, chunks, axes, per = zip(*dims, strict=True)
    cuts = tuple(size if chunk is None else chunk for size, chunk in zip(sizes, chunks, strict=True))
    return Array(path, sizes, cuts, dtype, names, axes, per)
