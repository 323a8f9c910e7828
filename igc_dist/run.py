"""The composition root: one run, from a job to a complete store. Read this file first.

The config names the model, the data, the baselines and the targets. A first pass predicts. The plan cuts inputs x
baselines x outputs into shards, and ranks claim shards. For each shard the engine walks a path with a quadrature and
gives attributions to the statistics, which fold them. The store keeps what was folded. An exchange joins the ranks, and
the report shows the result.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from igc_dist import results, seeds
from igc_dist.attributors import Task
from igc_dist.baselines import Surroundings
from igc_dist.distributed import World, claims
from igc_dist.job import Job, modes, plan_of, settled, store_of, tuned
from igc_dist.model import memory
from igc_dist.passes import Auditor, DrawnEngine, Engine, Findings, Predictor, Scorer, ShardWalk, findings, of_piece
from igc_dist.planning import Audit, Plan
from igc_dist.records import PeerError, PrecisionError, at, check_asserts
from igc_dist.results import Finalizer, Passed, Recipe, Walked, provenance_of, relative_errors
from igc_dist.store import Lock, Store, holding
from igc_dist.watching import Meter

log = logging.getLogger(__name__)


def run(job: Job, world: World, meter: Meter) -> Store:
    """Run the job on this rank, together with the others. Returns the complete store; resumes a partly filled one."""
    check_asserts()
    started = time.time()
    memory.keep_freed()
    meter.clock.enter("first_look")
    job = settled(job, world)
    world.pulse.waiting = lambda: job.source.waited
    with job.source.opened(), job.model.borrowed(world.device):
        job = tuned(job, world)
        plan = plan_of(job, world.device)
        job.model.fix(plan.rows_per_pass)
        if world.first and job.attributor.complete and not plan.shapes.complete:
            log.warning(
                "reduce has a function that does not preserve the sum over features: no sums of maps are reported"
            )
        this = Run(job, plan, store_of(job, plan, world), world, meter, started)
        meter.store = this.store
        world.early = False
        with holding(this.store, world, this.open) as tenure:
            if tenure.complete:
                log.info("store %s is complete: nothing to do", job.store)
                return this.store
            meter.tell, meter.takeovers = tenure.beacon.shine, tenure.lock.takeovers
            if world.first:
                meter.opened()
            this.do()
        return this.store


@dataclass
class Run:
    """A run on this rank. Its steps: `predict`, `know`, `attribute` (until `enough`), `finalize`."""

    job: Job
    plan: Plan
    store: Store
    world: World
    meter: Meter
    started: float
    """Seconds since the epoch."""
    found: Findings = field(init=False)
    around: Surroundings = field(init=False)
    recipe: Recipe = field(init=False)

    def do(self) -> None:
        """Run all steps. Repeat them in the higher precision if an audit fails and the job asks for it."""
        if not self.world.share(self.store.fallen):
            try:
                self.passes()
            except PrecisionError as error:
                if self.job.audit.on_error != "fallback":
                    raise
                self._fall_back(error)
        if self.world.share(self.store.fallen):
            with self.job.model.higher() as model:
                # numbers have twice the size, so half the points per forward pass take the same memory
                less = replace(self.plan, points_per_batch=max(1, self.plan.points_per_batch // 2))
                job = replace(self.job, inputs=self.job.inputs.around(model), audit=Audit(0))
                replace(self, job=job, plan=less).passes()

    def passes(self) -> None:
        """Run both passes and write the results."""
        self.predict()
        self.know()
        passed = self.attribute()
        self.finalize(passed)

    # -- the steps -----------------------------------------------------------------------------------------------------

    def predict(self) -> None:
        """Pass 1 predicts, over the folds that are not done."""
        job, plan, store = self.job, self.plan, self.store
        pending = self.world.share(lambda: store.pending("predict"))
        self.meter.start("predict", plan.n_folds, plan.n_folds - len(pending))
        unlabelled = None if job.slices is None else job.slices.unlabelled
        data = job.inputs, job.source, job.targets, plan, self.world.device, job.skip, job.needs_mean, job.weights
        predictor = Predictor(*data, unlabelled, job.filter)

        def fold(number: int) -> dict[str, Any]:
            noted = predictor.shard(store, number)
            self.meter.rows(len(plan.fold(number)))
            return noted

        self._shards("predict", "predict", pending, fold)

    def know(self) -> None:
        """Collect what pass 1 found: centres of sums, what baselines may draw from, and which results to compute."""
        job, plan, store = self.job, self.plan, self.store
        tables = partial(of_piece, store)
        found = findings.find(plan, store.read("predict", "means"), job.weights, tables)
        if self.world.first and job.statistics:
            found.doubt(plan.n_folds, job.targets.labels(plan.work.outputs, plan.shapes.n_outputs))
        if job.attributor.raw:
            found = replace(found, centre=replace(found.centre, a=self._origin(int(found.pool[0]))))
        mean, order, classes = None, None, None
        if job.attributor.baselines:
            job.baseline.count(len(found.pool), plan.shapes.raw)  # again, because some samples may be unusable
            if job.baseline.needs_ranks:
                order = findings.by_prediction(plan, found, tables)
            if job.baseline.needs_classes:
                classes = findings.top_classes(plan, tables, job.baseline.needs_classes)
        if job.needs_mean:
            sums = (store.read("predict", f"{name}_sum").sum(0) for name in plan.shapes.raw_names)
            mean = tuple(torch.from_numpy(total / len(found.pool)) for total in sums)
        self.found = found
        self.around = Surroundings(job.source, found.pool, job.seed, mean, order, classes)
        cells = job.cells(lambda: store.read("predict", "target"))
        complete = job.attributor.complete and plan.shapes.complete
        self.recipe = Recipe(job.statistics, job.attributor, cells, complete, residuals=not job.drawn)

    def attribute(self) -> Passed:
        """Pass 2 adds folds until it is enough. If asked, some folds are then walked again with other draws."""
        job, stages, began, reason = self.job, self.job.stages(self.plan), time.monotonic(), ""
        engine = self._engine(self.around)
        for n_folds in stages:
            walked = Walked(n_folds, self._walk(engine, "attribute", n_folds))
            reason = "" if n_folds == stages[-1] else self.enough(walked, began)
            if reason:
                break
        passed = {"attribute": walked}
        if job.n_replicates:
            other = int(seeds.generator(job.seed, 0, "run.replicate").integers(2**62))
            # shared baselines are not drawn again: they belong to the question, not to the noise
            again = replace(self.around, seed=self.around.seed if job.baseline.shared else other)
            few = min(job.n_replicates, n_folds)
            passed["replicate"] = Walked(few, self._walk(replace(self._engine(again), seed=other), "replicate", few))
        return Passed(reason or ("gradients" if n_folds < self.plan.n_folds else "all folds"), passed)

    def enough(self, walked: Walked, began: float) -> str:
        """The reason to stop after these folds, or "". Ranks agree, as they use the same states and rank 0's clock."""
        budget, world, found = self.job.budget, self.world, self.found
        spent = world.share(lambda: time.monotonic() - began)
        if budget.rel_se is not None:
            exchange = results.Exchange(world, self.store, self.plan, found.centre, self.job.terms)
            found_here = {}
            for cuts in results.dealt(world, self.plan):
                slots = exchange.states("attribute", walked, cuts)
                if slots is not None:
                    found_here[cuts[world.rank].start] = {"rel_se": relative_errors(slots, self.recipe)}
            errors = np.concatenate([one["rel_se"] for one in results.gathered(world, found_here)])
            # an output that is constant so far, as a rare label, has no error yet; one that is always constant has none
            unknown = np.isnan(errors) & (found.y_std > 0) & (found.r_std > 0)
            worst = float("inf") if unknown.any() else float(np.nanmax(errors, initial=0.0))
            if world.first:
                of = f"{walked.n_folds} of {self.plan.n_folds} folds"
                log.info("%s: standard errors are at most %.2g of the maps", of, worst)
            if worst <= budget.rel_se:
                return "rel_se"
        return "seconds" if budget.seconds is not None and spent >= budget.seconds else ""

    def finalize(self, passed: Passed) -> None:
        """Exchange states between the ranks, write results, and complete the store."""
        memory.give_back()
        self.meter.clock.enter("finalize")
        with at(f"rank {self.world.rank}, finalize"):
            end = Finalizer(self.job, self.plan, self.store, self.world, self.found, self.recipe)
            end.finalize(passed, provenance_of(self.job, self.world, self.started))
        self.meter.clock.enter("")
        memory.give_back()

    # -- the store -----------------------------------------------------------------------------------------------------

    def open(self, lock: Lock) -> bool:
        """Open the store, and return whether it is complete. Raises `ConfigError` if the budget is too small."""
        self.job.stages(self.plan)
        store, world, wish = self.store, self.world, asdict(self.job.budget)
        about = provenance_of(self.job, world, self.started)
        if store.path is not None:
            complete = bool(world.share(lambda: store.prepare(about, wish, lock.take)))
            store.join()
            return complete
        if not world.first:
            store.prepare(about, wish)  # every rank has its own memory
        return bool(world.share(lambda: store.prepare(about, wish)))

    def _fall_back(self, error: PrecisionError) -> None:
        """Discard all work in the precision that is too low. All ranks begin again."""
        store, world = self.store, self.world
        if world.first:
            log.warning("%s. Once more in the higher precision", str(error).split(": take ")[0])
        world.meet("fallback")  # no rank still reads what is deleted next
        world.attempt += 1
        if not world.first:
            (store.restart if store.path is None else store.forget)()
        world.share(store.restart)

    # -- the shards ----------------------------------------------------------------------------------------------------

    def _shards(
        self, name: str, phase: str, pending: Sequence[int], work: Callable[[int], dict[str, Any]]
    ) -> list[int]:
        """Do the shards of a pass with the other ranks. The meter gets the values that `work` returns.

        Returns the shards that this rank contributes. In memory, every rank then copies the shards of the others.
        """
        world, meter, store, again = self.world, self.meter, self.store, []
        done: list[int] = []
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
        # the silent rank may have overwritten them with other bytes, if one of both ran out of memory
        for number in again:
            if not store.is_done(phase, number):
                raise PeerError(f"{phase} shard {number} was written by two ranks, with other bytes: run again")
        if store.path is None:
            results.share_objects(world, store, store.objects_of(phase, done))
        return done

    def _origin(self, index: int) -> tuple[np.ndarray, ...]:
        """The attributions of one sample: a centre that keeps all digits of the spread of attributions far from 0."""
        job, batch = self.job, self.job.source.fetch([index], maps=True)
        task = Task(job.model, job.inputs.take(batch.inputs, self.world.device), (), self.plan.work.outputs, 1.0, 1)
        values = job.inputs.attribute(job.attributor, task)
        reduced = job.reduction(len(values))(values, batch.inputs, batch.segments)
        return tuple(value[0].double().cpu().numpy() for value in reduced)

    def _engine(self, around: Surroundings) -> Engine:
        job, plan = self.job, self.plan
        attributor, reduction = modes.walker(job.attributor, job.reduction(len(plan.shapes.features)), plan)
        return (DrawnEngine if job.drawn else Engine)(
            inputs=job.inputs,
            source=job.source,
            attributor=attributor,
            baseline=job.baseline,
            around=around,
            plan=plan,
            findings=self.found,
            terms=job.terms,
            cells=self.recipe.cells,
            weight=job.weights,
            device=self.world.device,
            skip=job.skip,
            reduction=reduction,
            watch=self.meter.rows,
            n_others=job.targets.n_others,
        )

    def _walk(self, engine: Engine, phase: str, n_folds: int) -> list[int]:
        """Do the shards of the first folds that are not done. Returns the shards that this rank contributes."""
        job, plan, store, world = self.job, self.plan, self.store, self.world
        n_parts, name = n_folds * plan.n_baseline_blocks, f"{phase} {n_folds}" if job.budget.limited else phase
        numbers = store.phases[phase].numbers(n_parts)
        pending = world.share(lambda: store.pending(phase, n_parts))
        per_sample = plan.forwards // plan.shapes.n_samples
        per_row = plan.gradient_evaluations / max(plan.forwards, 1)
        self.meter.start(name, len(numbers), len(numbers) - len(pending), per_row, per_sample)
        audited = job.audited and phase == "attribute"
        engine.check = Auditor(engine, job.audited, job.stages(plan)[0]) if audited else None
        scorer = Scorer(job.metrics, plan) if job.metrics and phase == "attribute" else None
        walk = ShardWalk(engine, store, phase, job.attributor.complete and not job.drawn, scorer)
        done = self._shards(name, phase, pending, walk)
        # ranks take turns to contribute shards of an earlier run
        earlier = sorted({*numbers} - {*pending})
        return done + [number for number in earlier if number % world.size == world.rank]
