"""The end of a run: exchange the states, then write the results and the facts about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from igc_dist.data import LEFT_OUT
from igc_dist.distributed import World
from igc_dist.job import Job
from igc_dist.passes import BAD, UNREAD, Findings, audit
from igc_dist.planning import Plan
from igc_dist.results.block import Block, Recipe, block_of
from igc_dist.results.errors import advice, draw_share, relative_errors
from igc_dist.results.exchange import Exchange, Slots, Walked, dealt, gathered, share_objects
from igc_dist.results.recipe import Recorded, document
from igc_dist.results.rows import write_explained, write_known, write_samples
from igc_dist.results.scores import scored, settings
from igc_dist.statistics import SCALAR_TERMS
from igc_dist.store import Array, Store


@dataclass(frozen=True)
class Passed:
    """How pass 2 went: why it ended, and which folds of each phase were walked."""

    reason: str
    walked: Mapping[str, Walked]

    @property
    def n_folds(self) -> int:
        """The number of folds in the result."""
        return self.walked["attribute"].n_folds


Tables = dict[str, tuple[tuple[str, ...], np.ndarray]]
"""Arrays with their dimensions, by path."""


@dataclass(frozen=True)
class Finalizer:
    """The end of a run, which computes the results. `job` may be the record of a job from a store."""

    job: Job | Recorded
    plan: Plan
    store: Store
    world: World
    found: Findings
    recipe: Recipe

    def finalize(self, passed: Passed, provenance: Mapping[str, Any]) -> None:
        """Exchange the states and write the results. Each rank handles a few outputs at a time.

        Each rank writes the maps of its outputs, and rank 0 everything else. In memory, each rank writes everything.
        """
        tables = self._precision(passed) | self._certificate()
        before = {*self.store.objects.names()} if self.store.path is None else set()
        for part in gathered(self.world, self._outputs(passed)):
            for name, values in part.items():
                tables.setdefault(name, []).append(values)
        if self.store.path is None:
            self._absorb(before)
        if self.world.first or self.store.path is None:
            self._write(tables)
            self.store.complete({**self._about(passed, tables), "provenance": dict(provenance)})
        self.world.meet("complete")

    @cached_property
    def _exchange(self) -> Exchange:
        return Exchange(self.world, self.store, self.plan, self.found.centre, self.job.terms)

    def _precision(self, passed: Passed) -> dict[str, list[np.ndarray]]:
        """The errors that an audit found, checked against its tolerance."""
        if not self.job.audited:
            return {}
        precise = audit.errors(self._exchange.audited(passed.walked["attribute"].mine))
        if isinstance(self.job, Job):  # a recorded job already passed the audit
            self.job.audit.judge(self.job.model, precise, _names(self.job, self.plan))
        return {name: [values] for name, values in precise.items()}

    def _certificate(self) -> dict[str, list[np.ndarray]]:
        """For an attributor with a tolerance: how many samples failed, and how many gradients it took."""
        if not self.plan.work.certified or not (self.world.first or self.store.path is None):
            return {}
        counts = self.store.read("attribute", "certificate").sum(0)
        return {name: [of] for name, of in zip(("failed", "evaluations"), counts, strict=True)}

    def _outputs(self, passed: Passed) -> dict[int, dict[str, np.ndarray]]:
        """Finalize the outputs of this rank and write their maps. Returns tables by the first output of each cut."""
        found: dict[int, dict[str, np.ndarray]] = {}
        for number, cuts in enumerate(dealt(self.world, self.plan)):
            self.world.watch("finalize")
            slots, *again = (self._exchange.states(phase, walked, cuts) for phase, walked in passed.walked.items())
            block = None if slots is None else block_of(slots, self.recipe)
            if number == 0:
                _create_maps(self.store, self.world, () if block is None else _maps(self.plan, block))
            if slots is None or block is None:
                continue
            cut = cuts[self.world.rank]
            self._add_errors(block, slots, again)
            if self.plan.work.each:
                _leave_out_correlation(block)
            folders = {"": block.outputs, "convergence/": block.running, "slices/": block.slice_outputs}
            found[cut.start] = {
                folder + name: values for folder, arrays in folders.items() for name, values in arrays.items()
            }
            for array, maps in _maps(self.plan, block):
                self.store.put(array, maps, (*(0,) * array.dims.index("output"), cut.start))
        return found

    def _add_errors(self, block: Block, slots: Slots, again: Sequence[Slots | None]) -> None:
        """If the job has a budget, add the error of the maps and the part of it that comes from draws."""
        if (self.job.budget.limited or again) and any(statistic.jackknifed for statistic in self.job.statistics):
            block.outputs["rel_se"] = relative_errors(slots, self.recipe)
        for others in again:
            assert others is not None  # it has the same cut as `slots`
            block.outputs["draw_share"] = draw_share(slots, others, self.recipe)

    def _absorb(self, before: set[str]) -> None:
        """In memory: add what the other ranks wrote."""
        store, world = self.store, self.world
        keys = [key for key in store.objects.names() if key not in before]
        share_objects(world, store, {key: store.objects.get(key) or b"" for key in keys})

    def _write(self, tables: Mapping[str, Sequence[np.ndarray]]) -> None:
        axes = {"convergence": ("fold", "output"), "slices": ("slice", "output")}
        dims_of = {path: axes.get(path.split("/")[0], ("output",)) for path in tables}
        whole: Tables = {path: (dims_of[path], np.concatenate(cuts, axis=-1)) for path, cuts in tables.items()}
        _write_tables(self.job, self.plan, self.store, self.found, whole)
        if self.job.samples:
            write_samples(self.plan, self.store)
        if self.plan.work.each and (self.job.samples or self.plan.work.scores):
            write_explained(self.job, self.plan, self.store)
        write_known(self.job, self.plan, self.store, self.found)

    def _about(self, passed: Passed, tables: Mapping[str, Sequence[np.ndarray]]) -> dict[str, Any]:
        """The entries of the root document that describe the results."""
        job, plan, store = self.job, self.plan, self.store
        return {
            "method": job.method,
            "recipe": document(job, plan, self.recipe),
            "sums_to_prediction": self.recipe.complete,
            "skipped": _skipped(job, plan, store),
            **_filtered(job, plan, store),
            "cost": _cost(plan, passed, store),
            **({"metrics": settings(job.metrics)} if job.metrics else {}),
            "retried": _retried(plan, store),
            "fallback": job.model.precision if store.fallen() else None,
            "budget": _spent(job, plan, passed, tables),
        }


def _leave_out_correlation(block: Block) -> None:
    """Where each sample has outputs of its own, predictions of different outputs have no correlation in common."""
    for outputs in (block.outputs, block.running, block.slice_outputs):
        for name in [name for name in outputs if name.startswith(("correlation", "baseline_term", "constant"))]:
            del outputs[name]


def _maps(plan: Plan, block: Block) -> Iterator[tuple[Array, np.ndarray]]:
    """Maps of some outputs, (J, *P) or (S, J, *P). Each comes with the array of all outputs that contains it."""
    for folder, by_input in (("", block.maps), ("slices/", block.slice_maps)):
        for input_name, dims, maps in zip(plan.shapes.input_names, plan.shapes.dims, by_input, strict=False):
            for name, values in maps.items():
                at = values.ndim - len(dims) - 1  # the axis of the outputs
                lead, features = values.shape[:at], values.shape[at + 1 :]
                shape, chunks = (
                    (*lead, outputs, *features) for outputs in (len(plan.work.outputs), plan.finalize_outputs)
                )
                yield (
                    Array(
                        f"{folder}{input_name}/{name}", shape, chunks, "float64", (*("slice",) * at, "output", *dims)
                    ),
                    values,
                )


def _create_maps(store: Store, world: World, maps: Iterable[tuple[Array, np.ndarray]]) -> None:
    """Create the arrays of rank 0's maps, once for all ranks. In memory, each rank creates its own."""
    arrays = [array for array, _ in maps]

    def create() -> list[Any]:
        store.create_results(arrays)
        return [asdict(array) for array in arrays]

    named = world.share(create)
    if store.path is None and not world.first:
        store.create_results(Array.read(array) for array in named)


