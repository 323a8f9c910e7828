"""The bound of an array: the largest decoded size of its chunks, checked against their bytes before decoding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numcodecs.vlen import VLenUTF8
from numcodecs.zstd import Zstd
from zarr.abc.store import Store as ZarrStore
from zarr.storage import WrapperStore

from igc_dist.records import StoreError

MAGIC = b"\x28\xb5\x2f\xfd"  # first bytes of a zstd frame


@dataclass(frozen=True)
class Bound:
    """The allowed size of a decoded chunk: exactly `size` bytes, or at most that many in `texts` strings."""

    size: int
    texts: int = 0
    packed: bool = True

    def check(self, chunk: bytes, key: str) -> None:
        """Raise `StoreError` for a chunk of another decoded size, before decoding, and for one that does not decode."""
        size = _frame(chunk) if self.packed else len(chunk)
        if size is None or size > self.size or (not self.texts and size < self.size):
            said = "does not say its size" if size is None else f"decodes to {size:,} bytes"
            raise StoreError(
                f"{key} {said}, its array declares {self.size:,}: the chunk is damaged or hostile, do not use this "
                "store"
            )
        try:
            plain = Zstd().decode(chunk) if self.packed else chunk
            if self.texts and (n := int.from_bytes(plain[:4], "little")) <= self.texts:
                VLenUTF8().decode(plain)
        except (RuntimeError, ValueError) as error:  # the codec's error does not name the file
            raise StoreError(f"{key} does not decode ({error}): the chunk is damaged, see igc-dist verify") from error
        if self.texts and n > self.texts:
            raise StoreError(f"{key} holds {n:,} strings, its array declares {self.texts:,}: do not use this store")


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


class Guarded(WrapperStore[ZarrStore]):
    """A read-only zarr store that checks chunks before they are decoded; `bounds` by the path of an array."""

    def __init__(self, store: ZarrStore, bounds: Mapping[str, Bound] | None = None) -> None:
        super().__init__(store)
        self.bounds = dict(bounds or {})

    def _with_store(self, store: ZarrStore) -> Guarded:
        return Guarded(store, self.bounds)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        value = await self._store.get(key, prototype, byte_range)
        array = key.partition("/c/")[0].removesuffix("/c")
        if value is not None and array != key and array in self.bounds:
            self.bounds[array].check(value.to_bytes(), f"{self._store}/{key}")
        return value
