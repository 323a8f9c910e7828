"""The scores of the metrics of a run, over all samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from igc_dist.metrics import Metric, Part, said, summaries
from igc_dist.planning import Plan
from igc_dist.store import Store


def scored(plan: Plan, store: Store) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Arrays with their dimensions, by path: the means of the scores with their intervals, and the points of curves.

    "metrics/scored" is the number of samples whose map is finite; each mean has the number of samples in it beside it.
    """
    finite = store.read("attribute", "metrics/scored").sum(0, dtype=np.int64)
    found: dict[str, tuple[tuple[str, ...], np.ndarray]] = {"metrics/scored": (("output",), finite)}
    for part in (Part(*part) for part in plan.work.scores):
        along = (part.along,) if part.along else ()
        if along:
            axis = along, np.asarray(part.axis)
            found |= {f"metrics/{part.along}": axis, f"samples/metrics/{part.along}": axis}
        for name, values in summaries(part, store.read("attribute", f"metrics/{part.name}")):
            found[f"metrics/{name}"] = ("output", *along[: values.ndim - 1]), values
    return found


def settings(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of each metric, as the root document has them; a recorded job has them already."""
    return {label: said(metric) if isinstance(metric, Metric) else metric for label, metric in metrics.items()}