def _names(job: Job | Recorded, plan: Plan) -> np.ndarray:
    return job.targets.labels(plan.work.outputs, plan.shapes.n_outputs)


def _write_tables(job: Job | Recorded, plan: Plan, store: Store, found: Findings, tables: Tables) -> None:
    """Write the results that are not maps, the coordinates, and the tables of the samples."""
    tables["output"] = (("output",), _names(job, plan))
    if job.slices is not None and len(job.slices.labels) > 1:
        labels = job.slices.labels
        tables["slices/slice"] = (("slice",), labels.astype(object) if labels.dtype.kind in "US" else labels)
    tables["convergence/fold"] = (("fold",), np.arange(1, 1 + len(tables["convergence/n"][1])))
    tables["shards/attribute/term"] = (("term",), np.asarray([term or "1" for term in job.terms], dtype=object))
    tables["shards/attribute/scalar_term"] = (
        ("scalar_term",),
        np.asarray([term or "1" for term in SCALAR_TERMS], dtype=object),
    )
    if job.weights is not None:
        tables["known/sample_weight"] = (("sample",), job.weights[plan.order])
    for name, dims, centre in zip(plan.shapes.input_names, plan.shapes.dims, found.centre.a or (), strict=False):
        # all inputs share one group, and a dimension has one size per group
        tables[f"shards/centre/{name}"] = (("output", *(f"{name}_{dim}" for dim in dims)), centre)
    for dim, named in plan.shapes.coordinates:
        for name, dims in zip(plan.shapes.input_names, plan.shapes.dims, strict=True):
            places = [name, *[f"slices/{name}"] * ("slices/slice" in tables), *[f"samples/{name}"] * job.samples]
            tables |= {f"{place}/{dim}": ((dim,), np.asarray(named, object)) for place in places if dim in dims}
    if plan.work.scores:
        tables |= scored(plan, store)
    if job.samples or plan.work.scores:
        tables["samples/index"] = (("sample",), plan.order)
    for path, (dims, values) in tables.items():
        kind = "string" if values.dtype.kind == "O" else str(values.dtype)
        array = Array(path, values.shape, values.shape, kind, dims)
        store.create_results([array])
        store.put(array, values)


