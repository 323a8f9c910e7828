"""The composition root: one run, from a job to a complete store. Read this file first.

The config names the model, the data, the baselines and the targets; a first pass predicts; the plan cuts inputs x
baselines x outputs into shards; ranks claim shards; for each shard the engine walks a path with a quadrature and hands
on attributions; statistics fold them; the store keeps what was folded; an all-reduce joins the ranks; the report shows it.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from igc_dist import footprint, layout, results, retry
from igc_dist.baselines import Surroundings
from igc_dist.distributed import World
from igc_dist.engine import Engine, Known
from igc_dist.faults import fault
from igc_dist.job import Job, plan_of
from igc_dist.layout import Array
from igc_dist.plan import Plan
from igc_dist.predict import BAD, Predictor, centre_of
from igc_dist.progress import Meter
from igc_dist.records import Attribution, IgcError, Shard, Stopped
from igc_dist.results import Recipe
from igc_dist.spec import spec_hash
from igc_dist.statistics import Cells, Centre, State
from igc_dist.statistics.state import SCALAR_TERMS
from igc_dist.store import Store
from igc_dist.trial import settled

log = logging.getLogger(__name__)


def run(job: Job, world: World, meter: Meter) -> Store:
    """Do the job on this rank, together with the others: returns the complete store. Resumes what the store already holds."""
    started = time.time()
    footprint.keep_freed()
    job = settled(job, world)
    with job.model.borrowed(world.device):
        plan = plan_of(job, world.device)
        job.model.fix(plan.rows_per_pass)
        if world.first and job.attributor.complete and not plan.shapes.complete:
            log.warning("reduce has a function that does not preserve the sum over features: no sums of maps are reported")
        spec = job.spec(plan, world)
        float_type = "float64" if plan.shapes.itemsize == 8 else "float32"
        phases = layout.phases(plan, job.terms, float_type, sums=job.needs_mean, skip=job.skip)
        store = Store(job.store, phases, spec, spec_hash(spec))
        try:
            if _prepare(store, world, _provenance(job, world, started)):
                log.info("store %s is complete: nothing to do", job.store)
                return store
            predict_all(job, plan, store, world, meter)
            centre, pool, mean = _known(job, plan, store, world)
            cells = job.cells(lambda: store.read("predict", "target"))
            mine = attribute_all(job, plan, store, world, meter, centre, cells, Surroundings(job.source, pool, job.seed, mean))
            footprint.give_back()
            _finalize(job, plan, store, world, mine, centre, cells, _provenance(job, world, started))
            footprint.give_back()
        except Stopped:
            raise
        except IgcError as error:
            if world.first or store.path is None:
                store.fail(str(error))
            raise
    return store


def _prepare(store: Store, world: World, provenance: Mapping[str, Any]) -> bool:
    if store.path is None and not world.first:
        store.prepare(provenance)  # every rank has its own memory
    return bool(world.share(lambda: store.prepare(provenance)))


def predict_all(job: Job, plan: Plan, store: Store, world: World, meter: Meter) -> None:
    """Pass 1 over the folds that are not done."""
    pending = world.share(lambda: store.pending("predict"))
    meter.start("predict", plan.n_folds, plan.n_folds - len(pending))
    predictor = Predictor(job.inputs, job.source, job.targets, plan, world.device, job.skip, job.needs_mean, job.weights)
    done = []
    for number in world.claims("predict", pending):
        for name, values in predictor.run(number).arrays(plan.shapes.input_names).items():
            store.write("predict", number, name, values)
        store.commit("predict", number)
        done.append(number)
        meter.rows(len(plan.fold(number)))
        meter.shard()
    _hand_round(store, world, meter, "predict", done)


def _hand_round(store: Store, world: World, meter: Meter, phase: str, done: Sequence[int]) -> None:
    """Wait for the end of a pass. Without a store on disk, every rank then takes over what the others hold."""
    world.meet(phase, meter.show)
    meter.end()
    if store.path is None:
        for objects in world.gather(store.objects_of(phase, done)) if world.size > 1 else []:
            store.absorb(objects)


def _known(job: Job, plan: Plan, store: Store, world: World) -> tuple[Centre, np.ndarray, tuple[torch.Tensor, ...] | None]:
    """What pass 1 found: centres, indices of the samples that are fit for use, and the mean input if asked."""
    fine = store.read("predict", "bad") == 0
    centre = centre_of(store.read("predict", "means"))
    pool = np.sort(plan.order[fine])
    if job.attributor.raw:
        centre = replace(centre, a=_origin(job, plan, world, int(pool[0])))
    if job.attributor.baselines:
        job.baseline.count(len(pool), plan.shapes.raw)  # again, as some samples may not be fit for use
    if not job.needs_mean:
        return centre, pool, None
    return (
        centre,
        pool,
        tuple(torch.from_numpy(store.read("predict", f"{name}_sum").sum(0) / len(pool)) for name in plan.shapes.input_names),
    )


def _origin(job: Job, plan: Plan, world: World, index: int) -> tuple[np.ndarray, ...]:
    """The attributions of one sample: a centre among those that may lie far from 0, so that no digit of their spread is lost."""
    batch = job.source.fetch([index])
    taken = job.inputs.take(batch.inputs, world.device)
    values = job.inputs.attribute(job.attributor, taken, (), plan.work.outputs, share=1.0, size=1)
    return tuple(value[0].double().cpu().numpy() for value in job.reduction(len(values))(values, batch.inputs))


def attribute_all(
    job: Job, plan: Plan, store: Store, world: World, meter: Meter, centre: Centre, cells: Cells, around: Surroundings
) -> list[int]:
    """Pass 2 over the shards that are not done; returns those that this rank contributes to the all-reduce."""
    pending = world.share(lambda: store.pending("attribute"))
    per_sample = plan.forwards // plan.shapes.n_samples
    meter.start("attribute", plan.n_shards, plan.n_shards - len(pending), plan.gradients_per_row(plan.output_block), per_sample)
    reduction = job.reduction(len(plan.shapes.features))
    engine = Engine(
        job.inputs,
        job.source,
        job.attributor,
        job.baseline,
        around,
        plan,
        centre,
        job.terms,
        cells,
        job.weights,
        world.device,
        job.skip,
        reduction,
        meter.rows,
    )
    done = []
    for number in world.claims("attribute", pending):
        _attribute_shard(job, plan, store, engine, number)
        done.append(number)
        world.log({"shards": meter.shard(), **meter.rates()})
    _hand_round(store, world, meter, "attribute", done)
    # shards of an earlier run are contributed by turns
    earlier = sorted(set(range(plan.n_shards)) - set(pending))
    return done + [number for number in earlier if number % world.size == world.rank]


def _attribute_shard(job: Job, plan: Plan, store: Store, engine: Engine, number: int) -> None:
    """Compute, write and commit one shard. A function of its own, so that its state is gone before the next is computed."""
    fault("compute")
    shard = plan.shard(number)
    rows = slice(shard.rows.start, shard.rows.stop)
    known = Known(*(store.read_own("predict", shard.fold, name) for name in ("target", "prediction", "bad")))

    def walk(cut: Plan) -> tuple[State, list[int]]:
        # what is cached was predicted in other micro-batches
        walking = engine if cut is plan else replace(engine, plan=cut, _shared={})
        job.model.fix(cut.rows_per_pass)
        return walking.run(shard, known, _keeper(store, plan, shard) if job.samples else None)

    (state, lost), walked = retry.fitting(plan, walk, str(shard))
    store.write("attribute", number, "micro_batch", np.asarray([[[walked.samples_per_batch, walked.points_per_batch]]]))
    if job.skip:
        store.write("attribute", number, "skipped", np.isin(plan.order[rows], lost).astype(np.uint8)[:, None])
    for name, values in results.packed(state, job.terms, plan.shapes.input_names).items():
        store.write("attribute", number, name, values)
    store.commit("attribute", number)


def _keeper(store: Store, plan: Plan, shard: Shard) -> Any:
    """Writes per-sample rows, one micro-batch at a time: chunks are as long as the micro-batches of the plan."""

    def write(start: int, arrays: Mapping[str, np.ndarray]) -> None:
        for name, values in arrays.items():
            store.write("attribute", shard.number, name, values, (start, shard.outputs.start))

    chunks = retry.Chunks(write, plan.samples_per_batch, shard.rows.start, shard.rows.stop)

    def keep(rows: range, attribution: Attribution) -> None:
        named = zip(plan.shapes.input_names, attribution.values, strict=True)
        tables = {"delta": attribution.delta, "prediction_baseline": attribution.baseline_prediction}
        chunks.add({name: values.cpu().numpy() for name, values in ({f"{name}/attribution": v for name, v in named} | tables).items()})

    return keep


Tables = dict[str, tuple[tuple[str, ...], np.ndarray]]
"""Arrays by path, with their dimensions."""


def _finalize(
    job: Job, plan: Plan, store: Store, world: World, mine: Sequence[int], centre: Centre, cells: Cells, provenance: Mapping[str, Any]
) -> None:
    """Exchange the states, a few outputs at a time; rank 0 writes the results (every rank, in memory)."""
    writes = world.first or store.path is None
    tables: dict[str, list[np.ndarray]] = {}
    recipe = Recipe(job.statistics, job.attributor, cells, job.attributor.complete and plan.shapes.complete)
    for cut in results.output_cuts(plan):
        slots = results.exchange(world, store, plan, mine, cut, centre, job.terms)
        if not writes:
            continue
        block = results.results(slots, recipe)
        for folder, arrays in (("", block.outputs), ("convergence/", block.running), ("slices/", block.slice_outputs)):
            for name, values in arrays.items():
                tables.setdefault(folder + name, []).append(values)
        for folder, by_input in (("", block.maps), ("slices/", block.slice_maps)):
            for input_name, dims, maps in zip(plan.shapes.input_names, plan.shapes.dims, by_input, strict=False):
                _put_maps(store, f"{folder}{input_name}", maps, cut, plan, dims)
    if writes:
        axes = {"convergence": ("fold", "output"), "slices": ("slice", "output")}
        dims_of = {path: axes.get(path.split("/")[0], ("output",)) for path in tables}
        _write_tables(job, plan, store, {path: (dims_of[path], np.concatenate(cuts, axis=-1)) for path, cuts in tables.items()})
        about = {"method": job.method, "sums_to_prediction": recipe.complete, "skipped": _skipped(job, plan, store), "cost": _cost(plan)}
        about["retried"] = _retried(plan, store)
        store.complete({**about, "provenance": dict(provenance)})
    world.meet("complete")


def _put_maps(store: Store, folder: str, maps: Mapping[str, np.ndarray], cut: slice, plan: Plan, dims: tuple[str, ...]) -> None:
    """Write maps (..., J, *P) of some outputs; the first cut creates the arrays."""
    for name, values in maps.items():
        at = values.ndim - len(dims) - 1  # the axis of the outputs
        lead, features = values.shape[:at], values.shape[at + 1 :]
        if cut.start == 0:
            shape, chunks = (*lead, len(plan.work.outputs), *features), (*lead, plan.finalize_outputs, *features)
            names = (*("slice",) * at, "output", *dims)
            store.create_results([Array(f"{folder}/{name}", shape, chunks, "float64", names)])
        store.put(f"{folder}/{name}", (*(slice(None),) * at, cut), values)


def _write_tables(job: Job, plan: Plan, store: Store, tables: Tables) -> None:
    """Write results that are not maps, coordinates, and the tables of the samples."""
    tables["output"] = (("output",), job.targets.labels(plan.work.outputs))
    if job.slices is not None and len(job.slices.labels) > 1:
        labels = job.slices.labels
        tables["slices/slice"] = (("slice",), labels.astype(object) if labels.dtype.kind in "US" else labels)
    tables["convergence/fold"] = (("fold",), np.arange(1, plan.n_folds + 1))
    tables["shards/attribute/term"] = (("term",), np.asarray([term or "1" for term in job.terms], dtype=object))
    tables["shards/attribute/scalar_term"] = (("scalar_term",), np.asarray([term or "1" for term in SCALAR_TERMS], dtype=object))
    if job.samples:
        tables |= {"samples/index": (("sample",), plan.order)}
        tables |= {f"samples/{name}": (("sample", "output"), store.read("predict", name)) for name in ("target", "prediction")}
    for path, (dims, values) in tables.items():
        kind = "string" if values.dtype.kind == "O" else str(values.dtype)
        store.create_results([Array(path, values.shape, values.shape, kind, dims)])
        store.put(path, ..., values)


def _skipped(job: Job, plan: Plan, store: Store) -> list[dict[str, Any]]:
    bad = store.read("predict", "bad").copy()
    if job.skip:
        bad = np.where((bad == 0) & store.read("attribute", "skipped").any(1), 4, bad)
    rows = np.flatnonzero(bad)
    return sorted(
        ({"index": int(plan.order[row]), "reason": f"NaN or infinity in its {BAD[int(bad[row])]}"} for row in rows),
        key=lambda entry: entry["index"],
    )


def _retried(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """Shards that ran out of memory, with the micro-batch (samples, points) that fitted: their rounding differs."""
    walked = store.read("attribute", "micro_batch")
    smaller = (walked != (plan.samples_per_batch, plan.points_per_batch)).any(2)
    return [{"shard": int(b * plan.n_parts + part), "micro_batch": walked[part, b].tolist()} for part, b in np.argwhere(smaller)]


def _cost(plan: Plan) -> dict[str, int]:
    return {"gradient_evaluations": plan.gradient_evaluations, "forwards": plan.forwards, "shards": plan.n_shards}


def _provenance(job: Job, world: World, started: float) -> dict[str, Any]:
    packages = ("igc-dist", "torch", "lightning", "numpy", "zarr")
    return {
        "versions": {name: _version(name) for name in packages} | {"python": platform.python_version()},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else platform.processor() or platform.machine(),
        "ranks": world.size,
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
