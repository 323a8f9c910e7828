"""The layout of a store, as data: its arrays, how they are cut into chunks, and which shard writes which chunk.

Every chunk has one writer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from math import prod
from typing import Any, NamedTuple

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

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """The number of chunks along each dimension."""
        return tuple(-(-size // chunk) for size, chunk in zip(self.shape, self.chunks, strict=True))

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

    def key(self, at: Iterable[int]) -> str:
        """Object key of the chunk at a position of the chunk grid."""
        return f"{self.path}/{self.separator.join(['c', *map(str, at)])}"

    def keys(self, cell: tuple[int, ...]) -> list[str]:
        """Object keys of a shard's chunks."""
        return [self.key(at) for at in product(*self.box(cell))]


@dataclass(frozen=True)
class Phase:
    """A family of shards, as data: its grid and the arrays that each shard writes a cell of."""

    name: str
    grid: tuple[int, ...]
    arrays: Mapping[str, Array]

    @cached_property
    def digest(self) -> Array:
        dims = ("fold",) if len(self.grid) == 1 else ("part", "output_block")
        if any(array.dims[0] == dims[0] and array.shape[0] != self.grid[0] for array in self.arrays.values()):
            dims = ("whole", *dims[1:])  # one shard holds many folds (`folded`)
        ones = (1,) * len(self.grid)
        shape, axes = (*self.grid, DIGEST), (*range(len(self.grid)), None)
        separator = next(array.separator for array in self.arrays.values())
        dims, per = (*dims, "byte"), (*ones, 1)
        return Array(f"shards/{self.name}/digest", shape, (*ones, DIGEST), "uint8", dims, axes, per, separator)

    def earlier(self) -> Phase:
        """The same shards as they were written before schema 5."""
        return replace(self, arrays={name: replace(array, separator="/") for name, array in self.arrays.items()})

    @property
    def every(self) -> tuple[Array, ...]:
        """All arrays that shards write."""
        return (*self.arrays.values(), self.digest)

    def cell(self, number: int) -> tuple[int, ...]:
        """Position of a shard in the grid. The last of two axes is the output block, which varies slowest."""
        return (number,) if len(self.grid) == 1 else (number % self.grid[0], number // self.grid[0])

    def numbers(self, upto: int | None = None) -> list[int]:
        """Numbers of all shards; with `upto`, of those in the first parts of the grid."""
        return [number for number in range(len(self)) if upto is None or self.cell(number)[0] < upto]

    def keys(self, number: int) -> list[str]:
        """Object keys of a shard's chunks, in fixed order."""
        return [key for _, array in sorted(self.arrays.items()) for key in array.keys(self.cell(number))]

    def digest_key(self, number: int) -> str:
        """Object key of a shard's digest."""
        return self.digest.keys(self.cell(number))[0]

    def __len__(self) -> int:
        return prod(self.grid)

    @staticmethod
    def read(document: Mapping[str, Any]) -> Phase:
        """A phase from its JSON form in the root document."""

        def frozen(value: Any) -> Any:
            return tuple(value) if isinstance(value, list) else value

        arrays = {
            name: Array(**{key: frozen(value) for key, value in array.items()})
            for name, array in document["arrays"].items()
        }
        return Phase(document["name"], tuple(document["grid"]), arrays)


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
