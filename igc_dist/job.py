"""A job: what is to be computed, from keyword arguments or from a configuration, and its identity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from igc_dist import baselines, config, data, designs, features, inputs
from igc_dist.attributors import Attributor
from igc_dist.baselines import Baseline
from igc_dist.data import Sliced, Source, sliced, weighted
from igc_dist.distributed import World
from igc_dist.features import Reduction
from igc_dist.inputs import Inputs, OneHot
from igc_dist.model import Model
from igc_dist.plan import Limits, Plan, Work, make_plan
from igc_dist.predict import first_look, probe
from igc_dist.quadrature import rule
from igc_dist.records import Batch, ConfigError
from igc_dist.spec import describe, digest
from igc_dist.statistics import STATISTICS, Cells, Statistic
from igc_dist.statistics.state import feature_terms
from igc_dist.targets import Targets


@dataclass(frozen=True)
class Job:
    """What is to be computed. Everything in it but `store` and `labels` changes the numbers."""

    inputs: Inputs
    source: Source
    targets: Targets
    baseline: Baseline
    attributor: Attributor
    statistics: tuple[Statistic, ...]
    limits: Limits = field(default_factory=Limits)
    samples: bool = False
    seed: int = 0
    skip: bool = False
    reduce: Any = None
    """How features are reduced before they are folded: see `features.ensure`."""
    names: Sequence[str] | None = None
    """Of the inputs."""
    dims: Sequence[Any] | None = None
    """Names of the dimensions of each input."""
    store: str | Path | None = None
    method: str = "igc"
    weights: Float64[np.ndarray, " N"] | None = None
    """Weight of each sample."""
    slices: Sliced | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)
    """For the provenance: what the user called things."""

    def __post_init__(self) -> None:
        if not self.attributor.exact:
            noisy = [f"the statistic {s.name!r} is not linear in the attribution" for s in self.statistics if not s.linear]
            noisy += ["attributions of single samples are stored"] * self.samples
            for reason in noisy:
                raise ConfigError(
                    f"a design that draws its nodes is right on average only, but {reason}, so its noise would pass for a property "
                    "of the model: take design=grid, or drop it"
                )
        grouped = [s for s in self.statistics if s.n_groups > 1]
        if len(grouped) > 1:
            raise ConfigError(f"statistics {', '.join(s.name for s in grouped)} each part the samples: one run can have one of them")
        for statistic in self.statistics:
            if self.weights is not None and not statistic.weighted:
                raise ConfigError(f"the statistic {statistic.name!r} is not defined for weighted samples: drop it, or the weights")

    @property
    def grouping(self) -> Statistic | None:
        """The statistic that parts the samples by their target, if any."""
        return next((statistic for statistic in self.statistics if statistic.n_groups > 1), None)

    def cells(self, targets: Callable[[], np.ndarray]) -> Cells:
        """How samples are parted; `targets()` are the (N, J) targets of all samples."""
        thresholds = None if self.grouping is None else self.grouping.thresholds(targets())
        if self.slices is None:
            return Cells(grouping=self.grouping, thresholds=thresholds)
        return Cells(self.slices.number, len(self.slices.labels), self.grouping, thresholds)

    @property
    def model(self) -> Model:
        return self.inputs.model

    @property
    def terms(self) -> tuple[str, ...]:
        """Feature sums that the statistics need together, so that one pass serves all."""
        return feature_terms(term for statistic in self.statistics for term in statistic.terms)

    @property
    def needs_mean(self) -> bool:
        """Whether pass 1 is to find the mean input."""
        return self.attributor.baselines and self.baseline.needs_mean

    def reduction(self, n_inputs: int) -> Reduction:
        """How the features of `n_inputs` inputs are reduced. Raises `ConfigError`."""
        return features.ensure(self.reduce, n_inputs)

    def spec(self, plan: Plan, world: World) -> dict[str, Any]:
        """Everything that changes the numbers, as JSON."""
        m, probe = self.model, self.source.fetch(sorted({0, len(self.source) // 2, len(self.source) - 1}))
        call = {
            "forward": m.forward,
            "forward_kwargs": m.forward_kwargs,
            "output": m.output,
            "precision": m.precision,
            "channels_last": m.channels_last,
            "compiled": m.compiled,
            "final_layer": None if m.final is None else m.final.name or describe(m.final.layer),
            **self.inputs.describe(),
        }
        cuts = ("fold_size", "baseline_block", "output_block", "samples_per_batch", "points_per_batch")
        dataset = self.source.dataset
        return {
            "model": describe({"module": m.module, **call}),
            "data": {
                "class": describe(type(dataset)),
                "n": len(self.source),
                "digest": digest(*probe.inputs, probe.target),
            },
            "target": {"outputs": list(plan.work.outputs), "one_hot": self.targets.one_hot, "names": describe(self.targets.names)},
            "baseline": describe(self.baseline) if self.attributor.baselines else None,
            "attributor": describe(self.attributor),
            "statistics": [describe(statistic) for statistic in self.statistics],
            "weights": describe(self.weights),
            "slices": describe(self.slices),
            "plan": {name: getattr(plan, name) for name in cuts},
            "features": {
                "reduce": describe(self.reduction(len(plan.shapes.features))),
                "names": list(plan.shapes.input_names),
                "dims": describe(plan.shapes.dims),
            },
            "samples": self.samples,
            "seed": self.seed,
            "on_nonfinite": "skip" if self.skip else "fail",
            "device": world.device.type,
        }


def plan_of(job: Job, device: torch.device, check: bool = True) -> Plan:
    """The first look at model and data, and the plan, checked against its budget if `check`. The model must be borrowed."""
    n_samples = len(job.source)
    job.source.check_deterministic()
    few = job.source.fetch(range(min(4, n_samples)))
    raw = tuple(tuple(x.shape[1:]) for x in few.inputs)
    # what the data alone can refuse comes before the first forward pass
    job.inputs.check(few, job.baseline if job.attributor.baselines else None)
    n_slices = 1 if job.slices is None else len(job.slices.labels)
    n_baselines = job.baseline.count(n_samples, raw) if job.attributor.baselines else 1
    walk = probe(job.inputs, few, device, job.attributor.baselines)
    attributed = job.inputs.features(walk)
    reduction = job.reduction(len(attributed))
    described = _described(job, reduction, few, attributed)
    shapes = replace(first_look(job.inputs, walk, few, n_samples, job.targets, device, job.attributor.gradients), **described)
    work = Work(
        outputs=tuple(job.targets.select(shapes.n_outputs)),
        n_baselines=n_baselines,
        points=job.attributor.points(shapes.walk),
        gradients=job.attributor.gradients,
        n_terms=len(job.terms),
        n_cells=n_slices * (1 if job.grouping is None else job.grouping.n_groups),
        n_slices=n_slices,
        nonlinear=tuple(statistic.name for statistic in job.statistics if not statistic.linear),
        samples=job.samples,
        on_device=device.type != "cpu",
        in_memory=job.store is None,
        ahead=job.source.ahead,
        shared=job.attributor.baselines and job.baseline.shared,
        reduced=not reduction.trivial,
        free=not reduction.linear,
    )
    plan = make_plan(shapes, work, job.limits, job.seed)
    if check:
        plan.check()
    return plan


def _described(job: Job, reduction: Reduction, few: Batch, attributed: tuple[tuple[int, ...], ...]) -> dict[str, Any]:
    """The fields of `Shapes` that say what the features are: their names, and their shapes before and after reduction."""
    reduced = reduction.shapes(attributed, few.inputs)
    n = len(attributed)
    relaxed = job.inputs.n_categorical(few.inputs) if isinstance(job.inputs, OneHot) else 0
    return {
        "input_names": features.names(n, job.names),
        "features": reduced,
        "attributed": attributed,
        "dims": reduction.dims(features.dims(attributed, job.dims, [i >= n - relaxed for i in range(n)]), reduced),
        "complete": reduction.complete(attributed, few.inputs, job.model.dtype(few.inputs)),
    }


NONFINITE = ("fail", "skip")


def limits_of(values: Mapping[str, Any], others: Sequence[str] = ()) -> Limits:
    """`Limits` from keyword arguments. Raises `ConfigError` that names the near one, also among `others`, for an unknown keyword."""
    known = list(Limits.__dataclass_fields__)
    for name in values:
        if name not in known:
            hint = config.near(name, [*others, *known])
            raise ConfigError(f"unknown argument {name!r}{hint}: the limits of a plan are {', '.join(known)}")
    return Limits(**values)


def named_statistics(wishes: Sequence[str | Statistic], **settings: Mapping[str, Any]) -> tuple[Statistic, ...]:
    """Statistics by name, or as objects, each once; `settings` by name. Raises `ConfigError` for an unknown one."""
    found: dict[str, Statistic] = {}
    for wish in wishes:
        if isinstance(wish, Statistic):
            found[wish.name] = wish
        elif wish in STATISTICS:
            found.setdefault(wish, STATISTICS[wish](**settings.get(wish, {})))
        else:
            raise ConfigError(
                f"statistic {wish!r} is unknown{config.near(str(wish), list(STATISTICS))}: choose from {', '.join(STATISTICS)}"
            )
    return tuple(found.values())


def from_config(cfg: Any, store: str | Path | None, allow: Sequence[str] = ()) -> Job:
    """The job that a composed configuration describes. Raises `ConfigError`, `ModelError` or `DataError`."""
    c = config.typed(cfg)
    if c.on_nonfinite not in NONFINITE:
        raise ConfigError(f"on_nonfinite={c.on_nonfinite!r}: choose fail (with the sample's index) or skip (leave out and record)")
    for name, limit in (("low", c.statistic.low), ("high", c.statistic.high)):
        if limit is not None and "ttest" not in c.statistic.names:
            raise ConfigError(
                f"statistic.{name}={limit} is a limit of the groups of a t-test, but statistic.names={c.statistic.names} has no ttest: "
                "add it, or leave the limit out"
            )
    module = config.build(c.model.build, allow)
    model = Model(
        module,
        forward=c.model.forward,
        forward_kwargs=c.model.forward_kwargs,
        output=c.model.output,
        precision=c.fabric.precision,
        channels_last=c.model.channels_last,
        compiled=c.model.compiled,
        final_layer=c.model.final_layer,
    )
    if c.model.weights is not None:
        config.load_weights(module, c.model.weights)
    quadrature = rule(c.quadrature.name, c.quadrature.n_steps)
    design = designs.ensure(c.design.name, quadrature, c.quadrature.n_steps)
    source = data.ensure(config.build(c.data.build, allow), c.data.num_workers, c.data.stage, c.data.prefetch)
    return Job(
        inputs=inputs.ensure(
            model,
            embedding=c.model.embedding,
            embedding_kwargs=c.model.embedding_kwargs,
            n_categorical=c.model.n_categorical,
            categories=c.model.categories,
        ),
        source=source,
        targets=Targets(c.target.outputs, c.target.one_hot, c.target.names),
        baseline=baselines.ensure(config.build(c.baseline, allow)),
        attributor=config.build_attributor(c.method.attributor, quadrature, design, allow),
        statistics=named_statistics(c.statistic.names, ttest={"low": c.statistic.low, "high": c.statistic.high}),
        limits=c.plan,
        samples=c.store.samples or c.method.samples,
        seed=c.seed,
        skip=c.on_nonfinite == "skip",
        reduce=None if c.reduce is None else config.build(c.reduce, allow),
        names=c.data.names,
        dims=c.data.dims,
        store=store,
        method=c.method.name,
        weights=weighted(source, c.data.weights),
        slices=sliced(source, c.data.slices),
        labels={"model": c.model.build["_target_"], "data": c.data.build["_target_"]},
    )
