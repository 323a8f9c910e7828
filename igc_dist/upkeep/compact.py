"""Writes a complete store in few files: the same results and answers, without single shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from igc_dist.records import StoreError
from igc_dist.results import View, passed_in, remembered, without
from igc_dist.store import Lock, Store, attributes, objects_at
from igc_dist.upkeep import folded
from igc_dist.upkeep.folded import Source


def compact(path: str | Path, out: str | Path) -> tuple[int, int]:
    """Write the folded layout of a complete store to `out`. Returns the numbers of files of both stores.

    Results are copied byte by byte. Raises `StoreError` for a store that is damaged, incomplete, already compact or
    without a recipe, and for an `out` that is not empty. `path` is not changed: you can delete it once `out` is
    complete.
    """
    store = Store.existing(path)
    if lines := store.verify():
        raise StoreError(
            f"store {path} cannot be made compact: {lines[0]} ({len(lines)} such lines). Run the same command again "
            "to finish it"
        )
    about = attributes(path)
    recipe = about.get("recipe")
    if recipe is None:
        raise StoreError(f"store {path} cannot be made compact: {without(about)}. Run it again into another store.path")
    if recipe.get("folded"):
        raise StoreError(f"store {path} is compact already")
    job = remembered(store, about)
    view = View(store, job.plan, folded=False)
    walked = {name: phase.n_folds for name, phase in passed_in(view, about).walked.items()}
    sources = [Source(view, walked)]
    target = Store(empty(out), folded.phases(sources, len(job.recipe.cells)), store.spec, store.spec_hash)
    with anew(target, about["provenance"]):
        folded.write(target, sources)
        written = {array.path for phase in store.phases.values() for array in phase.every}
        there = {*target.objects.names()} | {f"{path}/zarr.json" for path in written}
        for key in {*about["digests"]} - there:
            target.objects.set(key, store.objects.get(key) or b"")
        target.complete({**about, "recipe": {**recipe, "folded": True}})
    return len(store.objects.names()), len(target.objects.names())


def empty(out: str | Path) -> str | Path:
    """Return the path of a store to be written. Raises `StoreError` if it is not empty."""
    if objects_at(out).names():
        raise StoreError(f"{out} is not empty: give another place for the new store, or delete it")
    return out


@contextmanager
def anew(out: Store, provenance: Mapping[str, Any]) -> Iterator[None]:
    """Prepare a new store, and hold its lock.

    Raises `StoreError` if something is there already, or if another process fills it.
    """
    lock = Lock(out.objects)
    lock.take()
    out.guard = lock.check
    try:
        empty(out.path or "")
        out.prepare(provenance, {})
        yield
    finally:
        lock.release()
