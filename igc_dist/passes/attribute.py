"""Pass 2: a shard becomes its state, and optional per-sample rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from igc_dist.attributors import Attributor, Task
from igc_dist.baselines import Baseline, Surroundings
from igc_dist.data import WRONG, Source
from igc_dist.faults import fault
from igc_dist.features import Reduction
from igc_dist.inputs import Inputs
from igc_dist.passes.beside import beside
from igc_dist.passes.findings import Findings, Known, Tables
from igc_dist.planning import Plan
from igc_dist.records import ConfigError, NonFiniteError, Shard
from igc_dist.seeds import Address
from igc_dist.statistics import Cells, Centre, State, empty, of
from igc_dist.tensors import Attribution, Batch, Tensors, there

Rows = Callable[[Int64[np.ndarray, " n"], Batch, Known, Attribution], None]
"""Receives some rows (in fold order) of the current shard, the samples, what pass 1 found, their attributions."""


Check = Callable[[Shard, int, Batch, Known, Attribution], None]
"""Receives the shard, the number of a micro-batch's first sample in it, the samples, their findings of pass 1, their
attributions."""


@dataclass
class Engine:
    """The data that shards share. `skip`: leave out samples with non-finite attributions instead of failing."""

    inputs: Inputs
    source: Source
    attributor: Attributor
    baseline: Baseline
    around: Surroundings
    plan: Plan
    findings: Findings
    terms: tuple[str, ...]
    cells: Cells
    weight: Float64[np.ndarray, " N"] | None
    device: torch.device
    skip: bool = False
    reduction: Reduction = field(default_factory=Reduction)
    watch: Callable[[int], None] = lambda rows: None
    n_others: int | None = None
    seed: int | None = None
    """Seed of the draws of the walk, if it is not that of the baselines."""
    check: Check | None = None
    """Receives the attributions of each micro-batch before they are folded."""
    _shared: dict[range, tuple[Tensors, Tensor]] = field(default_factory=dict)

    def address(self, batch: Batch, shard: Shard) -> Address:
        """The address of the draws of a micro-batch."""
        seed = self.around.seed if self.seed is None else self.seed
        return Address(seed, batch.index, shard.baselines, self.plan.work.n_baselines)

    @property
    def centre(self) -> Centre:
        """The centre of all sums."""
        return self.findings.centre

    def run(self, shard: Shard, known: Tables, rows: Rows | None = None) -> tuple[State, list[int]]:
        """The state of a shard on the host, and the indices of samples left out for non-finite attributions.

        Samples that a filter leaves out are not walked. There is no collective call in here: ranks do not wait for each
        other.
        """
        outputs = slice(shard.outputs.start, shard.outputs.stop)
        host = self.centre.outputs(outputs)
        y, r, b = (there(c, self.device) for c in (host.y, host.r, host.b))
        centre = Centre(y, r, b, None if host.a is None else tuple(there(c, self.device) for c in host.a))
        state: State | None = None
        lost: list[tuple[np.ndarray, Tensor]] = []
        at, fold = 0, beside(self.device)
        places, pin = np.flatnonzero(known.bad < WRONG), self.device.type == "cuda"
        order = self.plan.order[shard.rows.start + places].tolist()
        for batch in self.source.batches(order, self.plan.samples_per_batch, pin):
            here = places[at : at + len(batch.index)]
            its = known.at(slice(here[0], here[-1] + 1) if here[-1] - here[0] < len(here) else here, outputs)
            self.source.complete(batch, its.bad == 0)
            attribution = self._attribute(batch, shard, its)
            attribution, here_lost = _screened(attribution)
            lost.append((batch.index, here_lost))
            if self.check is not None:
                self.check(shard, at, batch, its, attribution)
            with fold.folding(attribution):
                one = of(attribution, centre, self.terms, len(self.cells))
            state = one if state is None else state + one
            if rows is not None:
                rows(shard.rows.start + here, batch, its, attribution)
            at += len(here)
            del attribution  # before the next one is computed
        fold.join()
        if state is None:  # a filter left out all samples of the shard
            state = empty(centre, self.plan.shapes.features, self.terms, self.device, len(self.cells))
        # + 0.0 turns -0.0 into 0.0, as adding zeros of other ranks does
        return State(host, *on_host(state)), self._left_out(lost, shard)

    def again(self, batch: Batch, shard: Shard, known: Known) -> Attribution:
        """The attributions of some samples of a shard, as they would be folded."""
        return self._attribute(batch, shard, known)

    def start(self, batch: Batch, shard: Shard, known: Known) -> Float[Tensor, "1 *P"] | Float[Tensor, "n *P"]:
        """The baseline of each sample, for models of one input and one baseline."""
        baselines, _ = self._baselines(batch, shard, known)
        return baselines[0][0]

    def _attribute(self, batch: Batch, shard: Shard, known: Known) -> Attribution:
        kind = self.inputs
        inputs = kind.take(batch.inputs, self.device)
        fraction = len(shard.baselines) / self.plan.work.n_baselines
        own = 1.0 if self.weight is None else self.weight[batch.index]
        tables = (known.target, known.prediction, ((known.bad == 0) * own * fraction)[:, None])
        target, prediction, weight = (there(table, self.device, torch.float64) for table in tables)
        weight = torch.where(target.isnan(), 0.0, weight)
        outputs = [self.plan.work.outputs[k] for k in shard.outputs]
        baselines, at_baseline = (
            self._baselines(batch, shard, known) if self.attributor.baselines else ((), torch.zeros_like(target))
        )
        if known.explained is not None:
            kind = kind.around(kind.model.picking(there(known.explained, self.device)))
            outputs = list(range(len(outputs)))
        notes: dict[str, Any] = {}
        task = Task(
            kind.model,
            inputs,
            baselines,
            outputs,
            1 / len(shard.baselines),
            self.plan.points_per_batch,
            self.watch,
            self.address(batch, shard),
            partial(_noted, notes),
        )
        values = kind.attribute(self.attributor, task)
        fault("gradient", *values)
        cell = self.cells.of(batch.index, target, slice(shard.outputs.start, shard.outputs.stop))
        at_baseline = notes.pop("baseline_prediction", at_baseline)
        whole = Attribution(values, target, prediction, at_baseline.expand_as(target), weight, fraction, cell, **notes)
        if "z" in self.terms:
            mean = tuple(x0.mean(0)[:, None].expand(len(target), 1, *x0.shape[2:]) for x0 in baselines)
            mean = mean if self.reduction.trivial else self.reduction(mean, batch.inputs, batch.segments)
            whole = replace(whole, baseline=tuple(z[:, 0] for z in mean))
        return self._reduced(whole, batch)

    def _reduced(self, attribution: Attribution, batch: Batch) -> Attribution:
        """The attribution with its features reduced, before it is folded or kept; `unreduced` is its sum before."""
        if self.reduction.trivial:
            return attribution
        values = self.reduction(attribution.values, batch.inputs, batch.segments)
        for value, shape in zip(values, self.plan.shapes.features, strict=True):
            if tuple(value.shape[2:]) != shape:
                raise ConfigError(
                    f"reduce: the function returned features of shape {tuple(value.shape[2:])}, and {shape} when it "
                    "was tried"
                )
        area = None
        if "s" in self.terms:  # the area of a feature is what the reducer makes of equal parts for all pixels
            equal = (torch.full_like(v[:, :1], 1 / v[0, 0].numel(), dtype=torch.float64) for v in attribution.values)
            area = tuple(s[:, 0] for s in self.reduction(tuple(equal), batch.inputs, batch.segments))
        return replace(attribution, values=values, unreduced=attribution.total(), area=area)

    def _baselines(self, batch: Batch, shard: Shard, known: Known) -> tuple[Tensors, Float64[Tensor, "n J"]]:
        """Baselines of this block, and the mean prediction over them; computed once if all samples share them.

        The prediction is 0 if the attributor makes its own baselines: then it notes their prediction itself.
        """
        if self.baseline.shared and shard.baselines in self._shared:
            baselines, predictions = self._shared[shard.baselines]
        else:
            baselines = self.inputs.take(
                self.baseline.drawn(batch, shard.baselines, self.around), self.device, "baseline of input"
            )
            if self.attributor.own_baseline:
                predictions = torch.zeros(1, self.plan.shapes.n_outputs, dtype=torch.float64, device=self.device)
            else:
                predictions = (
                    self._predict(tuple(x0.flatten(0, 1) for x0 in baselines))
                    .unflatten(0, baselines[0].shape[:2])
                    .mean(0)
                )
            if self.baseline.shared:
                self._shared[shard.baselines] = baselines, predictions
        return baselines, known.columns(predictions, [self.plan.work.outputs[k] for k in shard.outputs])

    def _predict(self, points: Tensors) -> Tensor:
        rows = self.plan.samples_per_batch * self.plan.points_per_batch
        return torch.cat(
            [
                self.inputs.predict(tuple(p[i : i + rows] for p in points)).double()
                for i in range(0, len(points[0]), rows)
            ]
        )

    def _left_out(self, lost: list[tuple[np.ndarray, Tensor]], shard: Shard) -> list[int]:
        """The indices of samples whose attribution is not finite, or `NonFiniteError` for the first one.

        `lost`: for each micro-batch its indices, and which of them. It is asked once for a shard, as the host waits for
        the device then.
        """
        if not lost:
            return []
        which = torch.cat([flags for _, flags in lost]).cpu().numpy()
        indices = np.concatenate([index for index, _ in lost])[which].tolist()
        cut = len(shard.baselines) < self.plan.work.n_baselines
        if indices and (not self.skip or cut):
            advice = (
                "use one block of baselines to skip it"
                if cut and self.skip
                else "set on_nonfinite=skip to leave such samples out and record them"
            )
            raise NonFiniteError(
                f"sample {indices[0]} has NaN or infinity in a "
                f"gradient{'' if self.reduction.linear else ', its reduction'} or a "
                f"baseline prediction ({shard}): "
                f"try another baseline or precision, or {advice}"
            )
        return indices


def _screened(attribution: Attribution) -> tuple[Attribution, Bool[Tensor, " n"]]:
    """The attribution with weight 0 for samples that are not finite, and which these are."""
    used, fine = attribution.weight > 0, torch.isfinite(attribution.delta)
    if attribution.unreduced is not None:
        fine &= torch.isfinite(attribution.total())
    lost = (~fine & used).any(1)
    return attribution.without(lost), lost


def _noted(notes: dict[str, Any], *, failed: np.ndarray | None = None, **sums: Any) -> None:
    """Add the notes of an attributor about the samples of a batch, for some baselines, to the earlier notes."""
    if failed is not None:
        notes["failed"] = np.maximum(notes.get("failed", 0), failed.astype(np.uint8))
    for name, more in sums.items():
        notes[name] = notes.get(name, 0) + more


def on_host(state: State) -> tuple[dict[str, np.ndarray], tuple[dict[str, np.ndarray], ...]]:
    """The sums of a state as arrays."""
    moved = state.map(lambda sums: sums.cpu().numpy() + 0.0)
    return dict(moved.scalars), tuple(dict(sums) for sums in moved.features)
