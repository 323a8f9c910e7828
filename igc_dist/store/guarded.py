"""What zarr may read of a store that anybody may have written. It denies by default.

zarr gets documents that were made anew (`rebuilt`) and admitted chunks, and nothing else: neither other files of the
same folder or bucket, nor other formats of Zarr.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import zarr
from zarr.abc.store import Store as ZarrStore

from igc_dist.records import StoreError
from igc_dist.store.admission import MAX_TEXT, check_key, check_root, parsed
from igc_dist.store.arrays import document_of
from igc_dist.store.bound import Bound
from igc_dist.store.documents import sound
from igc_dist.store.layout import Phase, array_of
from igc_dist.store.rebuilt import rebuilt, tree_of

if TYPE_CHECKING:
    from igc_dist.store.objects import Objects

LEAST, RATIO = 64 << 20, 1024
"""Bytes in memory that a store may ask for: so many, and so many for each byte that is stored. Results that are nearly
all zero shrink a thousandfold, a hostile chunk thirty-thousandfold."""

PER_SAMPLE = ("samples/", "known/", "shards/")
"""Groups that grow with the data. Nobody reads them as a whole but `verify` and those who make new stores."""


class Guarded(ZarrStore):
    """Read-only: `documents` by key, and the chunks of the arrays in `bounds`, decoded.

    The documents declare no compression, so zarr decodes nothing. `about`: the root's attributes,
    `stored`: the bytes of all objects, both of a whole store. `packed`: arrays in the records of shards, with their
    phases and names; they are served as arrays like others.
    """

    supports_writes = supports_deletes = supports_listing = False

    def __init__(
        self,
        objects: Objects,
        documents: Mapping[str, bytes],
        bounds: Mapping[str, Bound],
        about: Mapping[str, Any] | None = None,
        stored: int = 0,
        packed: Mapping[str, tuple[Phase, str]] | None = None,
    ) -> None:
        super().__init__(read_only=True)
        self.objects, self.documents, self.bounds = objects, documents, bounds
        self.about, self.stored, self.packed = about or {}, stored, packed or {}

    def afford(self, wanted: Callable[[str], bool]) -> None:
        """Raise `StoreError` if the wanted arrays take more memory than the bytes of this store can be worth."""
        held = sum(bound.held for name, bound in self.bounds.items() if wanted(name))
        if held > LEAST + RATIO * self.stored:
            raise StoreError(
                f"store {self} has {self.stored:,} bytes and would take {held:,} in memory, more than {RATIO} times as "
                "many: it is hostile, or holds nothing but zeros. Read single arrays of it with igc_dist.open"
            )

    def with_read_only(self, read_only: bool = False) -> Guarded:
        assert read_only
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Guarded) and (self.objects.path, self.documents) == (
            other.objects.path,
            other.documents,
        )

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return str(self.objects.path)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        if byte_range is not None:
            raise NotImplementedError("a part of a chunk: none of our codecs asks for it")
        found = self.documents.get(key)
        if found is None:
            found = await asyncio.to_thread(self.chunk, key)
        return None if found is None else prototype.buffer.from_bytes(found)

    def chunk(self, key: str) -> bytes | None:
        """The decoded bytes of a chunk; None for one that is not there, and for what is no chunk of an array.

        Raises `StoreError` for a chunk of a result that the root says is there: it would be read as NaN.
        """
        path = array_of(key)
        bound = self.bounds.get(path)
        if bound is None or not bound.has(key):
            return None
        if path not in self.packed:
            found = self._decoded(bound, key)
            if found is None and key in self.about.get("digests", {}):
                raise StoreError(f"store {self} is damaged, {key} is missing: run the same command again to repair it")
            return found
        phase, name = self.packed[path]
        record = self._decoded(Bound.of(phase.mark), phase.digest_key(phase.number(name, bound.at(key))))
        return None if record is None else record[phase.places[name]]

    def _decoded(self, bound: Bound, key: str) -> bytes | None:
        stored = self.objects.get(key, bound.most)
        return None if stored is None else bound.decoded(stored, f"{self}/{key}")

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[tuple[str, Any]]) -> list[Any]:
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        return key in self.documents

    async def set(self, key: str, value: Any) -> None:
        self._check_writable()

    async def delete(self, key: str) -> None:
        self._check_writable()

    def list(self) -> AsyncIterator[str]:
        return _nothing()

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        return _nothing()

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        return _nothing()


async def _nothing() -> AsyncIterator[str]:
    """An empty listing: zarr finds members in the document of the root."""
    return
    yield


def root(objects: Objects, also: str = "zarr.json") -> dict[str, Any]:
    """The root document of a store, or the document `also`. Its attributes are checked.

    Raises `StoreError` if neither is readable.
    """
    path = objects.path
    try:
        found = sound(objects.get("zarr.json")) or sound(objects.get(also))
    except OSError as error:  # for example a link to itself, or no right to read
        raise StoreError(f"{path} cannot be read: {error.strerror} (errno {error.errno})") from error
    if found is None:
        names = objects.names()
        way = f"it holds no zarr.json, but {names[0]}, ...: give the folder of a store (store.path)" if names else ""
        if any(name == "zarr.json" or name.startswith("shards/") for name in names):
            way = "its root document is damaged, run again to repair it"
        raise StoreError(f"{path} is not a readable igc-dist store: {way or 'there is nothing'}")
    check_root(found["attributes"], path)
    return found


def admit(objects: Objects, document: Mapping[str, Any]) -> Guarded:
    """What may be read of a store with this root document.

    Arrays are those of the consolidated metadata if the root has them, else those of all documents. Raises `StoreError`
    with the name of the object for a document that no run writes, for a shape that is much larger than the stored
    bytes, and if coordinates, which are read at once, take too much memory.
    """
    path, sizes = objects.path, objects.sizes()
    arrays, bounds = {}, {}
    records = packed(document["attributes"])
    inside = {at: json.loads(document_of(phase.arrays[name], plain=True)) for at, (phase, name) in records.items()}
    for name, about in {**_nodes(objects, sizes, document), **inside}.items():
        if (found := rebuilt(name, about, f"{path}/{name}/zarr.json")) is not None:
            arrays[name], bounds[name] = found
    served = tree_of(arrays, path)
    there = Counter(_admitted(path, sizes, bounds))
    for name, (phase, _) in records.items():
        there[name] = there[phase.mark.path]
    for name, bound in bounds.items():
        # a run writes every chunk except those of shards that it did not reach; reading would fill in missing chunks
        partial = name.startswith(("shards/", "samples/")) and len(bound.grid) > 1
        if not partial and there[name] < bound.n and bound.empty > MAX_TEXT:
            raise StoreError(
                f"{path}/{name}/zarr.json describes {bound.n:,} chunks, {there[name]:,} are there: do not use it"
            )
    text = json.dumps(served).encode()
    admitted = Guarded(objects, {"zarr.json": text}, bounds, document["attributes"], sum(sizes.values()), records)
    admitted.afford(lambda name: arrays[name].dims == (name.rpartition("/")[2],) or name.endswith("/index"))
    return admitted


def packed(attributes: Mapping[str, Any]) -> dict[str, tuple[Phase, str]]:
    """The arrays that lie in records, by path, with their phases and names."""
    phases = [Phase.read(phase) for phase in attributes["layout"] if phase.get("packed")]
    return {phase.arrays[name].path: (phase, name) for phase in phases for name in phase.packed}


def opened(objects: Objects, path: str, inside: tuple[Phase, str] | None = None) -> zarr.Array[Any]:
    """A single array, to read; `inside`: it lies in records. Raises `StoreError` for one that no run writes."""
    key = f"{path}/zarr.json"
    text = objects.get(key) if inside is None else document_of(inside[0].arrays[inside[1]], plain=True)
    found = rebuilt(path, read(objects, key, text), f"{objects.path}/{key}")
    if found is None:
        raise StoreError(f"{objects.path}/{key} describes a group, not an array: the store is damaged or hostile")
    admitted = Guarded(
        objects, {key: document_of(found[0], plain=True)}, {path: found[1]}, packed=inside and {path: inside}
    )
    return zarr.open_array(admitted, path=path, mode="r", zarr_format=3)


def _nodes(objects: Objects, sizes: Mapping[str, int], document: Mapping[str, Any]) -> dict[str, Any]:
    """What a store says about its groups and arrays, by path."""
    inside = document.get("consolidated_metadata")
    if inside is None:
        keys = [key for key in sizes if key.endswith("/zarr.json")]
        return {
            key.removesuffix("/zarr.json"): read(objects, key, text)
            for key, text in zip(keys, objects.map(objects.get, keys), strict=True)
        }
    if not isinstance(inside, dict) or not isinstance(inside.get("metadata"), dict):
        raise StoreError(f"store {objects.path}: its consolidated metadata are none that a run writes: do not use it")
    for name in inside["metadata"]:
        check_key(name, objects.path)
    return inside["metadata"]


def read(objects: Objects, key: str, text: bytes | None) -> dict[str, Any]:
    """The document with this text. Raises `StoreError` if it is none."""
    try:
        return parsed(text or b"")
    except ValueError as error:
        raise StoreError(f"{objects.path}/{key} is no document of a store: {error}") from error


def _admitted(path: Any, sizes: Mapping[str, int], bounds: Mapping[str, Bound]) -> Iterable[str]:
    """The array of each chunk that is there. An empty file is no chunk."""
    for key, size in sizes.items():
        array = array_of(key)
        if (bound := bounds.get(array)) is None or not bound.has(key):
            continue
        if size > bound.most:
            raise StoreError(
                f"{path}/{key} has {size:,} bytes, its array declares chunks of {bound.size:,}: do not use this store"
            )
        if size:
            yield array
