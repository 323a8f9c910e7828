"""The Zarr store: what is written where, when a shard counts as done, and how damage is noticed. The only zarr.

Layout (Zarr format 3, dimensions named, opens with `xarray.open_datatree`):

    /                  results per output; attrs: schema, status, spec, spec_hash, provenance, digests, seal
    /x, /x1, ...       maps (output, *features)
    /convergence       running results over folds
    /samples           index, target, prediction, prediction_baseline, delta; /samples/x/attribution (sample, output, *features)
    /shards/predict    pass 1: one chunk per fold
    /shards/attribute  pass 2: one chunk per (fold x block of baselines, block of outputs)
    /.lock-000001      who is filling it, while a run does (`igc_dist.lock`)
    /.beacon           what that run says of itself, for those that watch (`igc_dist.beacon`)

Every chunk has one writer. A shard is done when its digest, written last, matches the bytes of its chunks as stored; so
torn or lost writes are noticed without an fsync. Group documents carry a seal over their own text, and the root's lists
the digests of all other files, so that one flipped bit anywhere is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs.zstd import Zstd
from zarr.codecs import ZstdCodec

from igc_dist.address import objects_at
from igc_dist.admission import check_root
from igc_dist.documents import differences, sealed, unsealed
from igc_dist.faults import fault
from igc_dist.layout import Array, Phase
from igc_dist.objects import InMemory
from igc_dist.records import StoreError
from igc_dist.schema import SCHEMA, upgraded

LEVEL = 1
CODEC = Zstd(level=LEVEL, checksum=True)


class Store:
    """A store being filled by a run. All ranks write shards; only rank 0 creates, repairs and completes."""

    def __init__(self, path: str | Path | None, phases: Iterable[Phase], spec: Mapping[str, Any], spec_hash: str) -> None:
        self.path, self.objects = path, objects_at(path)
        self.phases = {phase.name: phase for phase in phases}
        self.spec, self.spec_hash = dict(spec), spec_hash
        self.guard: Callable[[], None] = lambda: None
        """Raises where this run has lost the right to write (`igc_dist.lock`)."""
        self._arrays: dict[str, zarr.Array[Any]] = {}

    @classmethod
    def existing(cls, path: str | Path) -> Store:
        """A store that is there, for reading and verifying. Its layout is in the root document, or in the copy beside the shards."""
        objects_at(path).sizes()  # which refuses what no run writes
        found = attributes(path, also="shards/zarr.json")
        return cls(path, [Phase.read(phase) for phase in found["layout"]], found["spec"], found["spec_hash"])

    @property
    def _identity(self) -> dict[str, Any]:
        layout = json.loads(json.dumps([asdict(phase) for phase in self.phases.values()]))
        return {"schema": SCHEMA, "spec": self.spec, "spec_hash": self.spec_hash, "layout": layout}

    # -- creation and resume -------------------------------------------------------------------------------------

    def prepare(self, provenance: Mapping[str, Any], budget: Mapping[str, Any], lock: Callable[[], None] = lambda: None) -> bool:
        """Create the store, or take up one of the same spec; returns whether it is complete, within the same budget, and undamaged.
        `lock` is called before anything is written, and may refuse; a complete store needs none.

        Raises `StoreError` for a store of another spec, with the keys that differ, for one of another layout, and for a folder that is
        no store.
        """
        with self.objects.explained():
            if self._ready(budget):
                return True
            lock()
            found = self._mine()  # again: what was there may have gone on until then
            if found is not None and found.get("status") == "complete" and self._ready(budget):
                return True
            self.objects.sweep(self._chunks())
            kept = {"fallback": True} if found and found.get("fallback") else {}
            self.objects.set("zarr.json", sealed({**self._identity, **kept, "status": "running", "provenance": dict(provenance)}))
            self._repair_documents()
        return False

    def _ready(self, budget: Mapping[str, Any]) -> bool:
        found = self._mine()
        if found is None:
            return False
        done = found.get("status") == "complete" and found["budget"]["wish"] == budget
        if (found.get("schema"), found.get("layout")) == (SCHEMA, self._identity["layout"]):
            return done and not self.verify()
        if done and self.path is not None and not Store.existing(self.path).verify():  # it was made compact, or by an older version
            return True
        raise StoreError(
            f"store {self.path} holds this run in another layout (compact, or of schema {found.get('schema')} where this version writes "
            f"{SCHEMA}), and is not complete, damaged or of another budget: it cannot be gone on with. Give another store.path, or delete "
            "that store"
        )

    def _mine(self) -> dict[str, Any] | None:
        """The attributes of what is there, None if nothing is; refuses what is not of this spec."""
        found = self._found()
        if found is not None:
            upgraded(found, self.path)  # or it is of a newer version
        if found is not None and found.get("spec_hash") != self.spec_hash:
            differing = "; ".join(differences(found.get("spec", {}), self.spec))
            raise StoreError(
                f"store {self.path} holds another run: {differing or 'its specs hash differently'}. "
                "Give another store.path, or delete that store"
            )
        return found

    def fallen(self) -> bool:
        """Whether the run fell back to a higher precision."""
        return bool((unsealed(self.objects.get("zarr.json")) or {}).get("fallback"))

    def restart(self) -> None:
        """Forget all shards, and remember that the run has fallen back. In this order: if it ends between, it falls back once more."""
        self.guard()
        with self.objects.explained():
            for key in self._owned() & {*self.objects.names()}:
                self.objects.drop(key)
            about = unsealed(self.objects.get("zarr.json")) or self._identity
            self.objects.set("zarr.json", sealed({**about, "fallback": True}))

    def _found(self) -> dict[str, Any] | None:
        """The attributes of the store at this path, None if there is nothing. The shards' group keeps a second copy of the spec."""
        for key in ("zarr.json", "shards/zarr.json"):
            attributes = unsealed(self.objects.get(key))
            if attributes is not None:
                return attributes
        if self.objects.names():
            raise StoreError(
                f"{self.path} is not empty and not an igc-dist store (or its documents are damaged beyond repair): "
                "give another store.path, or delete it"
            )
        return None

    def _repair_documents(self) -> None:
        """Write every missing or changed document of the shard arrays, whose text follows from the layout.

        Results of an earlier attempt go: they are written anew, and a damaged document in their place would stop zarr.
        """
        documents = self._documents()
        for (key, text), there in zip(documents.items(), self.objects.map(self.objects.get, documents), strict=True):
            if there != text:
                self.objects.set(key, text)
        for key in {*self.objects.names(self._chunks())} - {*documents, "zarr.json"}:
            if _of_zarr(key):
                self.objects.drop(key)

    def _documents(self) -> dict[str, bytes]:
        scratch = InMemory()
        root = zarr.create_group(scratch.zarr, zarr_format=3)
        root.require_group("shards")
        for phase in self.phases.values():
            for array in phase.arrays.values():
                create(root, array)
            create(root, phase.digest, plain=True)
        documents = {key: scratch.get(key) or b"" for key in scratch.names() if key not in ("zarr.json", "shards/zarr.json")}
        documents["shards/zarr.json"] = sealed(self._identity)
        return documents

    def array(self, path: str) -> zarr.Array[Any]:
        """An array of the store."""
        if path not in self._arrays:
            array = zarr.open_array(self.objects.zarr, path=path, mode="r+", zarr_format=3)
            self._arrays[path] = array.with_config({"write_empty_chunks": True}) if hasattr(array, "with_config") else array
        return self._arrays[path]

    # -- shards --------------------------------------------------------------------------------------------------

    def write(self, phase: str, number: int, name: str, values: np.ndarray, start: tuple[int, ...] | None = None) -> None:
        """Write the chunk of an array that a shard owns, or the one of its chunks that begins at the element `start`.

        Encoded here, to the same bytes as by zarr, whose way through an event loop and threads takes 2 ms a chunk.
        """
        family = self.phases[phase]
        array = family.arrays[name]
        first = start or tuple(cut.start for cut in array.region(family.cell(number)))
        at = [*(begin // size for begin, size in zip(first, array.chunks, strict=False)), *(0,) * (len(array.chunks) - len(first))]
        chunk = np.asarray(values, dtype=array.dtype)
        if chunk.shape != array.chunks:  # the last one, which is stored whole
            chunk = np.pad(chunk, [(0, size - have) for size, have in zip(array.chunks, chunk.shape, strict=True)])
        with self.objects.explained():
            self.objects.set("/".join([array.path, "c", *map(str, at)]), CODEC.encode(np.ascontiguousarray(chunk)))

    def commit(self, phase: str, number: int) -> None:
        """Declare a shard done: its digest over the bytes as they are stored, written last."""
        fault("arrays")
        self.guard()
        family = self.phases[phase]
        digest = self._digest(family, number, self.objects.map)
        if digest is None:
            raise StoreError(f"store {self.path}: an array of {phase} shard {number} has vanished since it was written")
        fault("digest")
        with self.objects.explained():
            self.objects.set(family.digest_key(number), digest)

    def _digest(self, family: Phase, number: int, each: Callable[..., Iterable[Any]] = map) -> bytes | None:
        digest, keys = hashlib.sha256(), family.keys(number)
        for key, found in zip(keys, each(self.objects.pieces, keys), strict=True):
            if found is None:
                return None
            size, pieces = found
            digest.update(f"{key} {size} ".encode())
            for piece in pieces:
                digest.update(piece)
        return digest.digest()

    def is_done(self, phase: str, number: int) -> bool:
        """Whether a shard's digest is there and matches its bytes."""
        family = self.phases[phase]
        stored = self.objects.get(family.digest_key(number))
        return stored is not None and stored == self._digest(family, number)

    def pending(self, phase: str, upto: int | None = None) -> list[int]:
        """Numbers of the shards that are not done; `upto`: of the first parts of the grid only."""
        numbers = self.phases[phase].numbers(upto)
        done = self.objects.map(lambda number: self.is_done(phase, number), numbers)
        return [number for number, its in zip(numbers, done, strict=True) if not its]

    def read(self, phase: str, name: str, region: tuple[slice, ...] | None = None) -> np.ndarray:
        """An array of a phase, or a region of it."""
        array = self.array(self.phases[phase].arrays[name].path)
        return np.asarray(array[... if region is None else region])

    def read_own(self, phase: str, number: int, name: str) -> np.ndarray:
        """The one chunk of an array that a shard wrote: `read`, without the way through an event loop and threads."""
        family = self.phases[phase]
        array = family.arrays[name]
        (key,) = array.keys(family.cell(number))
        chunk = np.frombuffer(CODEC.decode(self.objects.get(key)), dtype=array.dtype).reshape(array.chunks)
        return chunk[tuple(slice(cut.stop - cut.start) for cut in array.region(family.cell(number)))].copy()  # a buffer is read-only

    def objects_of(self, phase: str, numbers: Iterable[int]) -> dict[str, bytes]:
        """The objects of some shards, to hand to another rank's memory."""
        family = self.phases[phase]
        return {key: self.objects.get(key) or b"" for number in numbers for key in (*family.keys(number), family.digest_key(number))}

    def absorb(self, objects: Mapping[str, bytes]) -> None:
        """Take over the objects of another rank's memory."""
        for key, value in objects.items():
            self.objects.set(key, value)

    # -- results -------------------------------------------------------------------------------------------------

    def create_results(self, arrays: Iterable[Array]) -> None:
        """Create result arrays, empty; those of an earlier attempt are overwritten."""
        self.guard()
        with self.objects.explained():
            root = zarr.open_group(self.objects.zarr, mode="r+", zarr_format=3)
            for array in arrays:
                self._arrays.pop(array.path, None)
                create(root, array, overwrite=True)

    def put(self, path: str, region: tuple[slice, ...] | Any, values: Any) -> None:
        """Write a region of a result array."""
        with self.objects.explained():
            self.array(path)[region] = values

    def complete(self, attributes: Mapping[str, Any]) -> None:
        """Write the root document with status complete and the digests of all other files: the last write of a run."""
        fault("finalize")
        self.guard()
        with self.objects.explained():
            self.objects.sweep()  # everywhere: the shards' chunks too, which takes seconds where there are tens of thousands
            names = [key for key in self.objects.names(self._chunks()) if _of_zarr(key) and key != "zarr.json"]
            digests = dict(zip(names, self.objects.map(self._sum, names), strict=True))
            # consolidated, so that xarray opens it without a warning and with one read
            documents = [key for key in names if key.endswith("/zarr.json")]
            texts = self.objects.map(self.objects.get, documents)
            metadata = {key.removesuffix("/zarr.json"): json.loads(text or b"") for key, text in zip(documents, texts, strict=True)}
            self.objects.set("zarr.json", sealed({**attributes, **self._identity, "status": "complete", "digests": digests}, metadata))

    def fail(self, message: str) -> None:
        """Note in the root document why a run failed. The store still resumes."""
        with suppress(OSError, StoreError):  # on a full disk it stays "running", and the failure itself is told
            attributes = unsealed(self.objects.get("zarr.json"))
            if attributes is not None and attributes.get("status") == "running":
                self.objects.set("zarr.json", sealed({**attributes, "status": "failed", "error": message}))

    def _chunks(self) -> set[str]:
        """Folders of the chunks that shards write: tens of thousands of files, each in a folder or more of its own."""
        return {f"{array.path}/c" for family in self.phases.values() for array in (*family.arrays.values(), family.digest)}

    def _owned(self) -> set[str]:
        """Keys whose bytes are vouched for by a shard's digest."""
        return {key for f in self.phases.values() for number in range(len(f)) for key in (*f.keys(number), f.digest_key(number))}

    def verify(self) -> list[str]:
        """Every damage, as a line each; empty for a complete and undamaged store."""
        attributes = unsealed(self.objects.get("zarr.json"))
        if attributes is None:
            return ["zarr.json: missing or changed (its seal does not match)"]
        lines = [] if attributes.get("status") == "complete" else [f"zarr.json: status is {attributes.get('status')}, not complete"]
        digests = attributes.get("digests", {})
        for key, found in zip(digests, self.objects.map(self._sum, digests), strict=True):
            if found != digests[key]:
                lines.append(f"{key}: missing" if found is None else f"{key}: changed (its digest does not match)")
        documents = {key: text for key, text in self._documents().items() if key not in digests}
        there = self.objects.map(self.objects.get, documents)
        lines += [f"{key}: missing or changed" for key, text in zip(documents, there, strict=True) if documents[key] != text]
        for family in self.phases.values():
            used = attributes.get("budget", {}).get("used", {}).get(family.name)
            for damage in self.objects.map(partial(self._shard_damage, family), family.numbers(used)):
                lines += damage
        return lines

    def _sum(self, key: str) -> str | None:
        found, digest = self.objects.pieces(key), hashlib.sha256()
        for piece in found[1] if found else ():
            digest.update(piece)
        return digest.hexdigest() if found else None

    def _shard_damage(self, family: Phase, number: int) -> list[str]:
        if self.is_done(family.name, number):
            return []
        missing = [key for key in (*family.keys(number), family.digest_key(number)) if self.objects.get(key) is None]
        if missing:
            return [f"{key}: missing ({family.name} shard {number})" for key in missing]
        keys = ", ".join(family.keys(number))
        return [f"{family.name} shard {number}: changed ({keys} or {family.digest_key(number)} does not match its digest)"]


def _of_zarr(key: str) -> bool:
    """Whether an object is a document or a chunk; a user may keep notes beside them."""
    return key.endswith(("zarr.json", "/c")) or "/c/" in key


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


def attributes(path: str | Path, also: str = "zarr.json") -> dict[str, Any]:
    """The root attributes of a store that is there, or those of the document `also`, in the words of this version.

    Raises `StoreError` if none is readable, or a newer version wrote it.
    """
    objects = objects_at(path)
    try:
        found = unsealed(objects.get("zarr.json")) or unsealed(objects.get(also))
    except OSError as error:  # a link to itself, no right to read
        raise StoreError(f"{path} cannot be read: {error.strerror} (errno {error.errno})") from error
    if found is None:
        way = "its root document is damaged, run again to repair it" if objects.names() else "there is nothing"
        raise StoreError(f"{path} is not a readable igc-dist store: {way}")
    check_root(found, path)
    return upgraded(found, path)