def _spent(
    job: Job | Recorded, plan: Plan, passed: Passed, tables: Mapping[str, Sequence[np.ndarray]]
) -> dict[str, Any]:
    """The budget, where the run ended and why, and what to increase."""
    used = {phase: walked.n_folds * plan.n_baseline_blocks for phase, walked in passed.walked.items()}
    found = {
        "wish": asdict(job.budget),
        "folds": passed.n_folds,
        "of": plan.n_folds,
        "reason": passed.reason,
        "used": used,
    }
    if "rel_se" in tables:
        share = np.concatenate(tables["draw_share"]) if "draw_share" in tables else None
        found["advice"] = advice(np.concatenate(tables["rel_se"]), share, passed.n_folds == plan.n_folds)
    return found


def _skipped(job: Job | Recorded, plan: Plan, store: Store) -> list[dict[str, Any]]:
    """The samples that were left out, with the reason, and the path if it could not be read and the data tell it."""
    bad = store.read("predict", "bad").copy()
    if "skipped" in store.phases["attribute"].arrays:
        bad = np.where((bad == 0) & store.read("attribute", "skipped").any(1), 4, bad)
    rows = np.flatnonzero((bad > 0) & ~np.isin(bad, [*LEFT_OUT]))
    found: list[dict[str, Any]] = sorted(
        ({"index": int(plan.order[row]), "reason": BAD[int(bad[row])]} for row in rows),
        key=lambda entry: entry["index"],
    )
    path_of = job.source.path if isinstance(job, Job) else job.paths.get
    for entry in found:
        path = path_of(entry["index"]) if entry["reason"] == BAD[UNREAD] else None
        entry |= {} if path is None else {"path": path}
    return found


def _filtered(job: Job | Recorded, plan: Plan, store: Store) -> dict[str, Any]:
    """The filter, and how many samples it left out for which reason; `known/left_out` says which."""
    if job.filter is None:
        return {}
    codes, n = np.unique(store.read("predict", "bad"), return_counts=True)
    counts = {LEFT_OUT[int(code)]: int(count) for code, count in zip(codes, n, strict=True) if int(code) in LEFT_OUT}
    kept = plan.shapes.n_samples - sum(counts.values())
    text = job.filter.text if isinstance(job, Job) else job.filter
    reasons = {str(code): reason for code, reason in LEFT_OUT.items()}
    return {"filter": {"filter": text, "kept": kept, "left_out": counts, "codes": reasons}}


def _retried(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """Shards that ran out of memory, with the micro-batch (samples, points) that fitted. Their rounding differs."""
    walked = store.read("attribute", "micro_batch")
    smaller = (walked != (plan.samples_per_batch, plan.points_per_batch)).any(2) & walked.any(
        2
    )  # 0: the fold was left out
    return [
        {"shard": int(b * plan.n_parts + part), "micro_batch": walked[part, b].tolist()}
        for part, b in np.argwhere(smaller)
    ]


def _cost(plan: Plan, passed: Passed, store: Store) -> dict[str, Any]:
    """The cost of the walked folds. For pairs it is an upper bound: pairs with equal targets cost nothing."""
    kept = ~np.isin(store.read("predict", "bad"), [*LEFT_OUT])
    folds = [plan.fold(fold) for walked in passed.walked.values() for fold in range(walked.n_folds)]
    rows = sum(int(kept[fold.start : fold.stop].sum()) for fold in folds)
    of = {"gradient_evaluations": plan.gradient_evaluations, "forwards": plan.forwards}
    shards = sum(walked.n_folds for walked in passed.walked.values()) * plan.n_baseline_blocks * plan.n_output_blocks
    return {"mode": plan.mode, "shards": shards} | {
        name: number * rows // plan.shapes.n_samples for name, number in of.items()
    }
