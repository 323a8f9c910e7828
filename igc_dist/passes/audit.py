"""The effect of a run's precision: within their shards, a few micro-batches are attributed again in a higher one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from igc_dist import seeds
from igc_dist.model import HIGHER, Model, memory
from igc_dist.passes.attribute import Engine
from igc_dist.passes.findings import Known
from igc_dist.planning import TERMS
from igc_dist.records import ModelError, Shard
from igc_dist.tensors import Attribution, Batch, Tensors


@dataclass
class Auditor:
    """Compares `n_batches` micro-batches, drawn from the first `n_folds` folds, with a higher precision."""

    engine: Engine
    n_batches: int
    n_folds: int
    _sums: Float64[np.ndarray, "terms J"] | None = None
    _chosen: frozenset[tuple[int, int]] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        plan = self.engine.plan
        size = plan.samples_per_batch
        every = [
            (fold, at)
            for fold in range(self.n_folds)
            for at in range(0, ceil(len(plan.fold(fold)) / size) * size, size)
        ]
        drawn = seeds.generator(plan.seed, 0, "audit").choice(
            len(every), min(self.n_batches, len(every)), replace=False
        )
        self._chosen = frozenset(every[k] for k in drawn)

    def __call__(self, shard: Shard, at: int, batch: Batch, known: Known, low: Attribution) -> None:
        """Add the first half of the samples of a micro-batch, if it was drawn; `at` is its first row in its fold.

        Numbers are twice as wide in the higher precision. So half of the samples, or half of the points of one sample,
        take the same memory.
        """
        if not self.wants(shard, at):
            return
        assert self._sums is not None
        n = ceil(len(batch.index) / 2)
        some = batch.first(n)
        centre = torch.as_tensor(
            self.engine.centre.y[shard.outputs.start : shard.outputs.stop], device=low.target.device
        )
        try:
            high = self._again(shard, some, known.at(slice(n), slice(None)), len(batch.index) > 1)
        except (RuntimeError, ModelError) as error:
            raise self._failed(error) from error
        self._sums += compared(low, high, centre).cpu().numpy()

    def begin(self, shard: Shard) -> None:
        """Set the sums to 0 for a shard that is walked, or walked again."""
        self._sums = np.zeros((len(TERMS), len(shard.outputs)))

    def wants(self, shard: Shard, at: int) -> bool:
        """Whether the micro-batch whose first row in its fold is `at` was drawn."""
        return (shard.fold, at) in self._chosen

    def contributions(self, shard: Shard, walk: Callable[[Model], Tensors]) -> None:
        """Add the contributions of draws, once per fold: `walk(model)` returns fresh sums of some draws, (J, *P_i).

        There are no attributions of samples, so their completeness is not audited.
        """
        if not any(fold == shard.fold for fold, _ in self._chosen):
            return
        assert self._sums is not None
        low = walk(self.engine.inputs.model)
        try:
            with self._higher() as model:
                high = walk(model)
        except (RuntimeError, ModelError) as error:
            raise self._failed(error) from error
        for one, two in zip(low, high, strict=True):
            flat = [v.double().reshape(len(v), -1).cpu().numpy() for v in (one, two)]
            self._sums[0] += (flat[1] ** 2).sum(1)
            self._sums[1] += ((flat[0] - flat[1]) ** 2).sum(1)

    @contextmanager
    def _higher(self) -> Iterator[Model]:
        """The model in the higher precision.

        Freed memory is returned before and after: tensors of one width do not fit the holes that those of the other
        left in the heap.
        """
        memory.give_back()
        with self.engine.inputs.model.higher() as model:
            yield model
        memory.give_back()

    def _failed(self, error: Exception) -> ModelError:
        precision = HIGHER[self.engine.inputs.model.precision]
        return ModelError(f"the audit failed, as the model does not run in {precision}: {error}; set precision.audit=0")

    def taken(self) -> Float64[np.ndarray, "terms J"]:
        """The sums of the current shard."""
        assert self._sums is not None
        return self._sums

    def _again(self, shard: Shard, some: Batch, known: Known, halved: bool) -> Attribution:
        plan = self.engine.plan
        points = plan.points_per_batch if halved else max(1, plan.points_per_batch // 2)
        with self._higher() as model:
            inputs = self.engine.inputs.around(model)
            engine = replace(
                self.engine, inputs=inputs, plan=replace(plan, points_per_batch=points), check=None, _shared={}
            )
            taken = inputs.take(some.inputs, engine.device)
            columns = [plan.work.outputs[k] for k in shard.outputs]
            prediction = known.columns(inputs.predict(taken), columns).double().cpu().numpy()
            return engine.again(some, shard, replace(known, prediction=prediction))


def compared(low: Attribution, high: Attribution, centre: Float64[Tensor, " J"]) -> Float64[Tensor, "terms J"]:
    """`TERMS` of the samples of `high`, which are the first of `low`. Samples that `low` leaves out do not count."""
    n, weight = len(high.target), low.weight[: len(high.target)]
    used = weight > 0
    w = torch.where(used, weight * (high.target - centre), 0.0)
    sums = low.target.new_zeros(len(TERMS), len(centre))
    for one, two in zip(low.values, high.values, strict=True):
        for j in range(len(centre)):
            a, b = (
                w[:, j] @ torch.where(used[:, j, None], v[:n, j].double().reshape(n, v[0, 0].numel()), 0.0)
                for v in (one, two)
            )
            sums[0, j] += b.square().sum()
            sums[1, j] += (a - b).square().sum()
    rise, residual = high.prediction - high.baseline_prediction, low.delta[:n] - high.delta
    for term, value in ((2, rise), (3, residual)):
        sums[term] = torch.where(used, weight * value.square(), 0.0).sum(0)
    return sums


def errors(sums: Float64[np.ndarray, "terms J"]) -> dict[str, Float64[np.ndarray, " J"]]:
    """Two relative errors per output; nan if nothing was contributed in either precision.

    `precision_error` is ``sqrt(sum |C - C'|^2 / sum |C'|^2)``; `precision_completeness_error` is ``sqrt(sum (d - d')^2
    / sum r'^2)``.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        one, two = np.sqrt(sums[1] / sums[0]), np.sqrt(sums[3] / sums[2])
    return {"precision_error": one, "precision_completeness_error": two}
