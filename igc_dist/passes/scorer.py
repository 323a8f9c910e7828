"""Metrics of the maps of a run: in pass 2, beside the walk, so that no map needs to be kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from igc_dist.metrics import Maps, Metric, Predict
from igc_dist.passes.attribute import Engine
from igc_dist.passes.findings import Known
from igc_dist.planning import Plan
from igc_dist.records import Shard
from igc_dist.tensors import Attribution, Batch


@dataclass(frozen=True)
class Scorer:
    """Scores the maps of micro-batches. The forward passes have the rows of the walk's."""

    metrics: Mapping[str, Metric]
    plan: Plan

    def __call__(
        self, engine: Engine, shard: Shard, batch: Batch, known: Known, attribution: Attribution
    ) -> dict[str, np.ndarray]:
        """The arrays of the metrics for some samples and the outputs of the shard; NaN for maps that are not finite."""
        values = attribution.values[0].double()
        fine = values.flatten(2).isfinite().all(2)
        n, j = fine.nonzero(as_tuple=True)
        (x,) = engine.inputs.take(batch.inputs, engine.device)
        outputs = _outputs(engine, shard, known, x.device)
        needs = {need for metric in self.metrics.values() for need in metric.needs}
        baseline = engine.start(batch, shard, known) if "baseline" in needs else None
        mean = engine.around.mean[0] if "mean" in needs and engine.around.mean else None
        maps = Maps(
            x=x[n],
            values=values[n, j],
            sample=torch.as_tensor(batch.index, device=x.device)[n],
            output=outputs[n, j],
            baseline=None if baseline is None else baseline.expand_as(x)[n],
            mean=None if mean is None else mean.to(x),
        )
        asked = _Asked(replace(engine, watch=lambda rows: None, check=None, _shared={}), shard, batch, known)
        predict = Predict(engine.inputs.model, engine.plan.rows_per_pass[1], asked)
        found = {"metrics/scored": fine.cpu().numpy().astype(np.uint8)}
        for one, _, _, axis in self.plan.work.scores:
            found[f"metrics/{one}"] = np.full((*fine.shape, *np.shape(axis or 0.0)), np.nan)
        for label, metric in self.metrics.items():
            for part, scores in metric(predict, maps).items():
                name = f"metrics/{label}_{part}" if part else f"metrics/{label}"
                found[name][n.cpu().numpy(), j.cpu().numpy()] = scores.cpu().numpy()
        return found


@dataclass(frozen=True)
class _Asked:
    """The method of the run for other inputs: `igc_dist.metrics.base.Explain`.

    Maps of all outputs of the shard come from one walk, so rows of one sample that are equal are walked once.
    """

    engine: Engine
    shard: Shard
    batch: Batch
    known: Known

    def __call__(
        self, x: Float[Tensor, "M *P"], output: Int64[Tensor, " M"], sample: Int64[Tensor, " M"], doubled: bool = False
    ) -> Float64[Tensor, "M *P"]:
        """`doubled`: with twice the steps."""
        twice = self.engine.attributor.doubled if doubled else self.engine.attributor
        assert twice is not None  # rules refuse methods without steps
        place = {int(index): row for row, index in enumerate(self.batch.index)}
        row = torch.tensor([place[n] for n in sample.tolist()], device=x.device)
        known = _outputs(self.engine, self.shard, self.known, x.device)[row]
        column = (known == output[:, None]).int().argmax(1)
        first = torch.full((len(self.batch.index),), -1, device=x.device)
        first[row.flip(0)] = torch.arange(len(row), device=x.device).flip(0)
        assert torch.equal(x, x[first[row]])  # a metric moves a sample in the same way for all outputs
        there = (first >= 0).nonzero()[:, 0]
        at = there.cpu().numpy()
        few = Batch(self.batch.index[at], (x[first[there]],), self.batch.target[at])
        values = replace(self.engine, attributor=twice).again(few, self.shard, self.known.at(at, slice(None))).values[0]
        slot = torch.full_like(first, -1)
        slot[there] = torch.arange(len(there), device=x.device)
        return values[slot[row], column].double()


def _outputs(engine: Engine, shard: Shard, known: Known, device: torch.device) -> Int64[Tensor, "n J"]:
    """The outputs of the model that the maps of a shard explain, for each sample."""
    every = torch.arange(engine.plan.shapes.n_outputs, device=device).expand(len(known.bad), -1)
    return known.columns(every, [engine.plan.work.outputs[k] for k in shard.outputs])
