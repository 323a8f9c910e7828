"""The bound of an array: what its chunks may be. The one place where stored chunks are decoded, always within a bound.

A bound comes from a layout or an admitted document, never from the chunk itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numcodecs.vlen import VLenUTF8
from numcodecs.zstd import Zstd

from igc_dist.records import StoreError
from igc_dist.store.admission import MAX_TEXT
from igc_dist.store.layout import Array, array_of

MAGIC = b"\x28\xb5\x2f\xfd"  # first bytes of a zstd frame

CALL = 1024
"""Bytes that reading one more chunk takes, whatever its size."""

TEXT, WORD = 64, 4096
"""Bytes of an empty string in memory; bytes of a string at most, on average over a chunk."""


@dataclass(frozen=True)
class Bound:
    """Chunks of exactly `size` decoded bytes each, or of at most that many in `texts` strings.

    `grid`: their number along each dimension. `packed`: they are frames of zstd.
    """

    size: int
    texts: int = 0
    packed: bool = True
    grid: tuple[int, ...] = ()
    separator: str = "."

    @staticmethod
    def of(array: Array, packed: bool = True) -> Bound:
        """The bound of an array."""
        n = prod(array.chunks)
        if array.dtype == "string":
            return Bound(min(MAX_TEXT, max(1 << 16, WORD * n)), max(n, 1), packed, array.grid, array.separator)
        return Bound(n * np.dtype(array.dtype).itemsize, 0, packed, array.grid, array.separator)

    @property
    def most(self) -> int:
        """The largest number of bytes of a stored chunk: what does not compress takes a little more."""
        return self.size + self.size // 64 + 1024

    @property
    def n(self) -> int:
        """The number of chunks."""
        return prod(self.grid)

    @property
    def held(self) -> int:
        """Bytes in memory of all chunks."""
        return self.n * (self.size + CALL + TEXT * self.texts)

    @property
    def empty(self) -> int:
        """Bytes in memory of as many chunks that are not stored, but filled in."""
        return self.n * (CALL + (TEXT * self.texts or self.size))

    def has(self, key: str) -> bool:
        """Whether the key of a chunk has coordinates inside of the grid, written as zarr writes them."""
        path, at = array_of(key), self._parts(key)
        return (
            bool(path)
            and len(at) == len(self.grid)
            and all(
                len(part) < 20 and part == str(int(part)) and int(part) < n
                for part, n in zip(at, self.grid, strict=True)
            )
        )

    def at(self, key: str) -> tuple[int, ...]:
        """The coordinates in the key of a chunk that it has."""
        return tuple(map(int, self._parts(key)))

    def _parts(self, key: str) -> list[str]:
        return key[len(array_of(key)) + 1 :].split(self.separator)[1:]

    def decoded(self, chunk: bytes, key: str) -> bytes:
        """The bytes that a stored chunk holds.

        Raises `StoreError` for a chunk of another decoded size, before decoding, and for one that does not decode.
        """
        size = _frame(chunk) if self.packed else len(chunk)
        if size is None or size > self.size or (not self.texts and size < self.size):
            said = "does not say its size" if size is None else f"decodes to {size:,} bytes"
            raise StoreError(
                f"{key} {said}, its array declares {self.size:,}: the chunk is damaged or hostile, do not use this "
                "store"
            )
        try:
            plain = bytes(Zstd().decode(chunk)) if self.packed else chunk
            if len(plain) != size:
                raise ValueError(f"to {len(plain):,} bytes where it says {size:,}")
            if self.texts and (n := int.from_bytes(plain[:4], "little")) <= self.texts:
                VLenUTF8().decode(plain)
        except (RuntimeError, ValueError) as error:  # the codec's error does not name the file
            raise StoreError(f"{key} does not decode ({error}): the chunk is damaged, see igc-dist verify") from error
        if self.texts and n > self.texts:
            raise StoreError(f"{key} holds {n:,} strings, its array declares {self.texts:,}: do not use this store")
        return plain


def _frame(chunk: bytes) -> int | None:
    """Decoded size of a zstd frame, by its header; None if the header does not state it, or if it is not a frame."""
    if len(chunk) < 6 or chunk[:4] != MAGIC:
        return None
    head = chunk[4]
    single, flag = head >> 5 & 1, head >> 6
    width = (single, 2, 4, 8)[flag]
    start = 5 + (0 if single else 1) + (0, 1, 2, 4)[head & 3]
    if width == 0 or len(chunk) < start + width:
        return None
    return int.from_bytes(chunk[start : start + width], "little") + (256 if width == 2 else 0)
