"""A pilot on a few samples finds the number of nodes that a model needs: `quadrature=auto`.

It walks at most 64 samples of the first fold with 4, 8, 16, ... nodes, until the change of their map and the error of
its completeness are less than `tol` of the correlation. The choice is part of the store's spec, as any rule: a run that
resumes keeps it. It does not depend on the number of ranks, because rank 0 alone chooses, from the job alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from math import ceil
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from igc_dist.attributors import Attributor
from igc_dist.baselines import Surroundings
from igc_dist.distributed import World
from igc_dist.features import Reduction
from igc_dist.job.job import Job
from igc_dist.job.planned import decided, piecewise, plan_of
from igc_dist.job.spec import describe
from igc_dist.passes import Engine, Predictor, by_prediction, findings
from igc_dist.paths import Auto, Quadrature, rule
from igc_dist.planning import Audit, Budget, Plan, make_plan
from igc_dist.records import ConfigError, DataError, StoreError
from igc_dist.statistics import STATISTICS, Agreement, Cells, State, feature_terms
from igc_dist.store import store

log = logging.getLogger(__name__)

SAMPLES = 64
"""The largest number of samples."""
FEWEST = 16
"""The number of samples, if there are as many, where a fold has fewer: a correlation of two says nothing."""
OUTPUTS = 8
"""The largest number of outputs, as each needs gradients: those whose targets vary most among the samples."""
NODES = (4, 8, 16, 32, 64, 128, 256)
"""The numbers of nodes that are tried."""
BEFORE = ("midpoint-32", "gauss_legendre-8")
"""The defaults from before there was a pilot."""
LEAST = 0.1
"""A correlation below this is taken as this: no number of nodes makes errors small beside a correlation of 0."""

FLAT = 1e-3
"""Predictions that vary by less than this part of their mean distance from the baselines say nothing but rounding."""


def tuned(job: Job, world: World) -> Job:
    """The job with all choices made that depend on the model. The model must be borrowed.

    An open quadrature is that of the store that the job resumes; if there is none, rank 0 finds it by a pilot.
    """
    labels: dict[str, Any] = {}

    def pilot(auto: Auto) -> Quadrature:
        found = world.share(lambda: _kept(job, auto) or _piloted(job, auto, world))
        labels.update(quadrature=found["said"], quadrature_tol=auto.tol)
        return rule(found["name"], found["n_steps"])

    job = replace(job, seen={})  # of this run only: model and data may change until the next one
    job = decided(job, world.device, pilot)
    if job.attributor.halved is not None:
        labels.update(half_steps=world.share(lambda: _half_steps(job, world)))
    return replace(job, labels={**job.labels, **labels}) if labels else job


def _kept(job: Job, auto: Auto) -> dict[str, Any] | None:
    """The rule in the store to be resumed, if a pilot chose it with this tolerance or a smaller one.

    Stores from before there was a pilot hold the rule that was the default then, or that of the activations. They do
    not say who chose it, and count as chosen with the default tolerance.
    """
    if job.store is None:
        return None
    try:
        about = store.attributes(job.store, also="shards/zarr.json")
        said = about["spec"]["attributor"]
        while "attributor" in said:
            said = said["attributor"]
        name, _, number = said["quadrature"]["name"].rpartition("-")
        if describe(rule(name, int(number))) != said["quadrature"]:
            return None
        where = about["provenance"]
        if "quadrature_tol" not in where and said["quadrature"]["name"] not in BEFORE:
            return None
        if float(where.get("quadrature_tol", Auto().tol)) > auto.tol:
            return None
        return {"name": name, "n_steps": int(number), "said": str(where.get("quadrature", "as in the store"))}
    except (StoreError, ConfigError, KeyError, TypeError, ValueError):  # other code says what is wrong with the store
        return None


def _piloted(job: Job, auto: Auto, world: World) -> dict[str, Any]:
    """The first rule of `NODES` that differs from the one before by less than `auto.tol`."""
    kinked = piecewise(job, world.device)
    fallback = auto.rule(kinked)
    name = fallback.name.rpartition("-")[0]
    try:
        part = _Part.of(job, lambda n: _with(job.attributor, auto.rule(kinked, n)), NODES[0], world)
    except (ConfigError, DataError) as error:  # the run itself says what is wrong, if anything is
        log.info("quadrature: no pilot (%s)", error)
        return {"name": name, "n_steps": len(fallback), "said": f"{fallback.name}, without a pilot"}
    before = part.measured(NODES[0])
    for n in NODES[1:]:
        here = part.measured(n)
        change = here.change(before)
        log.info("quadrature: %d nodes leave %.2g of the correlation open, on %d samples", n, change, part.plan.n_rows)
        if not change > auto.tol:
            break
        before = here
    else:
        log.warning(
            "quadrature: %d nodes, the most that are tried, leave %.2g of the correlation open on %d samples, above "
            "quadrature.tol=%g: see the quadrature error", n, change, part.plan.n_rows, auto.tol
        )  # fmt: skip
    said = f"by a pilot of {part.plan.n_rows} samples, which leaves {change:.1%} open (tol {auto.tol:.1%})"
    return {"name": name, "n_steps": n, "said": said}


def _half_steps(job: Job, world: World) -> str:
    """The change of the map against half of the steps, as a part of the correlation; "unknown" without a pilot."""
    try:
        part = _Part.of(job, lambda n: job.attributor if n == 2 else job.attributor.halved, 2, world)  # type: ignore
    except (ConfigError, DataError) as error:
        log.info("no pilot of half of the steps (%s)", error)
        return "unknown"
    return f"{part.measured(2).change(part.measured(1)):.2g}"


@dataclass(frozen=True)
class _First(Plan):
    """The first rows of a plan, as its only fold."""

    n_rows: int = 0

    @property
    def n_folds(self) -> int:
        return 1

    def fold(self, number: int) -> range:
        return range(self.n_rows)


@dataclass(frozen=True)
class _Measured:
    """What a pilot finds with some rule: maps (J, P), the quadrature error of their sums (J,), and the correlation."""

    maps: Float64[np.ndarray, "J P"]
    error: Float64[np.ndarray, " J"]
    correlation: Float64[np.ndarray, " J"]
    complete: bool

    def change(self, before: _Measured) -> float:
        """The largest of any output: the change of its map, or the error of its sum. 0 if there is no map.

        They are parts of its correlation. The change of a map is the root of the sum of its squares, and a part of the
        size of the map where that is larger, because parts of both signs may cancel in the correlation.
        """
        scale = np.maximum(np.abs(self.correlation), LEAST)
        size = np.maximum(scale, np.linalg.norm(self.maps, axis=1))
        parts = [np.linalg.norm(self.maps - before.maps, axis=1) / size]
        if self.complete:
            parts.append(np.abs(self.error) / scale)
        return float(np.nan_to_num(parts, nan=0.0).max(initial=0.0))


@dataclass(frozen=True)
class _Part:
    """The first samples of a job, in the order of its folds, with their predictions."""

    job: Job
    plan: _First
    around: Surroundings
    found: findings.Findings
    known: findings.Known
    made: Callable[[int], Attributor]
    """The attributor with a number of nodes."""
    world: World

    @classmethod
    def of(cls, job: Job, made: Callable[[int], Attributor], first: int, world: World) -> _Part:
        """Predict the samples, and choose outputs. Raises `DataError` if no sample is fit for use.

        `first`: a number of nodes, with which the model is looked at.
        """
        n = len(job.source)
        rows = min(n, max(FEWEST, min(SAMPLES, ceil(n / job.limits.n_folds))))
        limits = replace(
            job.limits, n_folds=ceil(n / rows), mode="reverse", trial=False, output_block=None, baseline_block=None
        )
        job = replace(
            job,
            attributor=made(first),
            statistics=(STATISTICS["correlation"](), STATISTICS["autocorrelation"]()),
            targets=replace(job.targets, n_others=None, each=None),
            limits=limits, audit=Audit(0), budget=Budget(),
            samples=False, slices=None, reduce=None, store=None, dims=None,
        )  # fmt: skip
        whole = plan_of(job, world.device)
        plan = _First(**{f.name: getattr(whole, f.name) for f in fields(Plan)}, n_rows=rows)
        job.model.fix(plan.rows_per_pass)
        parts: list[dict[str, np.ndarray]] = []
        predicted = Predictor(
            job.inputs, job.source, job.targets, plan, world.device, True, job.needs_mean, job.weights,
            filter=job.filter,
        ).run(0, lambda _, tables: parts.append(tables))  # fmt: skip
        known = findings.Known.joined([findings.Known(**part) for part in parts])
        found = findings.find(plan, predicted["means"], job.weights, known.of)
        mean = None
        if job.needs_mean:
            fit = len(found.pool)
            mean = tuple(torch.from_numpy(predicted[f"{name}_sum"][0] / fit) for name in plan.shapes.raw_names)
        order = by_prediction(plan, found, known.of) if job.baseline.needs_ranks else None
        needed = job.baseline.needs_classes
        classes = findings.top_classes(plan, known.of, needed) if needed else None
        around = Surroundings(job.source, np.arange(n), job.seed, mean, order, classes)
        spread = np.nan_to_num(found.y_std) * (found.r_std > 0)
        most = np.sort(np.argsort(-spread, kind="stable")[:OUTPUTS])
        work = replace(plan.work, outputs=tuple(plan.work.outputs[k] for k in most))
        few = findings.Findings(
            replace(found.centre, y=found.centre.y[most], r=found.centre.r[most], b=found.centre.b[most]),
            found.total[most], found.y_std[most], found.r_std[most], found.pool,
        )  # fmt: skip
        return cls(job, replace(plan, work=work), around, few, known.at(slice(None), most), made, world)

    def measured(self, n_steps: int) -> _Measured:
        """Walk the samples with `n_steps` nodes."""
        attributor = self.made(n_steps)
        job, shapes = self.job, self.plan.shapes
        work = replace(self.plan.work, points=attributor.points(shapes.walk), price=attributor.price(shapes.walk))
        made = make_plan(shapes, work, self.plan.limits, self.plan.seed)
        plan = _First(**{f.name: getattr(made, f.name) for f in fields(Plan)}, n_rows=self.plan.n_rows)
        job.model.fix(plan.rows_per_pass)
        engine = Engine(
            job.inputs, job.source, attributor, job.baseline, self.around, plan, self.found,
            feature_terms(("a", "ay", "ar")), Cells(), job.weights, self.world.device, skip=True, reduction=Reduction(),
            watch=lambda rows: self.world.watch("the pilot of the quadrature"),
        )  # fmt: skip
        states = [engine.run(plan.shard(k), self.known)[0].union(1) for k in range(plan.n_shards)]
        maps, error, correlation = (np.concatenate(parts) for parts in zip(*map(_result, states), strict=True))
        return _Measured(maps, error, correlation, attributor.complete)


def _result(state: State) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps, quadrature error and correlation of each output.

    Where the target is constant, they are those with itself. Where the predictions hardly differ, as of a rare class
    that none of the samples has, they are those of the mean, as parts of its distance from the baselines.
    """
    agreement = Agreement().finalize(state).outputs
    spread, way = state.std("r"), state.mean("r") - state.mean("b")
    own = np.where(spread > 0, spread, np.nan) ** 2
    one = np.where(own > 0, 1.0, np.nan)
    parts = [_parts(state, "correlation", agreement["correlation"], agreement["baseline_term"]),
             _parts(state, "autocorrelation", one, state.covariance("r", "b") / own)]  # fmt: skip
    far = np.where(way != 0, way, np.nan)
    whole = np.concatenate(
        [(state.mean("a", i).T / far).T.reshape(len(far), -1) for i in range(len(state.features))], axis=1
    )
    parts.append((whole, whole.sum(axis=1) - 1, np.ones(len(far))))
    which = np.where(spread <= FLAT * np.abs(way), 2, np.where(np.isfinite(parts[0][2]), 0, 1))
    maps, error, correlation = (np.stack(each)[which, np.arange(len(which))] for each in zip(*parts, strict=True))
    return maps, error, correlation


def _parts(state: State, name: str, correlation: np.ndarray, baseline: np.ndarray) -> tuple[np.ndarray, ...]:
    """What a statistic finds: maps (J, P), the quadrature error of their sums (J,), and its correlation (J,)."""
    made = STATISTICS[name]().finalize(state)
    maps = np.concatenate([m[name].reshape(len(correlation), -1) for m in made.features], axis=1)
    return maps, made.outputs[f"{name}_sum"] - correlation + baseline, correlation


def _with(attributor: Attributor, quadrature: Quadrature) -> Any:
    """The attributor with the nodes of its open quadrature."""
    return attributor.suited(lambda: True, lambda auto: quadrature)
