"""A job: what is to be computed, from keyword arguments or from a configuration, and its identity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from igc_dist import activations, config, features, modes
from igc_dist.attributors import Attributor, PathIntegral
from igc_dist.audit import Audit
from igc_dist.baselines import Baseline, Noise, Partners, Resampled
from igc_dist.budget import Budget
from igc_dist.data import Sliced, Source
from igc_dist.designs import Pairs
from igc_dist.distributed import World
from igc_dist.features import Reduction
from igc_dist.inputs import Inputs, OneHot, Plain
from igc_dist.model import Model
from igc_dist.plan import Limits, Plan, Work, make_plan
from igc_dist.predict import first_look, probe
from igc_dist.records import Batch, ConfigError, IgcError
from igc_dist.spec import describe, digest
from igc_dist.statistics import STATISTICS, Cells, ControlledCorrelation, Statistic
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
    audit: Audit = field(default_factory=Audit)
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
    budget: Budget = field(default_factory=Budget)
    """How far to go: changes how many folds are used, not what they hold."""
    labels: Mapping[str, Any] = field(default_factory=dict)
    """For the provenance: what the user called things."""

    def __post_init__(self) -> None:
        if not self.exact:
            noisy = [f"the statistic {s.name!r} is not linear in the attribution" for s in self.statistics if not s.linear]
            estimates = self.attributor.estimate and self.targets.n_others is None
            noisy += ["attributions of single samples are stored"] * (self.samples and not estimates)
            for reason in noisy:
                raise ConfigError(
                    f"a design that draws its nodes, or its outputs, is right on average only, but {reason}, so its noise would pass for a "
                    "property of the model: take design=grid and target.n_others=null, or drop it"
                )
        self._check_draws()
        if self.samples and self.budget.limited:
            raise ConfigError("store.samples=true with a budget, which leaves folds out: drop one of them")
        if (self.budget.rel_se or self.budget.replicates) and not any(statistic.jackknifed for statistic in self.statistics):
            raise ConfigError("budget.rel_se and budget.replicates need a statistic with a standard error, such as correlation")
        assert self.audited >= 0  # or it says why there can be no audit
        grouped = [s for s in self.statistics if s.n_groups > 1]
        if len(grouped) > 1:
            raise ConfigError(f"statistics {', '.join(s.name for s in grouped)} each part the samples: one run can have one of them")
        for statistic in self.statistics:
            if isinstance(statistic, ControlledCorrelation):
                self._check_control()
            if self.weights is not None and not statistic.weighted:
                raise ConfigError(f"the statistic {statistic.name!r} is not defined for weighted samples: drop it, or the weights")

    def _check_draws(self) -> None:
        """Raise `ConfigError` for what does not go with pairs, or with some of the outputs."""
        if isinstance(self.baseline, Partners) and not self.pairs:
            raise ConfigError("baseline=partners are drawn by design=pairs or importance_pairs: set one of them, or another baseline")
        if self.pairs and not isinstance(self.baseline, Partners):
            raise ConfigError(
                f"design=pairs takes other rows of the data as baselines, but baseline {type(self.baseline).__name__} is given: leave it "
                "out (on the command line baseline=partners), or take design=stratified"
            )
        what = "design=pairs" if self.pairs else "target.n_others"
        if self.targets.n_others is not None:
            if self.pairs:
                raise ConfigError("target.n_others with design=pairs: where y is a label, pairs ask for the outputs of both labels only")
            if not isinstance(self.attributor, PathIntegral):
                raise ConfigError(
                    f"target.n_others with attributor {self.attributor.name!r}: it is for Integrated Gradients, leave it null"
                )
        if not self.drawn:
            return
        if isinstance(self.inputs, OneHot):
            raise ConfigError(f"{what} with categories, which are walked one baseline at a time: name an embedding method")
        if self.model.final is not None:
            raise ConfigError(f"{what} and model.final_layer are two ways to make many outputs cheap: use one of them")
        if self.pairs and self.slices is not None:
            raise ConfigError("design=pairs with slices: a pair of two slices would be in neither. Take design=stratified")

    @property
    def mode(self) -> str:
        """The wish for a mode. Raises `ConfigError` for forward mode where draws are folded, or mean baselines beside the features."""
        forced = "draws are folded one by one" if self.drawn else "a control variate is of all features" if "z" in self.terms else ""
        if forced and self.limits.mode == "forward":
            raise ConfigError(f"plan.mode=forward is not possible: {forced}. Set plan.mode to auto or reverse")
        return "reverse" if forced else self.limits.mode

    def _check_control(self) -> None:
        """Raise `ConfigError` where no control variate is known: the mean baseline must be drawn for each input, and as it is walked."""
        if (
            not isinstance(self.baseline, Resampled | Noise)
            or not isinstance(self.inputs, Plain)
            or self.drawn
            or self.attributor.own_baseline
        ):
            raise ConfigError(
                "controlled_correlation needs floating point inputs, and baselines that are drawn for each of them: baseline=resampled or "
                "noise, without pairs or target.n_others, and an attributor that walks from them"
            )

    @property
    def n_replicates(self) -> int:
        """Folds that are walked twice: none where nothing is drawn for each sample."""
        return self.budget.n_replicates(not self.attributor.exact or (self.attributor.baselines and not self.baseline.shared) or self.drawn)

    def stages(self, plan: Plan) -> list[int]:
        """Numbers of folds after which to look. Raises `ConfigError` if two folds are more than the budget of gradients."""
        return self.budget.stages(plan, self.n_replicates)

    @property
    def exact(self) -> bool:
        """Whether the attribution of each sample is what it is called."""
        return self.attributor.exact and self.targets.n_others is None

    @property
    def pairs(self) -> bool:
        """Whether samples of the data are paired."""
        return isinstance(self.attributor, PathIntegral) and isinstance(self.attributor.design, Pairs)

    @property
    def drawn(self) -> bool:
        """Whether draws are folded one by one, and not as attributions of samples."""
        return self.pairs or self.targets.n_others is not None

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
    def audited(self) -> int:
        """How many micro-batches are done again in a higher precision. Raises `ConfigError` if there is none."""
        return 0 if self.attributor.name == "input" else self.audit.batches(self.model)

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
            "target": {
                "outputs": list(plan.work.outputs),
                "one_hot": self.targets.one_hot,
                "names": describe(self.targets.names),
                "n_others": self.targets.n_others,
            },
            "baseline": describe(self.baseline) if self.attributor.baselines else None,
            "attributor": describe(self.attributor),
            "statistics": [describe(statistic) for statistic in self.statistics],
            "weights": describe(self.weights),
            "slices": describe(self.slices),
            "plan": {name: getattr(plan, name) for name in (*cuts, "mode")},
            "features": {
                "reduce": describe(self.reduction(len(plan.shapes.features))),
                "names": list(plan.shapes.input_names),
                "dims": describe(plan.shapes.dims),
            },
            "samples": self.samples,
            "replicates": self.n_replicates,
            "audit": self.audited,
            "seed": self.seed,
            "on_nonfinite": "skip" if self.skip else "fail",
            "device": world.device.type,
        }


def decided(job: Job, device: torch.device) -> Job:
    """The job with what it leaves to the activations of the model decided, by a forward pass of one sample. The model must be borrowed."""

    def piecewise() -> bool:
        few = job.source.fetch(range(min(4, len(job.source))))
        job.inputs.check(few, job.baseline if job.attributor.baselines else None)
        walk = probe(job.inputs, few, device, job.attributor.baselines)
        try:
            walk.function.predict(walk.inputs)  # the first places a final layer, by operators of its own
            return activations.piecewise(lambda: walk.function.predict(walk.inputs))
        except IgcError:
            raise
        except Exception:  # the first look says what is wrong with the model
            return True

    attributor = job.attributor.suited(piecewise)
    return job if attributor is job.attributor else replace(job, attributor=attributor)


def plan_of(job: Job, device: torch.device, check: bool = True) -> Plan:
    """The first look at model and data, and the plan, checked against its budget if `check`. The model must be borrowed."""
    n_samples = len(job.source)
    job.source.check_deterministic()
    few = job.source.fetch(range(min(4, n_samples)))
    # what the data alone can refuse comes before the first forward pass
    job.inputs.check(few, job.baseline if job.attributor.baselines else None)
    n_slices = 1 if job.slices is None else len(job.slices.labels)
    n_baselines = job.baseline.count(n_samples, tuple(tuple(x.shape[1:]) for x in few.inputs)) if job.attributor.baselines else 1
    if isinstance(job.attributor, PathIntegral) and isinstance(job.attributor.design, Pairs):
        n_baselines = job.attributor.design.n_draws
    walk = probe(job.inputs, few, device, job.attributor.baselines)
    attributed = job.inputs.features(walk)
    reduction = job.reduction(len(attributed))
    described = _described(job, reduction, few, attributed)
    if job.drawn and not reduction.linear:
        raise ConfigError("reduce has a function, which need not be linear, but draws are reduced in sums: reduce by segments or patches")
    shapes = replace(first_look(job.inputs, walk, few, n_samples, job.targets, device, job.attributor.gradients), **described)
    job.attributor.prove(walk.function, walk.inputs)
    encoded = job.targets.encode(few.target, shapes.n_outputs)
    whole = encoded[~encoded.isnan().any(1)]  # a missing target says nothing
    labels = len(whole) > 0 and bool(((whole == 1).sum(1) == 1).all() and (whole.count_nonzero(1) == 1).all())
    if job.targets.n_others is not None and not labels:
        raise ConfigError(
            f"target.n_others={job.targets.n_others} needs a label for each sample: an integer y (target=one_hot), or one-hot"
        )
    if not job.attributor.linear:
        shapes = replace(shapes, n_latents=0)  # they are not walked
    outputs = tuple(job.targets.select(shapes.n_outputs))
    mode = modes.choose(job.mode, job.attributor, job.inputs, walk, reduction, outputs, job.limits.output_block)
    if mode.n_groups:
        shapes = replace(shapes, fixed_bytes=mode.memory[0], row_bytes=mode.memory[1])
    shapes = replace(shapes, fixed_bytes=shapes.fixed_bytes + job.audit.memory(job.model))
    work = Work(
        outputs=outputs,
        n_baselines=n_baselines,
        points=job.attributor.points(shapes.walk),
        gradients=job.attributor.gradients,
        price=job.attributor.price(shapes.walk),
        held=job.attributor.held,
        groups=mode.n_groups,
        audited=job.audited > 0,
        n_terms=len(job.terms),
        n_cells=n_slices * (1 if job.grouping is None else job.grouping.n_groups),
        n_slices=n_slices,
        nonlinear=tuple(statistic.name for statistic in job.statistics if not statistic.linear or statistic.whole),
        samples=job.samples,
        on_device=device.type != "cpu",
        in_memory=job.store is None,
        ahead=job.source.ahead,
        shared=job.attributor.baselines and job.baseline.shared,
        reduced=not reduction.trivial,
        free=not reduction.linear,
        drawn=job.drawn,
        pairs=job.pairs,
        n_asked=_asked(job, labels),
        rule=job.attributor.rule,
        certified=job.attributor.certified,
    )
    plan = make_plan(shapes, work, job.limits, job.seed)
    if check:
        plan.check()
    return plan


def _asked(job: Job, labels: bool) -> int | None:
    """Outputs whose gradients are taken at each path point; None: all of them."""
    if job.targets.n_others is not None:
        return 1 + job.targets.n_others
    # of a pair with labels the targets differ for two outputs; predictions, for an auto-correlation, for all
    return 2 if job.pairs and labels and "ar" not in job.terms else None


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
