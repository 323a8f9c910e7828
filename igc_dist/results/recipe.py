"""The recipe of a store: what finalizing needs of the job, as data in the root document, so that no job is needed.

`verify` uses it to recompute results, and `merge` to compute the results of a union. It is not part of the spec: it
contains the same facts in another form, plus what was decided by the data and the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from typing import Any

import numpy as np
from jaxtyping import Float64

from igc_dist.data import Sliced
from igc_dist.job import Job
from igc_dist.planning import Budget, Plan
from igc_dist.results.block import Recipe
from igc_dist.results.joined import CUTS, Joined, plan_of, read
from igc_dist.statistics import STATISTICS, Cells, Statistic, feature_terms
from igc_dist.store import TYPES


@dataclass(frozen=True)
class Labels:
    """The names of an attributor's results."""

    prefix: str
    named: Mapping[str, str]
    complete: bool

    def label(self, result: str) -> str:
        """Name in the store of a statistic's result."""
        return self.named.get(result, f"{self.prefix}{result}")


@dataclass(frozen=True)
class Recorded:
    """A job as its store records it: it has what finalizing needs. It is its own model and its own targets."""

    document: Mapping[str, Any]
    plan: Joined
    recipe: Recipe
    method: str
    names: np.ndarray
    """Coordinate of the dimension `output`."""
    precision: str = ""
    """The higher precision that the run fell back to, if it did."""
    weights: Float64[np.ndarray, " N"] | None = None
    slices: Sliced | None = None
    budget: Budget = field(default_factory=Budget)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    filter: str | None = None
    """Which samples counted."""
    classes: Sequence[str] | None = None
    """The names of all outputs of the model, if each sample has outputs of its own and the data set has them."""
    paths: Mapping[int, str] = field(default_factory=dict)
    """Where the samples lie that could not be read, by their index, as the data told the run."""

    @property
    def model(self) -> Recorded:
        return self

    @property
    def targets(self) -> Recorded:
        return self

    def labels(self, chosen: Sequence[int], n_outputs: int) -> np.ndarray:
        """Coordinate of the dimension `output`."""
        return self.names

    @property
    def statistics(self) -> Sequence[Statistic]:
        return self.recipe.statistics

    @property
    def terms(self) -> tuple[str, ...]:
        return feature_terms(term for statistic in self.statistics for term in statistic.terms)

    @property
    def samples(self) -> bool:
        return self.plan.work.samples

    @property
    def audited(self) -> int:
        return int(self.plan.work.audited)

    def union(
        self,
        parts: Sequence[Recorded],
        plan: Joined,
        recipe: Recipe,
        weights: np.ndarray | None,
        slices: Sliced | None,
    ) -> Recorded:
        """The job over the united data of these parts, with a new recipe and all folds."""
        said = dict(self.document)
        said["plan"] = {
            **said["plan"],
            "pieces": plain(plan.pieces),
            "shapes": plain(asdict(plan.shapes)),
            "work": plain(asdict(plan.work)),
        }
        said |= {"slices": _said(slices), "folded": True}
        starts = accumulate((part.plan.shapes.n_samples for part in parts), initial=0)
        paths = {start + n: path for start, part in zip(starts, parts, strict=False) for n, path in part.paths.items()}
        return replace(
            self, document=said, plan=plan, recipe=recipe, weights=weights, slices=slices, budget=Budget(), paths=paths
        )


def document(job: Job | Recorded, plan: Plan, recipe: Recipe) -> dict[str, Any] | None:
    """The recipe as JSON. None for a statistic from outside this package, which a store cannot describe."""
    if isinstance(job, Recorded):
        return dict(job.document)
    if any(type(statistic) is not STATISTICS.get(statistic.name) for statistic in job.statistics):
        return None
    attributor, baseline = job.attributor, job.baseline
    shapes = replace(
        plan.shapes, fixed_bytes=0, row_bytes=0, reserved_bytes=0
    )  # these belong to the machine and the moment
    pooled = (
        f"baseline {type(baseline).__name__} is drawn from the data" if attributor.baselines and baseline.pooled else ""
    )
    if "mean" in job.needed:
        pooled = pooled or "a metric takes the mean sample of the data"
    return {
        "statistics": [{"name": s.name, "settings": plain(asdict(s))} for s in job.statistics],  # type: ignore[call-overload]
        "labels": {
            "prefix": attributor.label(""),
            "named": {name: attributor.label(name) for name in attributor.labels},
            "complete": attributor.complete,
        },
        "complete": recipe.complete,
        "residuals": recipe.residuals,
        "plan": {
            **{name: getattr(plan, name) for name in CUTS},
            "seed": plan.seed,
            "pieces": [[plan.shapes.n_samples, plan.fold_size]],
            "host_memory": plan.limits.host_memory,
            "shapes": plain(asdict(shapes)),
            "work": plain(asdict(plan.work)),
        },
        "slices": _said(job.slices),
        **({"classes": plain(job.targets.called(plan.shapes.n_outputs))} if plan.work.each else {}),
        "pooled": pooled,
        "folded": False,
    }


def plain(value: Any) -> Any:
    """The value as plain JSON types."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def recorded(found: Mapping[str, Any], about: Mapping[str, Any], names: np.ndarray) -> Recorded:
    """The job of a recipe, from the root attributes `about`, without the weights of the samples.

    Raises `StoreError` for a document that no run writes.
    """
    plan = plan_of(found)
    with read():
        statistics = tuple(STATISTICS[entry["name"]](**entry["settings"]) for entry in found["statistics"])
        labels = Labels(
            str(found["labels"]["prefix"]), dict(found["labels"]["named"]), bool(found["labels"]["complete"])
        )
        cells = Cells(n_slices=plan.work.n_slices, grouping=next((s for s in statistics if s.n_groups > 1), None))
        if len(cells) != plan.work.n_cells:
            raise ValueError("its numbers do not add up")
        recipe = Recipe(statistics, labels, cells, bool(found["complete"]), bool(found["residuals"]))
        budget = Budget(**about.get("budget", {}).get("wish", {}))
        slices = found["slices"] and _slices(found["slices"], plan.work.n_slices)
        paths = {entry["index"]: entry["path"] for entry in about.get("skipped", ()) if "path" in entry}
        return Recorded(
            dict(found),
            plan,
            recipe,
            about["method"],
            names,
            about.get("fallback") or "",
            slices=slices,
            budget=budget,
            metrics=dict(about.get("metrics", {})),
            filter=dict(about.get("filter") or {}).get("filter"),
            classes=found.get("classes"),
            paths=paths,
        )


def _said(slices: Sliced | None) -> dict[str, Any] | None:
    return None if slices is None else {"labels": plain(slices.labels), "type": str(slices.labels.dtype)}


def _slices(found: Mapping[str, Any], n_slices: int) -> Sliced:
    """The labels of the slices. The states already know which sample is in which slice."""
    labels = np.asarray(found["labels"], dtype=found["type"] if found["type"] in TYPES else None)
    if labels.shape != (n_slices,):
        raise ValueError(f"{n_slices} slices have labels of shape {labels.shape}")
    return Sliced(np.zeros(0, dtype=np.int64), labels)
