"""The composition root: one run, from a job to a complete store. Read this file first.

The config names the model, the data, the baselines and the targets; a first pass predicts; the plan cuts inputs x
baselines x outputs into shards; ranks claim shards; for each shard the engine walks a path with a quadrature and hands
on attributions; statistics fold them; the store keeps what was folded; an exchange joins the ranks; the report shows it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from igc_dist import findings, footprint, layout, modes, results, retry, seeds
from igc_dist.attributors import Task
from igc_dist.audit import TERMS, Audit, Auditor
from igc_dist.baselines import Surroundings
from igc_dist.beacon import Beacon
from igc_dist.budget import relative_errors
from igc_dist.distributed import World
from igc_dist.draws import DrawnEngine
from igc_dist.engine import Engine
from igc_dist.faults import fault
from igc_dist.finalize import Passed, finalize, of_fold, provenance
from igc_dist.findings import Findings
from igc_dist.job import Job, decided, plan_of
from igc_dist.leases import claims
from igc_dist.lock import Lock
from igc_dist.plan import Plan
from igc_dist.predict import Predictor
from igc_dist.progress import Meter
from igc_dist.records import Attribution, IgcError, PeerError, PrecisionError, Shard, Stopped, at, said
from igc_dist.results import Recipe, Walked
from igc_dist.secrets import masked, masked_text
from igc_dist.spec import spec_hash
from igc_dist.statistics import Cells, State, unexplained
from igc_dist.store import Store
from igc_dist.trial import settled

log = logging.getLogger(__name__)


def run(job: Job, world: World, meter: Meter) -> Store:
    """Do the job on this rank, together with the others: returns the complete store. Resumes what the store already holds."""
    started = time.time()
    footprint.keep_freed()
    meter.clock.enter("first_look")
    job = settled(job, world)
    world.pulse.waiting = lambda: job.source.waited
    with job.model.borrowed(world.device):
        job = decided(job, world.device)
        plan = plan_of(job, world.device)
        job.model.fix(plan.rows_per_pass)
        if world.first and job.attributor.complete and not plan.shapes.complete:
            log.warning("reduce has a function that does not preserve the sum over features: no sums of maps are reported")
        spec = masked(job.spec(plan, world))
        float_type = "float64" if plan.shapes.itemsize == 8 else "float32"
        phases = layout.phases(plan, job.terms, float_type, sums=job.needs_mean, skip=job.skip, replicates=job.n_replicates)
        store = Store(job.store, phases, spec, spec_hash(spec))
        lock = Lock(store.objects, world.size, lambda: world.watch("waiting for the lock"))
        beacon = Beacon(store.objects, lambda: lock.held)
        store.guard, meter.store = lock.check, store
        try:
            job.stages(plan)  # which may refuse
            if _prepare(job, store, world, lock, provenance(job, world, started)):
                log.info("store %s is complete: nothing to do", job.store)
                return store
            meter.tell, meter.takeovers = beacon.shine, lock.takeovers
            if world.first:
                meter.opened()
            if not world.share(store.fallen):
                try:
                    _passes(job, plan, store, world, meter, started)
                except PrecisionError as error:
                    if job.audit.on_error != "fallback":
                        raise
                    _fall_back(store, world, error)
            if world.share(store.fallen):
                with job.model.higher() as model:
                    # numbers are twice as wide: half as many in a forward pass take the same memory
                    less = replace(plan, points_per_batch=max(1, plan.points_per_batch // 2))
                    _passes(replace(job, inputs=job.inputs.around(model), audit=Audit(0)), less, store, world, meter, started)
        except Stopped:
            raise
        except IgcError as error:
            if lock.held or store.path is None:  # and not into the store of another run
                store.fail(masked_text(said(error)))
            raise
        finally:
            beacon.out()
            lock.release()
    return store


def _passes(job: Job, plan: Plan, store: Store, world: World, meter: Meter, started: float) -> None:
    """Both passes, and the results."""
    predict_all(job, plan, store, world, meter)
    found, around = _known(job, plan, store, world)
    cells = job.cells(lambda: store.read("predict", "target"))
    recipe = Recipe(job.statistics, job.attributor, cells, job.attributor.complete and plan.shapes.complete, residuals=not job.drawn)
    passed = walk_all(job, plan, store, world, meter, found, around, recipe)
    footprint.give_back()
    meter.clock.enter("finalize")
    with at(f"rank {world.rank}, finalize"):
        finalize(job, plan, store, world, passed, found, recipe, provenance(job, world, started))
    meter.clock.enter("")
    footprint.give_back()


def _fall_back(store: Store, world: World, error: PrecisionError) -> None:
    """Forget what was done in a precision that is too low; all ranks begin again."""
    if world.first:
        log.warning("%s. Once more in the higher precision", str(error).split(": take ")[0])
    world.meet("fallback")  # no rank still reads what goes
    world.attempt += 1
    if store.path is None and not world.first:
        store.restart()
    world.share(store.restart)


def _prepare(job: Job, store: Store, world: World, lock: Lock, about: Mapping[str, Any]) -> bool:
    wish = asdict(job.budget)
    if store.path is not None:
        return bool(world.share(lambda: store.prepare(about, wish, lock.take)))
    if not world.first:
        store.prepare(about, wish)  # every rank has its own memory
    return bool(world.share(lambda: store.prepare(about, wish)))


def predict_all(job: Job, plan: Plan, store: Store, world: World, meter: Meter) -> None:
    """Pass 1 over the folds that are not done."""
    pending = world.share(lambda: store.pending("predict"))
    meter.start("predict", plan.n_folds, plan.n_folds - len(pending))
    predictor = Predictor(job.inputs, job.source, job.targets, plan, world.device, job.skip, job.needs_mean, job.weights)
    done: list[int] = []

    def fold(number: int) -> dict[str, Any]:
        arrays = predictor.run(number).arrays(plan.shapes.input_names)
        for name, values in arrays.items():
            store.write("predict", number, name, values)
        store.commit("predict", number)
        meter.rows(len(plan.fold(number)))
        return {"lost": int((arrays["bad"] > 0).sum())}

    _do(store, world, meter, "predict", "predict", pending, fold, done)


def _do(
    store: Store,
    world: World,
    meter: Meter,
    name: str,
    phase: str,
    pending: Sequence[int],
    work: Callable[[int], dict[str, Any]],
    done: list[int],
) -> None:
    """Do the shards of a pass with the other ranks, to its end; `done` gets those that this rank contributes, the meter what `work` noted.

    Without a store on disk, every rank then takes over what the others hold.
    """
    again = []
    for claim in claims(world, name, pending, meter.show):
        meter.place = f"{phase} shard {claim.number}"
        with at(f"rank {world.rank}, {meter.place}"):
            noted = claim.do(partial(work, claim.number))
        if noted is not None:
            done.append(claim.number)
            again += [claim.number] * (claim.generation > 0)
            meter.shard(**noted)
    with at(f"rank {world.rank}, the end of {name}"):
        meter.arrive()
        world.meet(name, meter.show)
    meter.end()
    for number in again:  # who was silent may have written other bytes over them, if memory ran out on one of both: the rounding differs
        if not store.is_done(phase, number):
            raise PeerError(f"{phase} shard {number} was written by two ranks, with other bytes: run again to resume")
    if store.path is None:
        for objects in world.gather(store.objects_of(phase, done)) if world.size > 1 else []:
            store.absorb(objects)


def _known(job: Job, plan: Plan, store: Store, world: World) -> tuple[Findings, Surroundings]:
    """What pass 1 found, and what baselines may draw from."""
    found = findings.find(plan, store.read("predict", "means"), job.weights, partial(of_fold, store))
    if job.attributor.raw:
        found = replace(found, centre=replace(found.centre, a=_origin(job, plan, world, int(found.pool[0]))))
    mean, order, classes = None, None, None
    if job.attributor.baselines:
        job.baseline.count(len(found.pool), plan.shapes.raw)  # again, as some samples may not be fit for use
        if job.baseline.needs_ranks:
            order = findings.by_prediction(plan, found, partial(of_fold, store))
        if job.baseline.needs_classes:
            classes = findings.top_classes(plan, partial(of_fold, store), job.baseline.needs_classes)
        if job.needs_mean:
            sums = (store.read("predict", f"{name}_sum").sum(0) for name in plan.shapes.input_names)
            mean = tuple(torch.from_numpy(total / len(found.pool)) for total in sums)
    return found, Surroundings(job.source, found.pool, job.seed, mean, order, classes)


def _origin(job: Job, plan: Plan, world: World, index: int) -> tuple[np.ndarray, ...]:
    """The attributions of one sample: a centre among those that may lie far from 0, so that no digit of their spread is lost."""
    batch = job.source.fetch([index])
    taken = job.inputs.take(batch.inputs, world.device)
    values = job.inputs.attribute(job.attributor, Task(job.model, taken, (), plan.work.outputs, 1.0, 1))
    return tuple(value[0].double().cpu().numpy() for value in job.reduction(len(values))(values, batch.inputs))


def walk_all(
    job: Job, plan: Plan, store: Store, world: World, meter: Meter, found: Findings, around: Surroundings, recipe: Recipe
) -> Passed:
    """Pass 2: folds are added until the budget says stop; then some of them are walked again with other draws, if asked."""
    stages, started, reason = job.stages(plan), time.monotonic(), ""
    engine = _engine(job, plan, world, meter, found, recipe.cells, around)
    for n_folds in stages:
        walked = Walked(n_folds, _walk(job, plan, store, world, meter, engine, "attribute", n_folds))
        reason = "" if n_folds == stages[-1] else _enough(job, plan, store, world, walked, found, recipe, started)
        if reason:
            break
    passed = {"attribute": walked}
    if job.n_replicates:
        other = int(seeds.generator(job.seed, 0, "run.replicate").integers(2**62))
        # baselines that all samples share belong to the question, not to the noise
        again = replace(around, seed=around.seed if job.baseline.shared else other)
        engine = replace(_engine(job, plan, world, meter, found, recipe.cells, again), seed=other)
        few = min(job.n_replicates, n_folds)
        passed["replicate"] = Walked(few, _walk(job, plan, store, world, meter, engine, "replicate", few))
    return Passed(reason or ("gradients" if n_folds < plan.n_folds else "all folds"), passed)


def _enough(job: Job, plan: Plan, store: Store, world: World, walked: Walked, found: Findings, recipe: Recipe, started: float) -> str:
    """Why to stop after these folds, or "". All ranks decide the same: from the same states, or by the clock of rank 0."""
    spent = world.share(lambda: time.monotonic() - started)
    if job.budget.rel_se is not None:
        found_here = {}
        for cuts in results.dealt(world, plan):
            slots = results.exchange(world, store, plan, "attribute", walked, cuts, found.centre, job.terms)
            if slots is not None:
                found_here[cuts[world.rank].start] = relative_errors(slots, recipe)
        errors = np.concatenate(results.gathered(world, found_here))
        # an output that is constant so far, as a rare label, has no error yet; one that is so in all of the data will have none
        unknown = np.isnan(errors) & (found.y_std > 0) & (found.r_std > 0)
        worst = float("inf") if unknown.any() else float(np.nanmax(errors, initial=0.0))
        if world.first:
            log.info("%d of %d folds: standard errors are at most %.2g of the maps", walked.n_folds, plan.n_folds, worst)
        if worst <= job.budget.rel_se:
            return "rel_se"
    return "seconds" if job.budget.seconds is not None and spent >= job.budget.seconds else ""


def _engine(job: Job, plan: Plan, world: World, meter: Meter, found: Findings, cells: Cells, around: Surroundings) -> Engine:
    attributor, reduction = modes.walker(job.attributor, job.reduction(len(plan.shapes.features)), plan)
    return (DrawnEngine if job.drawn else Engine)(
        job.inputs,
        job.source,
        attributor,
        job.baseline,
        around,
        plan,
        found,
        job.terms,
        cells,
        job.weights,
        world.device,
        job.skip,
        reduction,
        meter.rows,
        job.targets.n_others,
    )


def _walk(job: Job, plan: Plan, store: Store, world: World, meter: Meter, engine: Engine, phase: str, n_folds: int) -> list[int]:
    """The shards of the first folds that are not done; returns those that this rank contributes to the exchange."""
    n_parts, name = n_folds * plan.n_baseline_blocks, f"{phase} {n_folds}" if job.budget.limited else phase
    numbers = store.phases[phase].numbers(n_parts)
    pending = world.share(lambda: store.pending(phase, n_parts))
    per_sample = plan.forwards // plan.shapes.n_samples
    per_row = plan.gradient_evaluations / max(plan.forwards, 1)
    meter.start(name, len(numbers), len(numbers) - len(pending), per_row, per_sample)
    auditor = Auditor(engine, job.audited, job.stages(plan)[0]) if job.audited and phase == "attribute" else None
    engine.check = auditor
    done: list[int] = []
    _do(store, world, meter, name, phase, pending, partial(_attribute_shard, job, plan, store, engine, auditor, phase), done)
    # shards of an earlier run are contributed by turns
    earlier = sorted({*numbers} - {*pending})
    return done + [number for number in earlier if number % world.size == world.rank]


def _attribute_shard(
    job: Job, plan: Plan, store: Store, engine: Engine, auditor: Auditor | None, phase: str, number: int
) -> dict[str, Any]:
    """Compute, write and commit one shard; returns what is to be told of it. A function of its own, so that its state is gone before
    the next is computed."""
    fault("compute")
    block, part = divmod(number, store.phases[phase].grid[0])
    shard, first = plan.shard(block * plan.n_parts + part), phase == "attribute"
    rows = slice(shard.rows.start, shard.rows.stop)
    known = of_fold(store, shard.fold)
    counts = np.zeros((1, 2, len(shard.outputs)), dtype=np.int64)

    def walk(cut: Plan) -> tuple[State, list[int]]:
        # what is cached was predicted in other micro-batches
        walking = engine if cut is plan else replace(engine, plan=cut, _shared={})
        job.model.fix(cut.rows_per_pass)
        counts[:] = 0
        if auditor is not None:
            auditor.begin(shard)
        keep = _keeper(store, plan, shard, counts) if first and (job.samples or plan.work.certified) else None
        return walking.run(shard, known, keep)

    (state, lost), walked = retry.fitting(plan, walk, str(shard))
    if first:
        store.write(phase, number, "micro_batch", np.asarray([[[walked.samples_per_batch, walked.points_per_batch]]]))
    if plan.work.audited and first:
        store.write(phase, number, "audit", np.zeros((1, len(TERMS), len(shard.outputs))) if auditor is None else auditor.taken()[None])
    if plan.work.certified and first:
        store.write(phase, number, "certificate", counts)
    if "skipped" in store.phases[phase].arrays:
        store.write(phase, number, "skipped", np.isin(plan.order[rows], lost).astype(np.uint8)[:, None])
    for name, values in results.packed(state, job.terms, plan.shapes.input_names).items():
        store.write(phase, number, name, values)
    store.commit(phase, number)
    residual = unexplained(state) if job.attributor.complete and not job.drawn else 0.0
    return {"lost": len(lost), "retried": walked is not plan, "residual": residual}


def _keeper(store: Store, plan: Plan, shard: Shard, counts: Int64[np.ndarray, "1 2 J"]) -> Any:
    """Counts the samples that failed and the gradients that they took; and writes per-sample rows, if asked for, in chunks that are as
    long as the micro-batches of the plan."""

    def write(start: int, arrays: Mapping[str, np.ndarray]) -> None:
        for name, values in arrays.items():
            store.write("attribute", shard.number, name, values, (start, shard.outputs.start))

    chunks = retry.Chunks(write, plan.samples_per_batch, shard.rows.start, shard.rows.stop)

    def keep(rows: range, attribution: Attribution) -> None:
        notes = {name: note for name in ("failed", "evaluations") if (note := getattr(attribution, name)) is not None}
        used = (attribution.weight > 0).cpu().numpy()
        for count, note in zip(counts[0], notes.values(), strict=False):
            count += np.where(used, note, 0).sum(0, dtype=np.int64)
        if not plan.work.samples:
            return
        named = zip(plan.shapes.input_names, attribution.values, strict=True)
        tables = {"delta": attribution.delta, "prediction_baseline": attribution.baseline_prediction}
        tables |= {f"{name}/attribution": values for name, values in named}
        chunks.add({name: values.cpu().numpy() for name, values in tables.items()} | notes)

    return keep
