"""A complete store in few files: the same results, the same answers, without the shards one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from igc_dist import folded
from igc_dist.address import objects_at
from igc_dist.folded import Source
from igc_dist.lock import Lock
from igc_dist.recomputed import View, passed_in, remembered, without
from igc_dist.records import StoreError
from igc_dist.store import Store, attributes


def compact(path: str | Path, out: str | Path) -> tuple[int, int]:
    """Write the folded layout of a complete store to `out`; returns the numbers of files of both.

    Results are taken over byte by byte. Raises `StoreError` for a store that is damaged, incomplete, compact already or without a
    recipe, and for an `out` that is not empty. Nothing is changed in `path`: delete it once `out` is complete.
    """
    store = Store.existing(path)
    if lines := store.verify():
        raise StoreError(
            f"store {path} cannot be made compact: {lines[0]} ({len(lines)} such lines). Run the same command again to finish it"
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
        there = {*target.objects.names()}
        for key in {*about["digests"]} - there:
            target.objects.set(key, store.objects.get(key) or b"")
        target.complete({**about, "recipe": {**recipe, "folded": True}})
    return len(store.objects.names()), len(target.objects.names())


def empty(out: str | Path) -> str | Path:
    """The path of a store to be written. Raises `StoreError` if there is anything."""
    if objects_at(out).names():
        raise StoreError(f"{out} is not empty: give another place for the new store, or delete it")
    return out


@contextmanager
def anew(out: Store, provenance: Mapping[str, Any]) -> Iterator[None]:
    """Prepare a store where nothing is, and hold its lock. Raises `StoreError` if something is, or somebody else fills it."""
    lock = Lock(out.objects)
    lock.take()
    out.guard = lock.check
    try:
        empty(out.path or "")
        out.prepare(provenance, {})
        yield
    finally:
        lock.release()
