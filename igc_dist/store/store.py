"""The Zarr store: what is written where, when a shard counts as done, and how damage is noticed. The only zarr.

Layout (Zarr format 3, dimensions named, opens with `xarray.open_datatree`):

    /                  results per output; attrs: schema, status, spec, spec_hash, provenance, digests, seal
    /x, /x1, ...       maps (output, *features)
    /convergence       running results over folds
    /samples           index, target, prediction, prediction_baseline, delta; attribution in /samples/x
    /shards/predict    pass 1: a record per fold (`igc_dist.store.record`)
    /shards/attribute  pass 2: a record per (fold x block of baselines, block of outputs)
    /.lock-000001      the run that fills the store, while it runs (`igc_dist.store.lock`)
    /.beacon           the status of that run, for watchers (`igc_dist.store.beacon`)

Every chunk has one writer. A shard is done if its digest, written last, matches its bytes as stored; so torn or lost
writes are noticed without an fsync. Group documents carry a seal over their own text, and the root's
document lists the digests of all other files, so that one flipped bit anywhere is noticed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from igc_dist.faults import fault
from igc_dist.records import StoreError
from igc_dist.secrets import masked, masked_spec, masked_text, same
from igc_dist.store.address import objects_at
from igc_dist.store.arrays import GROUP, chunks_of, document_of, documents_of, groups_of
from igc_dist.store.documents import differences, sealed, unsealed
from igc_dist.store.folder import GONE
from igc_dist.store.guarded import root
from igc_dist.store.layout import Array, Phase, array_of, plain
from igc_dist.store.lock import tidy
from igc_dist.store.schema import SCHEMA, upgraded
from igc_dist.store.shards import Shards


class Store(Shards):
    """A store that a run fills. All ranks write shards; only rank 0 creates, repairs and completes the store."""

    def __init__(
        self, path: str | Path | None, phases: Iterable[Phase], spec: Mapping[str, Any], spec_hash: str
    ) -> None:
        super().__init__(path, phases)
        self.spec, self.spec_hash = dict(spec), spec_hash
        self._fallen: bool | None = None  # known without another look at the root document
        self._groups: set[str] = set()
        """Keys of the documents of groups that are there."""

    @classmethod
    def existing(cls, path: str | Path) -> Store:
        """An existing store, for reading and verifying.

        Its layout is in the root document, or in the copy beside the shards.
        """
        objects_at(path).sizes()  # raises for what no run writes
        found = attributes(path, also="shards/zarr.json")
        return cls(path, [Phase.read(phase) for phase in found["layout"]], found["spec"], found["spec_hash"])

    @property
    def _identity(self) -> dict[str, Any]:
        layout = plain(self.phases.values())
        return {"schema": SCHEMA, "spec": self.spec, "spec_hash": self.spec_hash, "layout": layout}

    # -- creation and resume -------------------------------------------------------------------------------------

    def prepare(
        self, provenance: Mapping[str, Any], budget: Mapping[str, Any], lock: Callable[[], None] = lambda: None
    ) -> bool:
        """Create the store, or continue one of the same spec.

        Returns whether it is complete within the same budget, and undamaged. `lock` is called before anything is
        written, and may raise; a complete store needs no lock, and loses that of a run that was killed after its last
        write.

        Raises `StoreError` for a store of another spec, with the keys that differ, for one of another layout, and for a
        folder that is not a store.
        """
        with self.objects.explained():
            if self._ready(budget):
                tidy(self.objects)
                return True
            lock()
            found = self._mine()  # again: another run may have continued it meanwhile
            if found is not None and found.get("status") == "complete" and self._ready(budget):
                return True
            self.objects.sweep(self._chunks())
            kept = {"fallback": True} if found and found.get("fallback") else {}
            self._fallen = bool(kept)
            self.objects.set(
                "zarr.json", sealed({**self._identity, **kept, "status": "running", "provenance": masked(provenance)})
            )
            self._repair_documents()
        return False

    def _ready(self, budget: Mapping[str, Any]) -> bool:
        found = self._mine()
        if found is None:
            return False
        done = found.get("status") == "complete" and found["budget"]["wish"] == budget
        if self._adopted(found):
            return done and not self.verify()
        # `compact` or an older version wrote it
        if done and self.path is not None and not Store.existing(self.path).verify():
            return True
        raise StoreError(
            f"store {self.path} holds this run in another layout (compact, or of schema "
            f"{found.get('written', SCHEMA)} where this version writes {SCHEMA}), and is not complete, damaged or of "
            "another budget: it cannot be gone on with. Give another store.path, or delete that store"
        )

    def join(self) -> None:
        """Take over the layout of the store that another rank has prepared."""
        if self.path is not None and (found := self._found()) is not None:
            self._adopted(upgraded(found, self.path))

    def _adopted(self, found: Mapping[str, Any]) -> bool:
        """Whether a root document has the layout of this run, which may be that of before schema 5: it is kept."""
        for phases in (self.phases, {name: phase.earlier() for name, phase in self.phases.items()}):
            if found.get("layout") == plain(phases.values()):
                self.phases = phases
                return True
        return False

    def _mine(self) -> dict[str, Any] | None:
        """The attributes of the existing store, upgraded; None if there is none. Raises `StoreError` for another
        spec."""
        found = self._found()
        if found is None or (found := upgraded(found, self.path)).get("spec_hash") == self.spec_hash:
            return found
        its = masked_spec(found.get("spec", {}))  # an older version masked less
        if not same(its, self.spec):
            differing = "; ".join(differences(its, self.spec))
            raise StoreError(
                f"store {self.path} holds another run: {differing or 'its specs hash differently'}. "
                "Give another store.path, or delete that store"
            )
        return found

    def fallen(self) -> bool:
        """Whether the run fell back to a higher precision."""
        if self._fallen is None:
            self._fallen = bool((unsealed(self.objects.get("zarr.json")) or {}).get("fallback"))
        return self._fallen

    def fall(self) -> None:
        """Record that the run has fallen back."""
        self._fallen, about = True, unsealed(self.objects.get("zarr.json")) or self._identity
        self.objects.set("zarr.json", sealed({**about, "fallback": True}))

    def gone(self) -> bool:
        """Whether the store was removed: its root document is there from the first write to the last."""
        with suppress(OSError, StoreError):
            return self.path is not None and self.objects.get("zarr.json") is None
        return False

    def restart(self) -> None:
        """Remove all shards, then record that the run has fallen back.

        In this order, because a run that ends in between must fall back again.
        """
        self.guard()
        with self.objects.explained():
            for key in self._owned() & {*self.objects.names()}:
                self.objects.drop(key)
            self.fall()
        self.forget()

    def _found(self) -> dict[str, Any] | None:
        """The attributes of the store at this path, None if there is none.

        The group of the shards keeps a second copy of the spec.
        """
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
        """Write every missing or changed document of the shard arrays. Their text follows from the layout.

        Results of an earlier attempt are removed: they are written again, and a damaged document there would stop zarr.
        """
        documents = self._documents()
        for (key, text), there in zip(documents.items(), self.objects.map(self.objects.get, documents), strict=True):
            if there != text:
                self.objects.set(key, text)
        for key in {*self._unowned()} - {*documents}:
            self.objects.drop(key)

    def _unowned(self) -> list[str]:
        """Keys of the documents below the root, and of the chunks that no shard owns. A user may keep other files."""
        owned = {"", *(array.path for family in self.phases.values() for array in family.every)}
        names = self.objects.names(self._chunks())
        return [key for key in names if key.endswith("/zarr.json") or array_of(key) not in owned]

    def _documents(self) -> dict[str, bytes]:
        return {**documents_of(self.phases.values()), "shards/zarr.json": sealed(self._identity)}

    # -- results -------------------------------------------------------------------------------------------------

    def create_results(self, arrays: Iterable[Array]) -> None:
        """Create empty result arrays. Those of an earlier attempt went when the store was prepared."""
        self.guard()
        with self.objects.explained():
            for array in arrays:
                for key in groups_of(array.path):
                    if key not in self._groups and self.objects.get(key) is None:
                        self.objects.set(key, GROUP)
                    self._groups.add(key)
                self._arrays.pop(array.path, None)
                self.objects.set(f"{array.path}/zarr.json", document_of(array))

    def put(self, array: Array, values: Any, start: tuple[int, ...] = ()) -> None:
        """Write whole chunks of a result array: those of the values that begin at element `start`.

        Secrets in texts are masked.
        """
        given = np.asarray(values)
        if given.dtype.kind in "OTU":
            given = np.asarray(masked(given.tolist()), dtype=object)
        with self.objects.explained():
            for key, chunk in chunks_of(array, given, start):
                self.objects.set(key, chunk)

    def complete(self, attributes: Mapping[str, Any]) -> None:
        """Write the root document with status complete and the digests of all other files: the last write of a run."""
        fault("finalize")
        self.guard()
        if self.gone():  # what is left would be complete
            raise StoreError(GONE.format(self.path))
        with self.objects.explained():
            # all folders, including the shards' chunks: takes seconds for tens of thousands of chunks
            self.objects.sweep()
            names = self._unowned()
            digests = dict(zip(names, self.objects.map(self._sum, names), strict=True))
            # consolidated, so that xarray opens the store without a warning and with one read
            documents = [key for key in names if key.endswith("/zarr.json")]
            texts = self.objects.map(self.objects.get, documents)
            metadata = {
                key.removesuffix("/zarr.json"): json.loads(text or b"")
                for key, text in zip(documents, texts, strict=True)
            }
            self.objects.set(
                "zarr.json",
                sealed({**masked(attributes), **self._identity, "status": "complete", "digests": digests}, metadata),
            )

    def fail(self, message: str) -> None:
        """Record in the root document why a run failed. The store can still be resumed."""
        with suppress(OSError, StoreError):  # on a full disk the status stays "running"; the failure itself is raised
            attributes = unsealed(self.objects.get("zarr.json"))
            if attributes is not None and attributes.get("status") == "running":
                self.objects.set("zarr.json", sealed({**attributes, "status": "failed", "error": masked_text(message)}))

    def verify(self) -> list[str]:
        """All damages, one line each; empty for a complete and undamaged store."""
        attributes = unsealed(self.objects.get("zarr.json"))
        if attributes is None:
            return ["zarr.json: missing or changed (its seal does not match)"]
        lines = (
            []
            if attributes.get("status") == "complete"
            else [f"zarr.json: status is {attributes.get('status')}, not complete"]
        )
        digests = attributes.get("digests", {})
        for key, found in zip(digests, self.objects.map(self._sum, digests), strict=True):
            if found != digests[key]:
                lines.append(f"{key}: missing" if found is None else f"{key}: changed (its digest does not match)")
        documents = {key: text for key, text in self._documents().items() if key not in digests}
        there = self.objects.map(self.objects.get, documents)
        lines += [
            f"{key}: missing or changed" for key, text in zip(documents, there, strict=True) if documents[key] != text
        ]
        for family in self.phases.values():
            used = attributes.get("budget", {}).get("used", {}).get(family.name)
            for damage in self.objects.map(partial(self.damage, family), family.numbers(used)):
                lines += damage
        return lines


def attributes(path: str | Path, also: str = "zarr.json") -> dict[str, Any]:
    """The root attributes of an existing store, or those of the document `also`, upgraded to this version.

    Raises `StoreError` if none is readable, or a newer version wrote it.
    """
    found = root(objects_at(path), also)["attributes"]
    return {key: value for key, value in upgraded(found, path).items() if key != "seal"}
