"""What metrics give, before any map is scored: names, kinds and axes of their arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from scipy.integrate import trapezoid

from igc_dist.metrics.base import Maps, Metric, Predict, Subject
from igc_dist.metrics.summary import mean, mean_curve, median
from igc_dist.model import Model

LEVEL = 0.95
"""Of the intervals of means."""


class Part(NamedTuple):
    """An array over samples and outputs: "score"; "count", of 0 and 1; "curve"; "median", a curve with a median too.

    `axis`: where the points of a curve are, along the dimension `along`.
    """

    name: str
    kind: str
    along: str = ""
    axis: tuple[float, ...] = ()


def parts(label: str, metric: Metric, predict: Predict, subject: Subject) -> list[Part]:
    """The arrays of a metric, found by scoring no maps."""
    none = torch.zeros(0, *subject.shape, device=predict.model.device)
    number = torch.zeros(0, dtype=torch.int64, device=none.device)
    maps = Maps(none, none.double(), number, number, none, none.new_zeros(subject.shape))
    axis, found = metric.axis(subject), []
    for part in metric(predict, maps):
        if part == "curve":
            assert axis is not None
            kind = "median" if metric.median else "curve"
            found.append(Part(f"{label}_curve", kind, f"{label}_fraction", tuple(axis.tolist())))
        else:
            found.append(Part(f"{label}_{part}" if part else label, "count" if part in metric.counted else "score"))
    return found


def every(metrics: Mapping[str, Metric], model: Model, rows: int, subject: Subject) -> list[Part]:
    """The arrays of all metrics."""

    def explain(x: torch.Tensor, *rest: object, **settings: object) -> torch.Tensor:
        return x.double()

    predict = Predict(model, rows, explain)
    return [part for label, metric in metrics.items() for part in parts(label, metric, predict, subject)]


def summaries(part: Part, values: Float64[np.ndarray, "N J *T"]) -> Iterator[tuple[str, np.ndarray]]:
    """The results of an array over all samples: names, and values of shape (J,), or (J, T) along `part.along`."""
    if part.kind == "count":
        yield part.name, np.nansum(values, axis=0).astype(np.int64)
    elif part.kind == "score":
        for field, found in mean(values, LEVEL)._asdict().items():
            yield f"{part.name}_{field}", found
    else:
        yield f"{part.name}_mean", mean_curve(values)
    if part.kind == "median":
        middle, name = median(values), part.name.removesuffix("_curve")
        yield f"{name}_median_curve", middle
        yield f"{name}_median", trapezoid(middle, part.axis, axis=1)
