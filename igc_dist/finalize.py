"""The end of a run: states are exchanged, results and what is known of them are written."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from igc_dist import audit, results
from igc_dist.budget import advice, draw_share, relative_errors
from igc_dist.distributed import World
from igc_dist.findings import Findings, Known, by_prediction
from igc_dist.findings import tables as tables_of
from igc_dist.job import Job
from igc_dist.layout import Array
from igc_dist.plan import Plan
from igc_dist.predict import BAD
from igc_dist.recipe import Recorded, document
from igc_dist.results import Block, Recipe, Walked
from igc_dist.statistics.state import SCALAR_TERMS
from igc_dist.store import Store


@dataclass(frozen=True)
class Passed:
    """How pass 2 went: why it ended, and what was walked of each phase."""

    reason: str
    walked: Mapping[str, Walked]

    @property
    def n_folds(self) -> int:
        """Folds that make the result."""
        return self.walked["attribute"].n_folds


def of_fold(store: Store, fold: int) -> Known:
    """The tables of pass 1."""
    return Known(*(store.read_own("predict", fold, name) for name in ("target", "prediction", "bad", "scores")))


Tables = dict[str, tuple[tuple[str, ...], np.ndarray]]
"""Arrays by path, with their dimensions."""


def finalize(
    job: Job | Recorded,
    plan: Plan,
    store: Store,
    world: World,
    passed: Passed,
    found: Findings,
    recipe: Recipe,
    provenance: Mapping[str, Any],
) -> None:
    """Exchange the states, a few outputs of each rank at a time; it writes their maps, and rank 0 the rest (in memory, each rank all)."""
    writes = world.first or store.path is None
    tables: dict[str, list[np.ndarray]] = {}
    if job.audited:
        precise = audit.errors(results.audited(world, store, plan, passed.walked["attribute"].mine))
        if isinstance(job, Job):  # and not a store that was let pass
            job.audit.judge(job.model, precise, job.targets.labels(plan.work.outputs))
        tables |= {name: [values] for name, values in precise.items()}
    if plan.work.certified and writes:
        for name, counts in zip(("failed", "evaluations"), store.read("attribute", "certificate").sum(0), strict=True):
            tables[name] = [counts]
    before = {*store.objects.names()} if store.path is None else set()
    found_here: dict[int, dict[str, np.ndarray]] = {}
    for number, cuts in enumerate(results.dealt(world, plan)):
        slots, *again = (
            results.exchange(world, store, plan, phase, walked, cuts, found.centre, job.terms) for phase, walked in passed.walked.items()
        )
        block = None if slots is None else results.results(slots, recipe)
        if number == 0:
            _create_maps(store, world, () if block is None else _maps(plan, block))
        if slots is None or block is None:
            continue
        cut = cuts[world.rank]
        if (job.budget.limited or again) and any(statistic.jackknifed for statistic in job.statistics):
            block.outputs["rel_se"] = relative_errors(slots, recipe)
        for others in again:
            assert others is not None  # the same cut
            block.outputs["draw_share"] = draw_share(slots, others, recipe)
        folders = {"": block.outputs, "convergence/": block.running, "slices/": block.slice_outputs}
        found_here[cut.start] = {folder + name: values for folder, arrays in folders.items() for name, values in arrays.items()}
        for array, maps in _maps(plan, block):
            store.put(array.path, (*(slice(None),) * array.dims.index("output"), cut), maps)
    for part in results.gathered(world, found_here):
        for name, values in part.items():
            tables.setdefault(name, []).append(values)
    if store.path is None:
        keys = [key for key in store.objects.names() if key not in before]
        for objects in world.gather({key: store.objects.get(key) for key in keys}) if world.size > 1 else []:
            store.absorb(objects)
    if writes:
        axes = {"convergence": ("fold", "output"), "slices": ("slice", "output")}
        dims_of = {path: axes.get(path.split("/")[0], ("output",)) for path in tables}
        _write_tables(job, plan, store, found, {path: (dims_of[path], np.concatenate(cuts, axis=-1)) for path, cuts in tables.items()})
        _write_known(job, plan, store, found)
        about = {
            "method": job.method,
            "recipe": document(job, plan, recipe),
            "sums_to_prediction": recipe.complete,
            "skipped": _skipped(plan, store),
            "cost": _cost(plan, passed),
        }
        about |= {"retried": _retried(plan, store), "fallback": job.model.precision if store.fallen() else None}
        store.complete({**about, "budget": _spent(job, plan, passed, tables), "provenance": dict(provenance)})
    world.meet("complete")


def _maps(plan: Plan, block: Block) -> Iterator[tuple[Array, np.ndarray]]:
    """Maps of some outputs, (J, *P) or (S, J, *P), each with the array of all outputs that it is a part of."""
    for folder, by_input in (("", block.maps), ("slices/", block.slice_maps)):
        for input_name, dims, maps in zip(plan.shapes.input_names, plan.shapes.dims, by_input, strict=False):
            for name, values in maps.items():
                at = values.ndim - len(dims) - 1  # the axis of the outputs
                lead, features = values.shape[:at], values.shape[at + 1 :]
                shape, chunks = ((*lead, outputs, *features) for outputs in (len(plan.work.outputs), plan.finalize_outputs))
                yield Array(f"{folder}{input_name}/{name}", shape, chunks, "float64", (*("slice",) * at, "output", *dims)), values


def _create_maps(store: Store, world: World, maps: Iterable[tuple[Array, np.ndarray]]) -> None:
    """Create the arrays that rank 0 has maps for, once for all ranks; in memory, each rank its own."""
    arrays = [array for array, _ in maps]

    def create() -> list[Any]:
        store.create_results(arrays)
        return [asdict(array) for array in arrays]

    named = world.share(create)
    if store.path is None and not world.first:
        store.create_results(Array(**array) for array in named)


def _write_tables(job: Job | Recorded, plan: Plan, store: Store, found: Findings, tables: Tables) -> None:
    """Write results that are not maps, coordinates, and the tables of the samples."""
    tables["output"] = (("output",), job.targets.labels(plan.work.outputs))
    if job.slices is not None and len(job.slices.labels) > 1:
        labels = job.slices.labels
        tables["slices/slice"] = (("slice",), labels.astype(object) if labels.dtype.kind in "US" else labels)
    tables["convergence/fold"] = (("fold",), np.arange(1, 1 + len(tables["convergence/n"][1])))
    tables["shards/attribute/term"] = (("term",), np.asarray([term or "1" for term in job.terms], dtype=object))
    tables["shards/attribute/scalar_term"] = (("scalar_term",), np.asarray([term or "1" for term in SCALAR_TERMS], dtype=object))
    if job.weights is not None:
        tables["known/sample_weight"] = (("sample",), job.weights[plan.order])
    for name, dims, centre in zip(plan.shapes.input_names, plan.shapes.dims, found.centre.a or (), strict=False):
        # all inputs are in one group, where a dimension has one size
        tables[f"shards/centre/{name}"] = (("output", *(f"{name}_{dim}" for dim in dims)), centre)
    if job.samples:
        tables |= {"samples/index": (("sample",), plan.order)}
        tables |= {f"samples/{name}": (("sample", "output"), store.read("predict", name)) for name in ("target", "prediction")}
    for path, (dims, values) in tables.items():
        kind = "string" if values.dtype.kind == "O" else str(values.dtype)
        store.create_results([Array(path, values.shape, values.shape, kind, dims)])
        store.put(path, ..., values)


def _write_known(job: Job | Recorded, plan: Plan, store: Store, found: Findings) -> None:
    """What pass 1 knows of each sample, some folds at a time."""
    n, outputs = plan.shapes.n_samples, len(plan.work.outputs)
    at_once = plan.fold_size * max(1, 2**22 // (plan.fold_size * outputs))
    waiting: list[dict[str, np.ndarray]] = []
    start = 0
    for rows, arrays in tables_of(plan, found, job.weights, partial(of_fold, store), by_prediction(plan, found, partial(of_fold, store))):
        waiting.append(arrays)
        if rows.stop - start < at_once and rows.stop < n:
            continue
        for name in arrays:
            values = np.concatenate([one[name] for one in waiting])
            if not start:
                dims = ("sample", "output")[: values.ndim]
                shape, chunks = ((size, *values.shape[1:]) for size in (n, min(n, at_once)))
                store.create_results([Array(f"known/{name}", tuple(shape), tuple(chunks), str(values.dtype), dims)])
            store.put(f"known/{name}", slice(start, rows.stop), values)
        start, waiting = rows.stop, []


def _spent(job: Job | Recorded, plan: Plan, passed: Passed, tables: Mapping[str, Sequence[np.ndarray]]) -> dict[str, Any]:
    """What the budget was, where the run ended and why, and what to add."""
    used = {phase: walked.n_folds * plan.n_baseline_blocks for phase, walked in passed.walked.items()}
    found = {"wish": asdict(job.budget), "folds": passed.n_folds, "of": plan.n_folds, "reason": passed.reason, "used": used}
    if "rel_se" in tables:
        share = np.concatenate(tables["draw_share"]) if "draw_share" in tables else None
        found["advice"] = advice(np.concatenate(tables["rel_se"]), share, passed.n_folds == plan.n_folds)
    return found


def _skipped(plan: Plan, store: Store) -> list[dict[str, Any]]:
    bad = store.read("predict", "bad").copy()
    if "skipped" in store.phases["attribute"].arrays:
        bad = np.where((bad == 0) & store.read("attribute", "skipped").any(1), 4, bad)
    rows = np.flatnonzero(bad)
    return sorted(
        ({"index": int(plan.order[row]), "reason": f"NaN or infinity in its {BAD[int(bad[row])]}"} for row in rows),
        key=lambda entry: entry["index"],
    )


def _retried(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """Shards that ran out of memory, with the micro-batch (samples, points) that fitted: their rounding differs."""
    walked = store.read("attribute", "micro_batch")
    smaller = (walked != (plan.samples_per_batch, plan.points_per_batch)).any(2) & walked.any(2)  # 0: of a fold that was left out
    return [{"shard": int(b * plan.n_parts + part), "micro_batch": walked[part, b].tolist()} for part, b in np.argwhere(smaller)]


def _cost(plan: Plan, passed: Passed) -> dict[str, Any]:
    """Of the folds that were walked; pairs whose targets agree cost nothing, so of pairs it is a bound."""
    rows = sum(len(plan.fold(fold)) for walked in passed.walked.values() for fold in range(walked.n_folds))
    of = {"gradient_evaluations": plan.gradient_evaluations, "forwards": plan.forwards}
    shards = sum(walked.n_folds for walked in passed.walked.values()) * plan.n_baseline_blocks * plan.n_output_blocks
    return {"mode": plan.mode, "shards": shards} | {name: number * rows // plan.shapes.n_samples for name, number in of.items()}


def versions() -> dict[str, str]:
    """Of this package, of those that decide its numbers, and of Python."""
    packages = ("igc-dist", "torch", "lightning", "numpy", "zarr")
    return {name: _version(name) for name in packages} | {"python": platform.python_version()}


def provenance(job: Job, world: World, started: float) -> dict[str, Any]:
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else platform.processor() or platform.machine(),
        "ranks": world.size,
        "rule": job.attributor.rule,
        "threads": torch.get_num_threads(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 3),
        **{name: str(value) for name, value in job.labels.items()},
    }


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
