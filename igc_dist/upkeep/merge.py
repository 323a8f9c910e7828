"""Merges stores: shards of one run from several sites, or complete runs over disjoint data sets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from igc_dist.data import Sliced
from igc_dist.distributed import World
from igc_dist.job import spec_hash
from igc_dist.passes import centre_of, findings, of_piece, packed
from igc_dist.records import StoreError
from igc_dist.results import Finalizer, Passed, Recorded, View, Walked, found_in, remembered, without
from igc_dist.statistics import SCALAR_TERMS, Centre, State
from igc_dist.store import Store, address, attributes, differences
from igc_dist.upkeep import folded
from igc_dist.upkeep.compact import anew, empty
from igc_dist.upkeep.folded import Source

FREE = (
    "data.",
    "weights",
    "slices.",
    "filter.kept",
    "plan.fold_size",
    "plan.samples_per_batch",
    "plan.points_per_batch",
)
"""Keys of a spec that may differ between runs over disjoint data sets: the data, and what follows from their size."""


@dataclass(frozen=True)
class Merged:
    """The result of a merge: `done` of `total` shards are there, and whether the store is complete."""

    done: int
    total: int
    complete: bool


def merge(paths: Sequence[str | Path], out: str | Path, overlap: bool = False) -> Merged:
    """Merge stores into `out`, which must be empty.

    If all specs are equal, `out` gets the union of the finished shards. The run can finish it, with the same bits. If
    specs differ only in the data, the data sets count as disjoint, and `out` is the complete store of all of them. It
    is as one run over all data would give it, except for rounding, for the folds behind the standard errors, and for
    draws, which are addressed by the index of a sample in its own data set.

    Raises `StoreError` with the reason for stores that do not fit together. This includes stores that share more than
    half of the samples of one of them, unless `overlap`.
    """
    stores, about = [Store.existing(path) for path in paths], [attributes(path) for path in paths]
    target = empty(out)
    if {bool(one.get("fallback")) for one in about} == {False, True}:
        raise StoreError(
            f"of {_names(paths)}, some fell back to a higher precision and some did not: run all with "
            "fabric.precision=32-true"
        )
    if len({store.spec_hash for store in stores}) == 1:
        return _unite(stores, about, target)
    parts = [_part(store, one) for store, one in zip(stores, about, strict=True)]
    _refuse_others(parts)
    if not overlap:
        _refuse_overlap(parts)
    return _join(parts, target)


def _names(paths: Sequence[Any]) -> str:
    return ", ".join(map(str, paths))


def _sources(stores: Sequence[Store], about: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The provenance of a merged store."""
    each = {address.name(store.path or ""): one.get("provenance", {}) for store, one in zip(stores, about, strict=True)}
    return {"merged": each, "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


# -- one run at several sites ------------------------------------------------------------------------------------------


def _unite(stores: Sequence[Store], about: Sequence[Mapping[str, Any]], target: str | Path) -> Merged:
    """Write the shards of all stores into one. The digest of each shard is written last."""
    first = stores[0]
    for store, one in zip(stores, about, strict=True):
        if one["layout"] != about[0]["layout"] or (one.get("recipe") or {}).get("folded"):
            raise StoreError(
                f"stores {first.path} and {store.path} are of one run, but one is compact: merge the store that it "
                "was made of"
            )
    owners = {
        (name, number): _owner(stores, name, number)
        for name, phase in first.phases.items()
        for number in range(len(phase))
    }
    out = Store(target, first.phases.values(), first.spec, first.spec_hash)
    done = {shard: owner for shard, owner in owners.items() if owner is not None}
    with anew(out, _sources(stores, about)):
        if about[0].get("fallback"):
            out.fall()
        for (name, number), owner in done.items():
            out.absorb(owner.objects_of(name, [number]))
    return Merged(len(done), len(owners), complete=False)


def _owner(stores: Sequence[Store], phase: str, number: int) -> Store | None:
    """A store in which the shard is done. Raises `StoreError` if it is done in several stores but differs."""
    having = [store for store in stores if store.is_done(phase, number)]
    key = stores[0].phases[phase].digest_key(number)
    for store in having[1:]:
        if store.objects.get(key) != having[0].objects.get(key):
            raise StoreError(
                f"{phase} shard {number} is not the same in {having[0].path} and {store.path}, although both are of "
                "one run: they were "
                "computed by other versions or on other hardware (see igc-dist info). Delete one, and finish the other"
            )
    return having[0] if having else None


# -- disjoint data sets ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A complete store over a part of the data."""

    store: Store
    about: Mapping[str, Any]
    job: Recorded
    view: View
    centre: Centre
    """The centre of its states."""


def _part(store: Store, about: Mapping[str, Any]) -> Part:
    """Read a part. Raises `StoreError` if its states cannot be merged with those of other data."""
    where, way = f"store {store.path} cannot be merged with one over other data", "Run once over all data"
    if lines := store.verify():
        raise StoreError(
            f"{where}: {lines[0]} ({len(lines)} such lines). Run the same command again to finish or repair it"
        )
    if about.get("recipe") is None:
        raise StoreError(f"{where}: {without(about)}. Run it again into another store.path")
    job, budget = remembered(store, about), about["budget"]
    if job.document["pooled"]:
        raise StoreError(
            f"{where}: {job.document['pooled']}, so its numbers would be others. {way}, or take a fixed baseline"
        )
    for statistic in job.statistics:
        if statistic.n_groups > 1 and None in (getattr(statistic, "low", 0), getattr(statistic, "high", 0)):
            raise StoreError(
                f"{where}: the groups of {statistic.name} follow from its targets. {way}, or give "
                f"{statistic.name}.low and high"
            )
    if budget["folds"] < budget["of"] or "replicate" in store.phases:
        raise StoreError(f"{where}: a budget left folds out, or walked some twice. {way}, or each without a budget")
    view = View(store, job.plan, bool(job.document["folded"]))
    return Part(store, about, job, view, found_in(view, job).centre)


def _refuse_others(parts: Sequence[Part]) -> None:
    """Raise `StoreError` unless all specs are equal apart from the data."""
    first = parts[0]
    for part in parts[1:]:
        lines = [line for line in differences(first.store.spec, part.store.spec) if not line.startswith(FREE)]
        for column in ("weights", "slices"):
            if (first.store.spec[column] is None) != (part.store.spec[column] is None):
                lines.append(f"{column}: in one of them only")
        if lines:
            said = (
                "; ".join(lines)
                .replace(" in the store, ", f" in {first.store.path}, ")
                .replace(" asked for", f" in {part.store.path}")
            )
            raise StoreError(f"stores of different questions cannot be merged: {said}")


def _refuse_overlap(parts: Sequence[Part]) -> None:
    """Raise `StoreError` if more than half of the samples of one store have a twin in another store.

    A twin has equal targets and predictions.
    """

    def rows(part: Part) -> list[bytes]:
        table = np.concatenate(
            [part.view.read("predict", name).astype(np.float64) for name in ("target", "prediction")], axis=1
        )
        return [row.tobytes() for row in np.ascontiguousarray(table)]

    tables = [rows(part) for part in parts]
    for (a, one), (b, two) in combinations(zip(parts, tables, strict=True), 2):
        few, many = sorted((one, two), key=len)
        others = {*many}
        twins = sum(row in others for row in few)
        if 2 * twins > len(few):
            raise StoreError(
                f"{twins} of {len(few)} samples have the same target and prediction in {a.store.path} and "
                f"{b.store.path}: they would count "
                "twice. Merge disjoint data sets; if these are, and only look alike, say so with --overlap"
            )


def _join(parts: Sequence[Part], target: str | Path) -> Merged:
    """Move the states of all parts to a common centre, then finalize over all folds."""
    views, first = [part.view for part in parts], parts[0]
    centre = replace(centre_of(np.concatenate([view.read("predict", "means") for view in views])), a=first.centre.a)
    job = _joined(parts)
    sources = [Source(part.view, {"attribute": part.job.plan.n_folds}, _mover(part, job, centre)) for part in parts]
    spec = _spec(parts)
    out = Store(target, folded.phases(sources, len(job.recipe.cells)), spec, spec_hash(spec))
    about = _sources([part.store for part in parts], [part.about for part in parts])
    with anew(out, about):
        if job.precision:
            out.fall()
        folded.write(out, sources)
        view = View(out, job.plan, folded=True)
        found = replace(
            findings.find(job.plan, view.read("predict", "means"), job.weights, partial(of_piece, view)), centre=centre
        )
        walked = Walked(job.plan.n_folds, view.phases["attribute"].numbers())
        end = Finalizer(job, job.plan, view, World(), found, job.recipe)
        end.finalize(Passed("all folds", {"attribute": walked}), about)
    return Merged(n := len(view.phases["predict"]) + len(view.phases["attribute"]), n, complete=True)


def _joined(parts: Sequence[Part]) -> Recorded:
    """The job over the data of all parts."""
    first, plans = parts[0].job, [part.job.plan for part in parts]
    pieces = tuple(piece for plan in plans for piece in plan.pieces)
    slices = first.slices
    if slices is not None:
        slices = Sliced(
            slices.number,
            np.unique(np.concatenate([part.job.slices.labels for part in parts if part.job.slices is not None])),
        )
    n_slices = 1 if slices is None else len(slices.labels)
    shapes = replace(first.plan.shapes, n_samples=sum(n for n, _ in pieces))
    work = replace(first.plan.work, n_slices=n_slices, n_cells=n_slices * first.recipe.cells.n_groups)
    plan = replace(first.plan, shapes=shapes, work=work, pieces=pieces)
    recipe = replace(first.recipe, cells=replace(first.recipe.cells, n_slices=n_slices))
    weights = (
        None
        if first.weights is None
        else np.concatenate([part.job.weights for part in parts if part.job.weights is not None])
    )
    return first.union([part.job for part in parts], plan, recipe, weights, slices)


def _mover(part: Part, job: Recorded, centre: Centre) -> Callable[[str, int, int], Mapping[str, np.ndarray]]:
    """A function that moves the states of a part to a common centre, and into the cells of all parts."""
    plan, names, n_groups = part.job.plan, part.job.plan.shapes.input_names, job.recipe.cells.n_groups
    at = None
    if part.job.slices is not None and job.slices is not None:
        at = np.searchsorted(job.slices.labels, part.job.slices.labels)

    def placed(array: np.ndarray) -> np.ndarray:
        if at is None:
            return array
        cells = array.reshape(len(array), -1, n_groups, *array.shape[2:])
        found = np.zeros((len(array), job.recipe.cells.n_slices, *cells.shape[2:]))
        found[:, at] = cells
        return found.reshape(len(array), len(job.recipe.cells), *array.shape[2:])

    def move(phase: str, fold: int, block: int) -> Mapping[str, np.ndarray]:
        outputs = slice(block * plan.output_block, min((block + 1) * plan.output_block, len(plan.work.outputs)))
        scalars, *features = (part.view.fold_state(phase, fold, block, name) for name in ("scalars", *names))
        sums = tuple(dict(zip(job.terms, array, strict=True)) for array in features)
        state = State(part.centre.outputs(outputs), dict(zip(SCALAR_TERMS, scalars, strict=True)), sums).shift(
            centre.outputs(outputs)
        )
        return {name: placed(array[0]) for name, array in packed(state, job.terms, names).items()}

    return move


def _spec(parts: Sequence[Part]) -> dict[str, Any]:
    """The spec of the union: that of the first part, but with flat lists for the data, also after repeated merges."""

    def every(of: Callable[[Any], Any], value: Callable[[Any], Any]) -> dict[str, Any]:
        found = [of(part.store.spec) for part in parts]
        return {"merged": [one for each in found for one in (each["merged"] if "merged" in each else [value(each)])]}

    spec = dict(parts[0].store.spec)
    data = every(itemgetter("data"), itemgetter("digest"))
    spec["data"] = {**data, "n": sum(part.job.plan.shapes.n_samples for part in parts)}
    for column in ("weights", "slices"):
        if spec[column] is not None:
            spec[column] = every(itemgetter(column), lambda found: found)
    if (spec.get("filter") or {}).get("kept"):  # decided before the model was called, from each data set
        kept = every(lambda spec: spec["filter"]["kept"], lambda found: found)
        spec["filter"] = {**spec["filter"], "kept": kept}
    return spec
