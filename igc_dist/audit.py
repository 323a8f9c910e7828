"""What the precision of a run changes: a few micro-batches are attributed again in a higher one, within their shards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from igc_dist import seeds
from igc_dist.engine import Engine
from igc_dist.findings import Known
from igc_dist.model import HIGHER, PRECISIONS, Model
from igc_dist.records import Attribution, Batch, ConfigError, ModelError, PrecisionError, Shard, Tensors

TERMS = ("contribution", "contribution_error", "rise", "rise_error")
"""Sums of an audit, per output, over its micro-batches: ``|C'|^2, |C - C'|^2, |r'|^2, |d - d'|^2``, where ' is the higher precision,
``C = sum_n w a (y - c)`` is what a micro-batch adds to the IGC, a vector over features; ``r = f(x) - mean_b f(x0)`` and the residual
of completeness ``d = sum a - r`` are vectors over its samples, weighted."""

BATCHES = 4
"""Micro-batches of the audit of a mixed precision."""


@dataclass
class Audit:  # not frozen: OmegaConf makes the fields of a frozen schema read-only
    """`audit`: how many micro-batches are done again (None: 4 for mixed precisions, 0 else); `tol`: the largest relative error
    of an output's IGC contribution, and of its completeness, that is let pass (None: any, it is only recorded); `on_error`: above it
    the run fails, or falls back: it is done again, from pass 1, in the higher precision."""

    audit: int | None = None
    tol: float | None = 0.05
    on_error: str = "fail"

    def __post_init__(self) -> None:
        if self.on_error not in ("fail", "fallback"):
            raise ConfigError(f"precision.on_error={self.on_error!r}: choose fail, or fallback (do the run again in the higher precision)")
        if self.audit is not None and (isinstance(self.audit, bool) or not isinstance(self.audit, int) or self.audit < 0):
            raise ConfigError(f"precision.audit={self.audit!r}: give a number of micro-batches, 0 for none, or null for the default")
        if self.tol is not None and not self.tol > 0:
            raise ConfigError(f"precision.tol={self.tol!r}: give a relative error above 0, or null to record it only")

    def batches(self, model: Model) -> int:
        """How many micro-batches of this model are audited. Raises `ConfigError` if it cannot be run in a higher precision."""
        mixed = PRECISIONS[model.precision] is not None
        wanted = (BATCHES if mixed else 0) if self.audit is None else self.audit
        if wanted and model.precision not in HIGHER:
            raise ConfigError(f"precision.audit={wanted}: there is no precision above {model.precision} to audit it by, set it to 0")
        if wanted and model.compiled and not mixed:
            raise ConfigError(
                f"precision.audit={wanted} needs the model in float64, but its compiled forward is one of float32: switch compiled off, or "
                "set precision.audit=0"
            )
        return wanted

    def memory(self, model: Model) -> int:
        """Bytes of the weights in float64, where it takes them."""
        weights = (t.numel() for t in (*model.module.parameters(), *model.module.buffers()))
        return 8 * sum(weights) if HIGHER.get(model.precision) == "64-true" and self.batches(model) else 0

    def judge(self, model: Model, found: Mapping[str, Float64[np.ndarray, " J"]], labels: np.ndarray) -> None:
        """Raise `PrecisionError` with the worst output, and the ways out, if an error of `errors` is above `tol`.

        An output without a contribution (nan) is let pass, an infinite error is not.
        """
        for name, values in found.items():
            if self.tol is None or np.isnan(values).all():
                continue
            worst = int(np.nanargmax(values))
            if values[worst] > self.tol:
                what = "IGC contribution" if name == "precision_error" else "completeness"
                raise PrecisionError(
                    f"{model.precision} changes the {what} of output {labels[worst]} by {values[worst]:.3g} of its size, against "
                    f"{HIGHER[model.precision]} on the audited micro-batches; precision.tol is {self.tol:g}: take "
                    f"fabric.precision={HIGHER[model.precision]}, or precision.on_error=fallback, or raise "
                    "precision.tol, or set it to null to record the error only"
                )


@dataclass
class Auditor:
    """Compares the micro-batches of a run that are drawn for an audit, `n_batches` of those of the first `n_folds`; one per rank."""

    engine: Engine
    n_batches: int
    n_folds: int
    _sums: Float64[np.ndarray, "terms J"] | None = None
    _chosen: frozenset[tuple[int, int]] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        plan = self.engine.plan
        size = plan.samples_per_batch
        every = [(fold, at) for fold in range(self.n_folds) for at in range(0, ceil(len(plan.fold(fold)) / size) * size, size)]
        drawn = seeds.generator(plan.seed, 0, "audit").choice(len(every), min(self.n_batches, len(every)), replace=False)
        self._chosen = frozenset(every[k] for k in drawn)

    def __call__(self, shard: Shard, at: int, batch: Batch, known: Known, low: Attribution) -> None:
        """Add a micro-batch whose first row in its fold is `at`, if it was drawn: the first half of its samples.

        Numbers are twice as wide in the higher precision, so half of the samples, or of the points of one, take the same memory.
        """
        if not self.wants(shard, at):
            return
        assert self._sums is not None
        n = ceil(len(batch.index) / 2)
        some = Batch(batch.index[:n], tuple(x[:n] for x in batch.inputs), batch.target[:n])
        centre = torch.as_tensor(self.engine.centre.y[shard.outputs.start : shard.outputs.stop], device=low.target.device)
        try:
            high = self._again(shard, some, known.at(slice(n), slice(None)), len(batch.index) > 1)
        except (RuntimeError, ModelError) as error:
            raise self._failed(error) from error
        self._sums += compared(low, high, centre).cpu().numpy()

    def begin(self, shard: Shard) -> None:
        """No sums yet, of a shard that is walked, or walked again."""
        self._sums = np.zeros((len(TERMS), len(shard.outputs)))

    def wants(self, shard: Shard, at: int) -> bool:
        """Whether the micro-batch of a shard whose first row in its fold is `at` was drawn."""
        return (shard.fold, at) in self._chosen

    def contributions(self, shard: Shard, walk: Callable[[Model], Tensors]) -> None:
        """Add what draws contribute, once for the fold: `walk(model)` folds some of them into fresh sums (J, *P_i) per input.

        There are no attributions of samples, so nothing is said of their completeness.
        """
        if not any(fold == shard.fold for fold, _ in self._chosen):
            return
        assert self._sums is not None
        low = walk(self.engine.inputs.model)
        try:
            with self.engine.inputs.model.higher() as model:
                high = walk(model)
        except (RuntimeError, ModelError) as error:
            raise self._failed(error) from error
        for one, two in zip(low, high, strict=True):
            flat = [v.double().reshape(len(v), -1).cpu().numpy() for v in (one, two)]
            self._sums[0] += (flat[1] ** 2).sum(1)
            self._sums[1] += ((flat[0] - flat[1]) ** 2).sum(1)

    def _failed(self, error: Exception) -> ModelError:
        precision = HIGHER[self.engine.inputs.model.precision]
        return ModelError(f"the audit failed, as the model does not run in {precision}: {error}; set precision.audit=0")

    def taken(self) -> Float64[np.ndarray, "terms J"]:
        """The sums of the shard at hand."""
        assert self._sums is not None
        return self._sums

    def _again(self, shard: Shard, some: Batch, known: Known, halved: bool) -> Attribution:
        plan = self.engine.plan
        points = plan.points_per_batch if halved else max(1, plan.points_per_batch // 2)
        with self.engine.inputs.model.higher() as model:
            inputs = self.engine.inputs.around(model)
            engine = replace(self.engine, inputs=inputs, plan=replace(plan, points_per_batch=points), check=None, _shared={})
            taken = inputs.take(some.inputs, engine.device)
            columns = [plan.work.outputs[k] for k in shard.outputs]
            prediction = inputs.predict(taken)[:, columns].double().cpu().numpy()
            return engine.again(some, shard, replace(known, prediction=prediction))


def compared(low: Attribution, high: Attribution, centre: Float64[Tensor, " J"]) -> Float64[Tensor, "terms J"]:
    """`TERMS` of the samples of `high`, which are the first of `low`; those that `low` leaves out count for nothing."""
    n, weight = len(high.target), low.weight[: len(high.target)]
    used = weight > 0
    w = torch.where(used, weight * (high.target - centre), 0.0)
    sums = low.target.new_zeros(len(TERMS), len(centre))
    for one, two in zip(low.values, high.values, strict=True):
        for j in range(len(centre)):
            a, b = (w[:, j] @ torch.where(used[:, j, None], v[:n, j].double().reshape(n, v[0, 0].numel()), 0.0) for v in (one, two))
            sums[0, j] += b.square().sum()
            sums[1, j] += (a - b).square().sum()
    rise, residual = high.prediction - high.baseline_prediction, low.delta[:n] - high.delta
    for term, value in ((2, rise), (3, residual)):
        sums[term] = torch.where(used, weight * value.square(), 0.0).sum(0)
    return sums


def errors(sums: Float64[np.ndarray, "terms J"]) -> dict[str, Float64[np.ndarray, " J"]]:
    """Per output: `precision_error`, ``sqrt(sum |C - C'|^2 / sum |C'|^2)``; `precision_completeness_error`, ``sqrt(sum (d - d')^2 /
    sum r'^2)``. nan where nothing was contributed in either precision."""
    with np.errstate(invalid="ignore", divide="ignore"):
        one, two = np.sqrt(sums[1] / sums[0]), np.sqrt(sums[3] / sums[2])
    return {"precision_error": one, "precision_completeness_error": two}
