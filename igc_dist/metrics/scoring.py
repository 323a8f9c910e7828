"""`score`: metrics of maps of any origin, in Python."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float64
from torch import Tensor

from igc_dist import data as sources
from igc_dist.arrays import real
from igc_dist.metrics.base import Explain, Maps, Metric, Predict, Subject, said
from igc_dist.metrics.given import Given, baselines, given
from igc_dist.metrics.parts import Part, every, summaries
from igc_dist.metrics.randomisation import weighted
from igc_dist.metrics.registry import labelled
from igc_dist.model import Model
from igc_dist.records import ConfigError, DataError
from igc_dist.tensors import Batch


def score(
    model: Any,
    data: Any,
    attribution: Any,
    metrics: Sequence[str | Metric] | Mapping[str, str | Metric] = ("insertion", "deletion"),
    *,
    target: Any = None,
    baseline: Any = None,
    explain: Callable[..., Any] | None = None,
    batch_size: int = 64,
) -> xr.Dataset:
    """Scores of maps of any origin: ours from `/samples`, Captum's, or random numbers.

    `model`: a module, or a `igc_dist.model.Model` with its settings; it has one input, of floating point. `data`: as
    for `igc_dist.attribute`; labels are not used. `attribution`: (N, *P), one map per sample in the order of the data,
    or (N, J, *P), one per sample and output; array, tensor or DataArray. `metrics`: names from `METRICS` or objects; a
    mapping names them in the result. `target`: the output that each map explains, one number or (N,), or the J outputs;
    not needed if there are maps of all outputs. `baseline`: where the maps' paths start, broadcast to (N, *P).
    `explain`: the method that made the maps, for metrics that ask for maps of other inputs: ``explain(x, output)``
    returns maps like x, each of its output, for example ``IntegratedGradients(net).attribute(x, target=output)`` of
    Captum. `batch_size`: the largest number of rows in a forward pass; it changes nothing but rounding.

    The Dataset has for each metric, for example insertion: `insertion` (sample, output), `insertion_curve` (sample,
    output, insertion_fraction), and the mean over samples `insertion_mean` (output) with its jackknife standard error
    `_se`, the ends of its 95 % interval `_ci_low` and `_ci_high`, and the number of samples in it, `_n`. Some metrics
    also have the area of the median curve, `_median`, and count the samples that they leave out by their reasons. With
    one map per sample there is no dimension `output`. Maps with NaN or infinity have no scores (NaN) and are counted in
    `skipped`. The attribute "metrics" is JSON of all parameters.

    Raises `ConfigError` for a metric that does not fit, with the reason, before a map is read, `DataError` for data and
    maps that do not fit each other, and `ModelError` for a model that does not run.
    """
    chosen = labelled(metrics)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(f"batch_size={batch_size!r}: give a whole number above 0")
    source = sources.ensure(data)
    model = model if isinstance(model, Model) else Model(model)
    with source.opened(), model.borrowed(model.device):
        subject = _look(model, source)
        maps = given(attribution, target, len(source), subject.shape, len(subject.first))
        starts = baselines(baseline, len(source), subject.shape)
        for metric in chosen.values():
            if "baseline" in metric.needs and starts is None:
                raise ConfigError(f"{metric.name} needs the baseline of the maps: give score(..., baseline=...)")
            if "explain" in metric.needs and explain is None:
                raise ConfigError(
                    f"{metric.name} asks for maps of other inputs: give score(..., explain=...), a function of x and "
                    "output that returns maps"
                )
            if "doubled" in metric.needs:
                raise ConfigError(
                    f"{metric.name}: give n_steps, the number of steps that the maps were made with, as in "
                    "Steps(n_steps=32)"
                )
            metric.check(subject)
        centre = _mean(source) if any("mean" in metric.needs for metric in chosen.values()) else None
        filled = _Filled(chosen, every(chosen, model, batch_size, subject), maps)
        for batch in source.batches(range(len(source)), max(1, batch_size // maps.outputs.shape[1])):
            filled.add(Predict(model, batch_size, _asked(explain)), batch, starts, centre)
    return filled.result(attribution)


def _asked(explain: Callable[..., Any] | None) -> Explain | None:
    """`explain` with its maps checked."""
    if explain is None:
        return None

    def explained(x: Tensor, output: Tensor, sample: Tensor, **settings: Any) -> Tensor:
        found = real(explain(x, output, **settings), "the result of explain").double()
        if found.shape != x.shape:
            raise DataError(f"explain returned maps of shape {tuple(found.shape)} for x of shape {tuple(x.shape)}")
        return found.to(x.device)

    return explained


def _look(model: Model, source: sources.Source) -> Subject:
    """The first sample and its prediction."""
    first = source.fetch([0]).inputs
    if len(first) != 1:
        raise DataError(f"samples have {len(first)} inputs, and metrics take models of one: give that input alone")
    if not first[0].is_floating_point():
        raise DataError(
            f"samples have type {first[0].dtype}, and metrics exchange numbers: convert them in the data set"
        )
    outputs = model.predict((_moved(model, first[0]),))[0].double().cpu()
    return Subject(len(source), tuple(first[0].shape[1:]), outputs, len(weighted(model.module)))


def _moved(model: Model, x: Tensor) -> Tensor:
    return x.to(device=model.device, dtype=model.dtype((x,)))


def _mean(source: sources.Source) -> Float64[Tensor, "*P"]:
    """The mean sample. Samples are added one by one: the same bits for any batch size."""
    total = torch.zeros((), dtype=torch.float64)
    for batch in source.batches(range(len(source)), 64):
        for x in batch.inputs[0]:
            total = total + x.double()
    return total / len(source)


class _Filled:
    """The arrays of the result, filled batch by batch."""

    def __init__(self, metrics: Mapping[str, Metric], parts: Sequence[Part], maps: Given) -> None:
        self.metrics, self.parts, self.maps = metrics, parts, maps
        self.skipped = np.zeros(maps.outputs.shape, dtype=bool)
        self.arrays = {part.name: np.full((*self.skipped.shape, *np.shape(part.axis or 0.0)), np.nan) for part in parts}

    def add(
        self,
        predict: Predict,
        batch: Batch,
        baseline: Float64[Tensor, "N *P"] | None,
        centre: Float64[Tensor, "*P"] | None,
    ) -> None:
        """Score the maps of a batch."""
        x = _moved(predict.model, batch.inputs[0])
        rows = slice(int(batch.index[0]), int(batch.index[-1]) + 1)
        values = self.maps.part(rows).to(x.device)
        fine = values.flatten(2).isfinite().all(2)
        self.skipped[rows] = ~fine.cpu().numpy()
        n, j = fine.nonzero(as_tuple=True)
        maps = Maps(
            x=x[n],
            values=values[n, j],
            sample=n + rows.start,
            output=torch.as_tensor(self.maps.outputs[rows], device=x.device)[n, j],
            baseline=None if baseline is None else baseline[rows].to(x)[n],
            mean=None if centre is None else centre.to(x),
        )
        at = (n.cpu().numpy() + rows.start, j.cpu().numpy())
        for label, metric in self.metrics.items():
            for part, found in metric(predict, maps).items():
                self.arrays[f"{label}_{part}" if part else label][at] = found.cpu().numpy()

    def result(self, attribution: Any) -> xr.Dataset:
        """Scores, curves and means, labelled."""
        single = self.maps.single
        output: Any = ("sample", self.maps.outputs[:, 0]) if single else self.maps.outputs[0]
        if not single and isinstance(attribution, xr.DataArray) and "output" in attribution.coords:
            output = attribution.coords["output"].values
        found = xr.Dataset(coords={"output": output})
        lead = ("sample",) if single else ("sample", "output")

        def put(name: str, dims: tuple[str, ...], values: np.ndarray, at: int) -> None:
            found[name] = (dims, values[(slice(None),) * at + (0,)] if single else values)

        for part in self.parts:
            values, along = self.arrays[part.name], (part.along,) if part.along else ()
            if along:
                found.coords[part.along] = np.asarray(part.axis)
            if part.kind != "count":
                put(part.name, (*lead, *along), values, 1)
            for name, summary in summaries(part, values):
                put(name, (*lead[1:], *along[: summary.ndim - 1]), summary, 0)
        put("skipped", lead[1:], self.skipped.sum(0), 0)
        found.attrs["metrics"] = json.dumps({label: said(metric) for label, metric in self.metrics.items()})
        return found
