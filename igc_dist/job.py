"""A job: what is to be computed, from keyword arguments or from a configuration, and its identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from igc_dist import baselines, config, data, inputs
from igc_dist.attributors import Attributor
from igc_dist.baselines import Baseline
from igc_dist.data import Source
from igc_dist.distributed import World
from igc_dist.inputs import Inputs
from igc_dist.model import Model
from igc_dist.plan import Limits, Plan, Work, make_plan
from igc_dist.predict import first_look
from igc_dist.quadrature import rule
from igc_dist.records import ConfigError
from igc_dist.spec import describe, digest
from igc_dist.statistics import STATISTICS, Statistic
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
    store: str | Path | None = None
    method: str = "igc"
    labels: Mapping[str, Any] = field(default_factory=dict)
    """For the provenance: what the user called things."""

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
            "statistics": [statistic.name for statistic in self.statistics],
            "plan": {name: getattr(plan, name) for name in cuts},
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
    features = tuple(tuple(x.shape[1:]) for x in few.inputs)
    # what the data alone can refuse comes before the first forward pass
    job.inputs.check(few, job.baseline if job.attributor.baselines else None)
    n_baselines = job.baseline.count(n_samples, features) if job.attributor.baselines else 1
    shapes = first_look(job.inputs, few, n_samples, job.targets, device, job.attributor.baselines)
    work = Work(
        outputs=tuple(job.targets.select(shapes.n_outputs)),
        n_baselines=n_baselines,
        points=job.attributor.points,
        n_terms=len(job.terms),
        nonlinear=tuple(statistic.name for statistic in job.statistics if not statistic.linear),
        samples=job.samples,
        on_device=device.type != "cpu",
        in_memory=job.store is None,
        shared=job.attributor.baselines and job.baseline.shared,
    )
    plan = make_plan(shapes, work, job.limits, job.seed)
    if check:
        plan.check()
    return plan


NONFINITE = ("fail", "skip")


def limits_of(values: Mapping[str, Any], others: Sequence[str] = ()) -> Limits:
    """`Limits` from keyword arguments. Raises `ConfigError` that names the near one, also among `others`, for an unknown keyword."""
    known = list(Limits.__dataclass_fields__)
    for name in values:
        if name not in known:
            hint = config.near(name, [*others, *known])
            raise ConfigError(f"unknown argument {name!r}{hint}: the limits of a plan are {', '.join(known)}")
    return Limits(**values)


def named_statistics(names: Sequence[str]) -> tuple[Statistic, ...]:
    """Statistics by name, each once. Raises `ConfigError` for an unknown one."""
    for name in names:
        if name not in STATISTICS:
            raise ConfigError(
                f"statistic {name!r} is unknown{config.near(str(name), list(STATISTICS))}: choose from {', '.join(STATISTICS)}"
            )
    return tuple(STATISTICS[name]() for name in dict.fromkeys(names))


def from_config(cfg: Any, store: str | Path | None, allow: Sequence[str] = ()) -> Job:
    """The job that a composed configuration describes. Raises `ConfigError`, `ModelError` or `DataError`."""
    c = config.typed(cfg)
    if c.on_nonfinite not in NONFINITE:
        raise ConfigError(f"on_nonfinite={c.on_nonfinite!r}: choose fail (with the sample's index) or skip (leave out and record)")
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
    return Job(
        inputs=inputs.ensure(
            model,
            embedding=c.model.embedding,
            embedding_kwargs=c.model.embedding_kwargs,
            n_categorical=c.model.n_categorical,
            categories=c.model.categories,
        ),
        source=data.ensure(config.build(c.data.build, allow), c.data.num_workers, c.data.stage),
        targets=Targets(c.target.outputs, c.target.one_hot, c.target.names),
        baseline=baselines.ensure(config.build(c.baseline, allow)),
        attributor=config.build_attributor(c.method.attributor, rule(c.quadrature.name, c.quadrature.n_steps), allow),
        statistics=named_statistics(c.statistic.names),
        limits=c.plan,
        samples=c.store.samples or c.method.samples,
        seed=c.seed,
        skip=c.on_nonfinite == "skip",
        store=store,
        method=c.method.name,
        labels={"model": c.model.build["_target_"], "data": c.data.build["_target_"]},
    )
