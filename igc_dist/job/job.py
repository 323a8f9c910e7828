"""A job: what is to be computed, from keyword arguments or from a configuration, and its identity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from igc_dist import features
from igc_dist.attributors import Attributor, PathIntegral
from igc_dist.baselines import Baseline
from igc_dist.data import Filter, Sliced, Source
from igc_dist.distributed import World
from igc_dist.features import Masks, Reduction
from igc_dist.inputs import Inputs, in_basis
from igc_dist.job.rules import RULES
from igc_dist.job.spec import describe, digest
from igc_dist.job.wishes import check_member
from igc_dist.metrics import Metric
from igc_dist.model import Model
from igc_dist.paths import Pairs
from igc_dist.planning import Audit, Budget, Limits, Plan
from igc_dist.statistics import STATISTICS, Cells, Statistic, feature_terms
from igc_dist.store import located
from igc_dist.targets import Targets


@dataclass(frozen=True)
class Job:
    """What is to be computed. Every field except `store`, `page`, `labels` and `seen` changes the numbers."""

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
    """Names of the inputs."""
    dims: Sequence[Any] | None = None
    """Names of the dimensions of each input."""
    store: str | Path | None = None
    page: int = 0
    """Outputs of a figure of the page that follows, at most; 0: there is none."""
    method: str = "igc"
    weights: Float64[np.ndarray, " N"] | None = None
    """Weight of each sample."""
    slices: Sliced | None = None
    filter: Filter | None = None
    """Which samples count."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """Metrics of the maps of each sample, by their names in the store."""
    budget: Budget = field(default_factory=Budget)
    """How far to go. It changes the number of folds that are used, but not their content."""
    labels: Mapping[str, Any] = field(default_factory=dict)
    """The user's names for things, for the provenance."""
    seen: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """First looks at model and data, which the pilot and the plan of one run share (`planned`)."""

    def __post_init__(self) -> None:
        for member in (self.attributor, *self.statistics, self.baseline, *self.metrics.values()):
            check_member(member)
        if self.store is not None:
            located(self.store)  # raises for what is no place
        object.__setattr__(self, "inputs", in_basis(self.inputs, features.basis_of(self.reduce)))
        masks = features.masks_of(self.reduce)
        if masks is not None:
            self._segment(masks)
        for rule in RULES:
            rule.check(self)
        assert self.audited >= 0  # raises if there can be no audit

    def _segment(self, masks: Masks) -> None:
        """Let the samples bring their label maps, and fold the areas of segments as well."""
        source = self.source if self.source.maps is not None else self.source.labelled(masks.of(self.source.dataset))
        assert source.maps is not None
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "reduce", features.with_names(self.reduce, source.maps))
        if self.statistics and not self.drawn and "s" not in self.terms:
            object.__setattr__(self, "statistics", (*self.statistics, STATISTICS["area"]()))

    @property
    def mode(self) -> str:
        """The wished mode, or reverse if draws are folded one by one, or if mean baselines are folded with features, or
        if several ranks hold the model together."""
        return "reverse" if self.drawn or "z" in self.terms or self.model.parts.ranks > 1 else self.limits.mode

    @property
    def n_replicates(self) -> int:
        """The number of folds that are walked twice; 0 if nothing is drawn for each sample."""
        return self.budget.n_replicates(
            not self.attributor.exact or (self.attributor.baselines and not self.baseline.shared) or self.drawn
        )

    def stages(self, plan: Plan) -> list[int]:
        """The numbers of folds after which to check the budget.

        Raises `ConfigError` if two folds already exceed the budget of gradients.
        """
        return self.budget.stages(plan, self.n_replicates)

    @property
    def exact(self) -> bool:
        """Whether the attribution of each single sample is accurate, and not only right on average."""
        return self.attributor.exact and self.targets.n_others is None

    @property
    def pairs(self) -> bool:
        """Whether the design pairs samples of the data."""
        return isinstance(self.attributor, PathIntegral) and isinstance(self.attributor.design, Pairs)

    @property
    def drawn(self) -> bool:
        """Whether single draws are folded, not attributions of samples."""
        return self.pairs or self.targets.n_others is not None

    @property
    def grouping(self) -> Statistic | None:
        """The statistic that groups the samples by their target, if any."""
        return next((statistic for statistic in self.statistics if statistic.n_groups > 1), None)

    def cells(self, targets: Callable[[], np.ndarray]) -> Cells:
        """The cells of the samples, by slice and group. `targets()` returns the (N, J) targets of all samples."""
        thresholds = None if self.grouping is None else self.grouping.thresholds(targets())
        if self.slices is None:
            return Cells(grouping=self.grouping, thresholds=thresholds)
        number = np.maximum(self.slices.number, 0)  # samples without a label have no weight
        return Cells(number, len(self.slices.labels), self.grouping, thresholds)

    @property
    def model(self) -> Model:
        return self.inputs.model

    @property
    def audited(self) -> int:
        """The number of micro-batches that are repeated in a higher precision.

        Raises `ConfigError` if there is no higher precision.
        """
        return 0 if self.attributor.name == "input" else self.audit.batches(self.model)

    @property
    def terms(self) -> tuple[str, ...]:
        """The feature sums that all statistics need together, so that one pass serves all of them."""
        return feature_terms(term for statistic in self.statistics for term in statistic.terms)

    @property
    def needs_mean(self) -> bool:
        """Whether pass 1 must find the mean input."""
        return (self.attributor.baselines and self.baseline.needs_mean) or "mean" in self.needed

    @property
    def needed(self) -> frozenset[str]:
        """What the metrics need: of "baseline", "mean" and "explain"."""
        return frozenset().union(*(metric.needs for metric in self.metrics.values()))

    def reduction(self, n_inputs: int) -> Reduction:
        """How the features of `n_inputs` inputs are reduced. Raises `ConfigError`."""
        return features.ensure(self.reduce, n_inputs)

    def spec(self, plan: Plan, world: World) -> dict[str, Any]:
        """Everything that changes the numbers, as JSON."""
        m, probe = self.model, self.source.look(sorted({0, len(self.source) // 2, len(self.source) - 1}))
        call = {
            "forward": m.forward,
            "forward_kwargs": m.forward_kwargs,
            "output": m.output,
            "precision": m.precision,
            "channels_last": m.channels_last,
            "compiled": m.compiled,
            **({"cuda_graphs": True} if m.cuda_graphs else {}),
            **({} if m.parts.ranks == 1 else {"parts": m.parts}),
            "final_layer": None if m.final is None else m.final.name or describe(m.final.layer),
            **self.inputs.describe(),
        }
        cuts = ("fold_size", "baseline_block", "output_block", "samples_per_batch", "points_per_batch")
        dataset, fields = self.source.dataset, self.source.reading.fields
        return {
            "model": {**(m.known or {"module": describe(m.module)}), **describe(call)},
            "data": {
                "class": describe(type(dataset)),
                "n": len(self.source),
                "digest": digest(*probe.inputs, probe.target),
                **({} if fields is None else {"fields": describe(fields)}),
                **({} if self.source.identity is None else {"identity": describe(self.source.identity)}),
                **({} if self.source.maps is None else {"label_maps": describe(self.source.maps)}),
            },
            "target": {
                "outputs": list(plan.work.outputs),
                "one_hot": self.targets.one_hot,
                "names": describe(self.targets.names),
                "n_others": self.targets.n_others,
                **({} if self.targets.each is None else {"each": self.targets.each}),
            },
            "baseline": describe(self.baseline) if self.attributor.baselines else None,
            "attributor": describe(self.attributor),
            "statistics": [describe(statistic) for statistic in self.statistics],
            "weights": describe(self.weights),
            "slices": describe(self.slices),
            **({} if self.filter is None else {"filter": describe(self.filter)}),
            "plan": {name: getattr(plan, name) for name in (*cuts, "mode")},
            "features": {
                "reduce": describe(self.reduction(len(plan.shapes.features))),
                "names": list(plan.shapes.input_names),
                "dims": describe(plan.shapes.dims),
            },
            "samples": self.samples,
            **({"metrics": describe(dict(self.metrics))} if self.metrics else {}),
            "replicates": self.n_replicates,
            "audit": self.audited,
            "seed": self.seed,
            "on_nonfinite": "skip" if self.skip else "fail",
            **({"on_bad_sample": "skip"} if self.source.reading.skip else {}),
            "device": world.device.type,
        }
