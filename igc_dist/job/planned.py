"""From a job to its plan and its store, by a first look at model and data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from igc_dist import features
from igc_dist.attributors import PathIntegral
from igc_dist.distributed import World
from igc_dist.features import DIM, Reduction
from igc_dist.inputs import OneHot, Walk
from igc_dist.job import modes
from igc_dist.job.job import Job
from igc_dist.job.spec import spec_hash
from igc_dist.metrics import Subject, every, weighted
from igc_dist.model import LARGEST_RECORDING, activations, memory
from igc_dist.passes import are_one_hot, check_labels, first_look, probe
from igc_dist.paths import Auto, Pairs, Pilot
from igc_dist.planning import Plan, Work, make_plan
from igc_dist.records import ConfigError, IgcError, Shapes
from igc_dist.secrets import masked_spec
from igc_dist.store import Store, phases_of
from igc_dist.tensors import Batch


def decided(job: Job, device: torch.device, pilot: Pilot | None = None) -> Job:
    """The job with all choices made that depend on the model: by its activations, or by a `pilot` (`job.pilot`).

    The model must be borrowed.
    """
    attributor = job.attributor.suited(lambda: piecewise(job, device), pilot)
    return job if attributor is job.attributor else replace(job, attributor=attributor)


def piecewise(job: Job, device: torch.device) -> bool:
    """Whether the activations are piecewise linear, by a forward pass of one sample. The model must be borrowed."""
    few = job.source.look(range(min(4, len(job.source))))
    job.inputs.check(few, job.baseline if job.attributor.baselines else None)
    walk = probe(job.inputs, few, device, job.attributor.baselines)
    try:
        walk.function.predict(walk.inputs)  # the first call locates a final layer, by extra operators
        return activations.piecewise(lambda: walk.function.predict(walk.inputs))
    except IgcError:
        raise
    except Exception:  # `plan_of` reports what is wrong with the model
        return True


def as_dear_as_the_grid(job: Job, device: torch.device) -> str:
    """Says that a design draws as many nodes as the grid has; empty if it draws fewer. The model must be borrowed."""
    attributor: Any = job.attributor
    while hasattr(attributor, "attributor"):
        attributor = attributor.attributor
    design = getattr(attributor, "design", None)
    if design is None or isinstance(design, Pairs):  # no nodes are drawn, or no baseline has nodes of its own
        return ""
    grid = Auto().rule(piecewise(job, device))
    if len(design) < len(grid):
        return ""
    return (
        f"{design.name} takes {len(design)} nodes for each baseline, as many as design=grid has by default "
        f"({grid.name}), which is accurate for every sample: take fewer (quadrature.n_steps, design.n_draws), or it"
    )


def plan_of(job: Job, device: torch.device, check: bool = True) -> Plan:
    """Look at model and data, and make the plan. If `check`, the plan is checked against its budget.

    The model must be borrowed.
    """
    look = _look(job, device)
    shapes = _shapes(job, look, device)
    labels = _labels(job, look, shapes.n_outputs)
    outputs = tuple(job.targets.select(shapes.n_outputs))
    mode = modes.choose(
        job.mode, job.attributor, job.inputs, look.walk, look.reduction, outputs, job.limits.output_block
    )
    if mode.n_groups:
        shapes = replace(shapes, fixed_bytes=mode.memory[0], row_bytes=mode.memory[1])
    # held from here on: what forward mode needs of torch is 75 MiB, and is imported as it is tried
    held = memory.resident()
    shapes = replace(shapes, fixed_bytes=shapes.fixed_bytes + job.audit.memory(job.model), reserved_bytes=held)
    asked = replace(
        _work(job, look, shapes, outputs),
        groups=mode.n_groups,
        on_device=device.type != "cpu",
        n_asked=_asked(job, labels),
    )
    plan = make_plan(shapes, asked, job.limits, job.seed)
    if check:
        plan.check()
    return plan


def store_of(job: Job, plan: Plan, world: World) -> Store:
    """The store that the job fills. It is not opened yet."""
    spec = masked_spec(job.spec(plan, world))
    float_type = "float64" if plan.shapes.itemsize == 8 else "float32"
    phases = phases_of(plan, job.terms, float_type, sums=job.needs_mean, skip=job.skip, replicates=job.n_replicates)
    return Store(job.store, phases, spec, spec_hash(spec))


@dataclass(frozen=True)
class Look:
    """The material of the first look: a few samples, the walk of one of them, and the reduction of its attributions."""

    few: Batch
    n_baselines: int
    walk: Walk
    attributed: tuple[tuple[int, ...], ...]
    reduction: Reduction


def _look(job: Job, device: torch.device) -> Look:
    """Take a few samples and check them. Errors of the data alone are found before the first forward pass."""
    n_samples = len(job.source)
    if not job.seen:
        job.source.check_deterministic()
    few = job.source.look(range(min(4, n_samples)))
    job.inputs.check(few, job.baseline if job.attributor.baselines else None)
    n_baselines = 1
    if job.attributor.baselines:
        n_baselines = job.baseline.count(n_samples, tuple(tuple(x.shape[1:]) for x in few.inputs))
    if isinstance(job.attributor, PathIntegral) and isinstance(job.attributor.design, Pairs):
        n_baselines = job.attributor.design.n_draws
    walk = probe(job.inputs, few, device, job.attributor.baselines)
    attributed = job.inputs.features(walk)
    return Look(few, n_baselines, walk, attributed, job.reduction(len(attributed)))


def _shapes(job: Job, look: Look, device: torch.device) -> Shapes:
    """The shapes and sizes of model and data, from the first forward passes.

    Raises `ConfigError`, `DataError` or `ModelError`.
    """
    described = _described(job, look.reduction, look.few, look.attributed)
    if job.drawn and not look.reduction.linear:
        raise ConfigError(
            "reduce has a function, which need not be linear, but draws are reduced in sums: reduce by segments or "
            "patches"
        )
    walk, gradients = look.walk, job.attributor.gradients
    # the pilot and the plan take the same look, which costs a dozen passes of the model
    key = device, gradients, job.attributor.baselines, job.targets.n_others
    if key not in job.seen:
        job.seen[key] = first_look(job.inputs, walk, look.few, len(job.source), job.targets, device, gradients)
    found = job.seen[key]
    job.attributor.prove(walk.function, walk.inputs)
    found = replace(found, **described)
    return found if job.attributor.linear else replace(found, n_latents=0)  # such an attributor does not walk latents


def _labels(job: Job, look: Look, n_outputs: int) -> bool:
    """Whether targets are one-hot labels. Raises `ConfigError` if they must be but are not."""
    encoded = job.targets.encode(look.few.target, n_outputs)
    if job.targets.each == "own":
        check_labels(encoded)
    whole = encoded[~encoded.isnan().any(1)]  # missing targets are ignored
    labels = len(whole) > 0 and are_one_hot(whole)
    if job.targets.n_others is not None and not labels:
        raise ConfigError(
            f"target.n_others={job.targets.n_others} needs a label for each sample: an integer y (target=one_hot), or "
            "one-hot"
        )
    return labels


def _work(job: Job, look: Look, shapes: Shapes, outputs: tuple[int, ...]) -> Work:
    """The work in reverse mode."""
    n_slices = 1 if job.slices is None else len(job.slices.labels)
    return Work(
        outputs=outputs,
        n_baselines=look.n_baselines,
        points=job.attributor.points(shapes.walk),
        gradients=job.attributor.gradients,
        price=job.attributor.price(shapes.walk),
        held=job.attributor.held,
        audited=job.audited > 0,
        n_terms=len(job.terms),
        n_cells=n_slices * (1 if job.grouping is None else job.grouping.n_groups),
        n_slices=n_slices,
        nonlinear=(
            *(statistic.name for statistic in job.statistics if not statistic.linear or statistic.whole),
            *job.metrics,
        ),
        sums=job.needs_mean,
        replicates=job.n_replicates,
        page=job.page,
        n_maps=sum(statistic.n_maps * (1 + statistic.jackknifed) for statistic in job.statistics),
        samples=job.samples,
        in_memory=job.store is None,
        ahead=job.source.ahead,
        recorded=LARGEST_RECORDING if job.model.cuda_graphs else 0,
        shared=job.attributor.baselines and job.baseline.shared,
        reduced=not look.reduction.trivial,
        free=not look.reduction.linear,
        drawn=job.drawn,
        each=job.targets.each is not None,
        pairs=job.pairs,
        **_scores(job, look),
        rule=job.attributor.rule,
        certified=job.attributor.certified,
    )


def _scores(job: Job, look: Look) -> dict[str, Any]:
    """The fields of `Work` about metrics, after their own checks. Raises `ConfigError` for one that does not fit."""
    if not job.metrics:
        return {}
    taken = look.walk.inputs
    if len(taken) != 1:
        raise ConfigError(f"samples have {len(taken)} inputs, and metrics take models of one: drop the metrics")
    if "baseline" in job.needed and look.n_baselines > 1:
        raise ConfigError(
            f"metrics that need the baseline take one for each sample, and there are {look.n_baselines}: take one, or "
            "another start of the metric"
        )
    first = job.inputs.predict(taken)[0].double().cpu()
    layers = weighted(job.model.module)
    n_weights = sum(p.numel() for layer in layers for p in layer.parameters(recurse=False))
    subject = Subject(len(job.source), tuple(taken[0].shape[1:]), first, len(layers), n_weights)
    for metric in job.metrics.values():
        metric.check(subject)
    efforts = tuple((label, metric.effort(subject)) for label, metric in job.metrics.items())
    return {"scores": tuple(every(job.metrics, job.model, 1, subject)), "efforts": efforts}


def _asked(job: Job, labels: bool) -> int | None:
    """The number of outputs whose gradients are taken at each path point; None: all of them."""
    if job.targets.n_others is not None:
        return 1 + job.targets.n_others
    # the labels of a pair differ in two outputs; for an auto-correlation, its predictions differ in all
    return 2 if job.pairs and labels and "ar" not in job.terms else None


def _described(job: Job, reduction: Reduction, few: Batch, attributed: tuple[tuple[int, ...], ...]) -> dict[str, Any]:
    """The fields of `Shapes` about features: their names, and their shapes before and after reduction."""
    reduced, masks = reduction.shapes(attributed, few.inputs), features.masks_of(job.reduce)
    n = len(attributed)
    relaxed = job.inputs.n_categorical(few.inputs) if isinstance(job.inputs, OneHot) else 0
    return {
        "input_names": features.names(n, job.names),
        "features": reduced,
        "attributed": attributed,
        "dims": reduction.dims(
            features.dims(attributed, job.dims or job.inputs.dims(attributed), [i >= n - relaxed for i in range(n)]),
            reduced,
        ),
        "coordinates": () if masks is None else ((DIM, tuple(masks.names)),),
        "complete": reduction.complete(attributed, few.inputs, job.model.dtype(few.inputs)),
    }
