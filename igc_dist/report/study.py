"""Stores of several methods and numbers of steps as one table: each score, and its difference from a reference."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from igc_dist.records import StoreError, printable
from igc_dist.report.contents import Floats, discreet, flatten, mapping_of
from igc_dist.report.intervals import student
from igc_dist.statistics import holm

LEVEL = 0.95
"""Of the intervals."""
FIELDS = ("mean", "se", "ci_low", "ci_high", "n", "median")
"""What the table says of a score."""
PAIRED = ("difference", "difference_se", "difference_ci_low", "difference_ci_high", "difference_n", "p", "p_holm")
"""What it says of its difference from the reference on the same samples."""
SHARED = ("filter", "target", "data")
"""What must be the same in all stores, so that they score the same samples."""


@dataclass(frozen=True)
class Entry:
    """One store: its method, its number of steps (0: it has none), its scores by sample, and its costs per sample."""

    name: str
    method: str
    steps: int
    scores: Mapping[str, Floats]
    gradients: float
    forwards: float
    meaning: str


def scored(trees: Mapping[str, xr.DataTree]) -> bool:
    """Whether all stores have scores of samples."""
    return all(
        "metrics" in tree.children and "samples" in tree.children and "metrics" in tree["samples"].children
        for tree in trees.values()
    )


def joined(trees: Mapping[str, xr.DataTree], reference: str | None = None) -> xr.Dataset:
    """The scores of opened stores, by method, number of steps and metric, each of dimensions (method, steps, metric).

    Select by ``sel({"method": "ig"})``, as xarray has a keyword `method` of its own.

    `mean` over the samples, its jackknife standard error `se`, its 95 % interval by Student's t (`ci_low`, `ci_high`),
    `n` and `median`. `difference`: the mean over samples of the score minus that of the method `reference` (the first
    store's) with the same number of steps, of the same samples, with its interval; `p`: the two-sided paired t-test of
    it; `p_holm`: corrected for all differences of the table (Holm 1979). A sample with several outputs counts once, by
    their mean. `gradients` and `forwards` (method, steps) are the costs of a sample.

    Raises `StoreError` for stores without scores, of other data, filters or targets, for two stores of the same method
    and number of steps, and for an unknown reference.
    """
    trees = {name: discreet(tree) for name, tree in trees.items()}
    _check(trees)
    found = [_entry(name, tree) for name, tree in trees.items()]
    methods, steps = list(dict.fromkeys(e.method for e in found)), sorted({e.steps for e in found})
    metrics = sorted(set.intersection(*({*e.scores} for e in found)))
    if not metrics:
        raise StoreError("these stores have no metric in common: run each with the same metrics")
    reference = methods[0] if reference is None else reference
    if reference not in methods:
        raise StoreError(f"--reference={reference}: the stores are of {', '.join(methods)}, choose one of them")
    by_place: dict[tuple[str, int], Entry] = {}
    for one in found:
        if (other := by_place.setdefault((one.method, one.steps), one)) is not one:
            raise StoreError(f"{other.name} and {one.name} are both {one.method} with {one.steps} steps: give one")
    shape = (len(methods), len(steps), len(metrics))
    table = {field: np.full(shape, np.nan) for field in (*FIELDS, *PAIRED)}
    costs = {name: np.full(shape[:2], np.nan) for name in ("gradients", "forwards")}
    for (method, n), one in by_place.items():
        at, base = (methods.index(method), steps.index(n)), by_place.get((reference, n))
        costs["gradients"][at], costs["forwards"][at] = one.gradients, one.forwards
        for k, metric in enumerate(metrics):
            values = one.scores[metric]
            numbers = {**_mean(values), "median": _median(values)}
            if base is not None and method != reference:
                numbers |= _difference(values - base.scores[metric])
            for field, number in numbers.items():
                table[field][(*at, k)] = number
    table["p_holm"] = holm(table["p"])
    made: dict[str, Any] = {name: (("method", "steps", "metric"), values) for name, values in table.items()}
    made |= {name: (("method", "steps"), values) for name, values in costs.items()}
    meanings = {e.method: e.meaning for e in found}
    dataset = xr.Dataset(
        made,
        coords={"method": methods, "steps": steps, "metric": metrics},
        attrs={"reference": reference, "level": LEVEL, "stores": [*trees], "steps_of": json.dumps(meanings)},
    )
    return dataset.assign_attrs(_said(next(iter(trees.values()))))


def _check(trees: Mapping[str, xr.DataTree]) -> None:
    if len(trees) < 2:
        raise StoreError(f"a study joins two stores or more, and was given {len(trees)}")
    if not scored(trees):
        lacking = next(name for name, tree in trees.items() if not scored({name: tree}))
        raise StoreError(f"{lacking} has no scores of samples: run it with metrics (metric=[insertion])")
    (first, tree), *others = trees.items()
    mine = _identity(tree)
    for name, other in others:
        if different := [key for key, value in _identity(other).items() if value != mine[key]]:
            raise StoreError(
                f"{first} and {name} are not of the same samples, they differ in {', '.join(different)}: a paired "
                "difference is of the same samples"
            )


def _identity(tree: xr.DataTree) -> dict[str, Any]:
    spec = mapping_of(tree, "spec")
    return {name: json.dumps(spec.get(name), sort_keys=True, default=str) for name in SHARED}


def _entry(name: str, tree: xr.DataTree) -> Entry:
    samples, means = tree["samples/metrics"].to_dataset(), tree["metrics"].to_dataset()
    scores = {
        printable(metric): _of_samples(array.values)
        for metric, array in samples.data_vars.items()
        if array.dims == ("sample", "output") and f"{metric}_mean" in means
    }
    cost, n = mapping_of(tree, "cost"), _walked(tree)
    attributor = mapping_of(tree, "spec").get("attributor")
    steps = steps_of(attributor) if isinstance(attributor, Mapping) else 0
    gradients, forwards = (float(cost.get(of, np.nan)) / max(n, 1) for of in ("gradient_evaluations", "forwards"))
    method = printable(tree.attrs.get("method", "?"))
    return Entry(name, method, steps, scores, gradients, forwards, meaning(attributor or {}))


def _walked(tree: xr.DataTree) -> int:
    """The number of samples that were walked."""
    found = mapping_of(tree, "filter")
    return int(found["kept"]) if found else int(tree["samples/index"].size)


def _of_samples(values: Floats) -> Floats:
    """(N,) of (N, J): the mean over the outputs that have a score; NaN if none has."""
    there = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, values, 0.0).sum(1) / there.sum(1), np.float64)


def steps_of(attributor: Mapping[str, Any]) -> int:
    """The number of steps that a store's attributor was given, the outermost one that has it; 0 without steps."""
    while attributor:
        if isinstance(attributor.get("n_steps"), int):
            return int(attributor["n_steps"])
        quadrature = attributor.get("quadrature")
        if isinstance(quadrature, Mapping) and (number := str(quadrature.get("name")).rpartition("-")[2]).isdecimal():
            return int(number)
        inner = attributor.get("attributor")
        attributor = inner if isinstance(inner, Mapping) else {}
    return 0


MEANINGS = {
    "PathIntegral": "n gradients on the straight path from the baseline to the image; their rule is exact to its order "
    "over the whole path, so that it ends at the image for every n",
    "BlurIG": "n gradients on the path from the blurred image to the image, which ends at the image for every n",
    "GuidedIG": "n gradients, one before each step of the path; the last step ends at the image",
    "IG2": "n steps of one length that leave the image, each with a gradient of the distance and of the output; the "
    "path ends at the image for every n, but with fewer steps it begins nearer to it",
    "IDGI": "n gradients, one where each step of the path begins, and the rise of the output to the end of the step; "
    "the last step ends at the image",
}
"""What a step is, by the class of the attributor."""


def meaning(attributor: Mapping[str, Any]) -> str:
    """What a step of this attributor is, in words."""
    kind = str(attributor.get("kind", "")).rpartition(".")[2]
    said = MEANINGS.get(kind, "as its documentation says")
    inner = attributor.get("attributor")
    return f"{said} (the path of {str(inner.get('kind')).rpartition('.')[2]})" if isinstance(inner, Mapping) else said


def _mean(values: Floats) -> dict[str, float]:
    """The mean of the numbers that are there, with its interval."""
    there = values[np.isfinite(values)]
    n, mean = len(there), float(there.mean()) if len(there) else np.nan
    se = float(there.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan  # the jackknife's, of a mean
    reach = float(student(n - 1, LEVEL)) * se if n > 1 else np.nan
    return {"mean": mean, "se": se, "ci_low": mean - reach, "ci_high": mean + reach, "n": float(n)}


def _median(values: Floats) -> float:
    there = values[np.isfinite(values)]
    return float(np.median(there)) if len(there) else np.nan


def _difference(values: Floats) -> dict[str, float]:
    """The mean of differences with its interval, and the two-sided t-test of it. p is 1 where all of them are 0."""
    found = _mean(values)
    p, n = np.nan, int(found["n"])
    if n > 1:
        from scipy.special import stdtr

        t = np.inf if found["se"] == 0 else abs(found["mean"]) / found["se"]
        p = 1.0 if found["mean"] == 0 else float(2 * stdtr(n - 1, -t))
    return {f"difference{'' if name == 'mean' else f'_{name}'}": number for name, number in found.items()} | {"p": p}


def _said(tree: xr.DataTree) -> dict[str, Any]:
    """What was scored, and by which metrics, as text."""
    filtered = mapping_of(tree, "filter")
    return {
        "samples": int(tree["samples/index"].size),
        "filter": json.dumps({key: filtered[key] for key in ("filter", "kept", "left_out") if key in filtered}),
        "metrics": json.dumps(mapping_of(tree, "metrics")),
        "baseline": json.dumps(flatten(mapping_of(tree, "spec").get("baseline") or {})),
    }


def rows_of(table: xr.Dataset) -> list[dict[str, Any]]:
    """The table in rows, one for each metric, method and number of steps that was run."""
    found: list[dict[str, Any]] = []
    fields: Sequence[str] = (*FIELDS, *PAIRED)
    for metric in table["metric"].values.tolist():
        for method in table["method"].values.tolist():
            for steps in table["steps"].values.tolist():
                cell = table.sel({"metric": metric, "method": method, "steps": steps})
                if not np.isfinite(cell["gradients"].item()):
                    continue
                costs = {name: cell[name].item() for name in ("gradients", "forwards")}
                numbers = {name: cell[name].item() for name in fields}
                found.append({"metric": metric, "method": method, "steps": steps, **costs, **numbers})
    return found
