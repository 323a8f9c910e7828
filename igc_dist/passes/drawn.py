"""Pass 2 by draws: the engine for designs that pair samples, and for labels with gradients of only some outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from igc_dist import seeds
from igc_dist.attributors import PathIntegral
from igc_dist.model import Model
from igc_dist.passes.attribute import Engine, Rows, on_host
from igc_dist.passes.audit import Auditor
from igc_dist.passes.draws import Draws, Lines, asked, fold
from igc_dist.passes.findings import Known, Tables
from igc_dist.paths import GROUP, Pairs
from igc_dist.records import DataError, NonFiniteError, Shard
from igc_dist.statistics import State, empty, of
from igc_dist.tensors import Attribution, Batch, Tensors


@dataclass(frozen=True)
class _Lot:
    """Samples that are read together, and their draws between rows of `starts` and `ends`, as the walk needs them."""

    batch: Batch
    known: Known
    baseline_prediction: np.ndarray
    ends: Tensors
    starts: Tensors
    draws: Iterable[Draws]
    between: Mapping[str, Tensor] = field(default_factory=dict)
    """For pairs: ``1/2 sum w (y_n - y_m) (r_n - r_m)``, and the same with r in place of y, by scalar term: (C, J)."""


class DrawnEngine(Engine):
    """The engine for designs that pair samples, and for labels with gradients of some outputs (`Targets.n_others`)."""

    def run(self, shard: Shard, known: Tables, rows: Rows | None = None) -> tuple[State, list[int]]:
        """The state of a shard on the host.

        A gradient that is not finite is an error, because draws of other samples depend on every sample.
        """
        assert isinstance(self.attributor, PathIntegral)
        host, n_cells = self.centre.outputs(_slice(shard.outputs)), len(self.cells)
        sums, lots = self._zeros(shard, self.plan.shapes.features), self._asked
        scalars = dict(empty(host, (), (), n_cells=n_cells).scalars)
        if isinstance(self.attributor.sampling, Pairs):
            lots = self._paired
        for number, lot in enumerate(lots(shard, known)):
            into = (
                sums
                if self.reduction.trivial
                else self._zeros(shard, self.plan.shapes.attributed or self.plan.shapes.features)
            )
            for n, draws in enumerate(lot.draws):
                if isinstance(self.check, Auditor) and not number and not n:
                    self.check.contributions(shard, partial(self._tried, lot, draws, shard))
                self._fold(self.inputs.model, lot, draws, shard, into)
            # the baseline term: the covariance of the ends of pairs, minus that of the pairs
            for term, of_pairs in lot.between.items():
                scalars[term] = scalars[term] - of_pairs
            own = of(self._samples(lot, shard), host, (), n_cells).scalars
            scalars = {term: value + own[term] for term, value in scalars.items()}
            if into is not sums:
                reduced = self.reduction(tuple(v.flatten(0, 1) for v in into), lot.batch.inputs, lot.batch.segments)
                for total, part in zip(sums, reduced, strict=True):
                    total += part.view(total.shape)
        scalars["d"] = torch.zeros_like(scalars["d"])  # draws give no attribution of a sample, so there is no residual
        state = State(host, scalars, tuple(dict(zip(self.terms, total, strict=True)) for total in sums))
        return State(host, *on_host(state)), []

    def _fold(self, model: Model, lot: _Lot, draws: Draws, shard: Shard, into: Tensors) -> None:
        assert isinstance(self.attributor, PathIntegral)
        lines = Lines(
            model,
            self.attributor.path,
            lot.ends,
            lot.starts,
            size=self.plan.samples_per_batch * self.plan.points_per_batch,
            watch=self.watch,
            broken=lambda end: _refuse(int(lot.batch.index[end]), shard),
        )
        fold(lines, draws, [self.plan.work.outputs[k] for k in shard.outputs], into)

    def _tried(self, lot: _Lot, draws: Draws, shard: Shard, model: Model) -> Tensors:
        """The contribution of half the usual number of draws to the covariances with y, or else with r.

        (J, *P_i) per input.
        """
        into = self._zeros(shard, self.plan.shapes.attributed or self.plan.shapes.features)
        half = max(1, self.plan.samples_per_batch * self.plan.points_per_batch // 2)
        dtype = torch.float64 if model.precision == "64-true" else lot.ends[0].dtype
        wide = replace(lot, ends=tuple(x.to(dtype) for x in lot.ends), starts=tuple(x.to(dtype) for x in lot.starts))
        self._fold(model, wide, draws.used().at(slice(half)), shard, into)
        return tuple(v[-1].sum(0) for v in into)

    def _zeros(self, shard: Shard, shapes: Iterable[tuple[int, ...]]) -> Tensors:
        lead = (len(self.terms), len(self.cells), len(shard.outputs))
        return tuple(torch.zeros(*lead, *shape, dtype=torch.float64, device=self.device) for shape in shapes)

    def _samples(self, lot: _Lot, shard: Shard) -> Attribution:
        """The samples of a lot without attributions, for sums that need none; on the host, like all tables."""
        target, prediction, b = (
            torch.as_tensor(t, dtype=torch.float64)
            for t in (lot.known.target, lot.known.prediction, lot.baseline_prediction)
        )
        fraction = len(shard.baselines) / self.plan.work.n_baselines
        weight = torch.from_numpy(self._own_weight(lot) * fraction)
        cell = self.cells.of(lot.batch.index, target, _slice(shard.outputs))
        return Attribution((), target, prediction, b, weight, fraction, cell)

    def _own_weight(self, lot: _Lot) -> Float64[np.ndarray, "n J"]:
        """Weights of samples; 0 if masked."""
        own = np.ones(len(lot.batch.index)) if self.weight is None else self.weight[lot.batch.index]
        return np.where((lot.known.bad == 0)[:, None] & ~np.isnan(lot.known.target), own[:, None], 0.0)

    def _products(self, lot: _Lot, shard: Shard, terms: Sequence[str]) -> Float64[np.ndarray, "T n J"]:
        """The factor of the attribution of a sample in each sum."""
        centre, weight = self.centre.outputs(_slice(shard.outputs)), self._own_weight(lot)
        about = {
            "": 1.0,
            "y": np.nan_to_num(lot.known.target - centre.y),
            "r": np.nan_to_num(lot.known.prediction - centre.r),
        }
        return np.stack([weight * about[term[1:]] for term in terms])

    # -- pairs -----------------------------------------------------------------------------------------------------

    def _paired(self, shard: Shard, known: Tables) -> Iterator[_Lot]:
        """Groups of samples that are fit for use. Raises `DataError` if a fold has only one such sample."""
        assert isinstance(self.attributor, PathIntegral)
        assert isinstance(self.attributor.sampling, Pairs)
        outputs, fit = _slice(shard.outputs), np.flatnonzero(known.bad == 0)
        if len(fit) == 1:
            raise DataError(f"fold {shard.fold} has one usable sample, pairs need two: lower plan.n_folds")
        cuts = np.array_split(fit, max(1, len(fit) // GROUP)) if len(fit) else []
        indices = [self.plan.order[shard.rows.start + cut].tolist() for cut in cuts]
        for number, (cut, batch) in enumerate(
            zip(cuts, self.source.grouped(indices, self.device.type == "cuda"), strict=True)
        ):
            self.source.complete(batch)
            table = known.at(cut, outputs)
            walk = self.inputs.walk(self.inputs.take(batch.inputs, self.device), ())
            lot = _Lot(batch, table, table.prediction, walk.inputs, walk.inputs, ())
            generator = seeds.generator(self.address(batch, shard).seed, shard.fold, "designs.pairs", number)
            drawn = self.attributor.sampling.draw(
                generator, self.findings.importance_weights(table.target, table.prediction, outputs, self.terms)
            )
            total = self.findings.total[outputs]
            # 1/2 sum_(n, m) w_n w_m (..) / W over all pairs of the data set; a sample has N - 1 pairs
            half = 0.5 * (len(self.findings.pool) - 1) / np.where(total > 0, total, np.inf)
            # both baseline terms are always computed; those of the maps come last
            terms = ("ay", "ar", *self.terms)
            weight, product = self._own_weight(lot), self._products(lot, shard, terms)
            mutual = half * drawn.factor[:, None] * weight[drawn.end] * weight[drawn.start]
            with np.errstate(invalid="ignore", divide="ignore"):
                deviation = np.where(weight > 0, product / weight, 0.0)
            differences = mutual * (deviation[:, drawn.end] - deviation[:, drawn.start])
            cell = np.zeros(mutual.shape, dtype=np.int64)
            change = table.prediction[drawn.end] - table.prediction[drawn.start]
            between = {
                term: torch.from_numpy((row * change).sum(0))[None]
                for term, row in zip(("yb", "rb"), differences, strict=False)
            }
            yield replace(
                lot, draws=(Draws(drawn.end, drawn.start, drawn.node, differences[2:], cell),), between=between
            )

    # -- some of the outputs ---------------------------------------------------------------------------------------

    def _asked(self, shard: Shard, known: Tables) -> Iterator[_Lot]:
        """Micro-batches of samples. Each path point asks for the output of the label and for a few other outputs."""
        outputs, at = _slice(shard.outputs), 0
        indices = self.plan.order[shard.rows.start : shard.rows.stop].tolist()
        for batch in self.source.batches(indices, self.plan.samples_per_batch, self.device.type == "cuda"):
            table = known.at(slice(at, at := at + len(batch.index)), outputs)
            self.source.complete(batch, table.bad == 0)
            baselines, at_baseline = self._baselines(batch, shard, table)
            walk = self.inputs.walk(self.inputs.take(batch.inputs, self.device), baselines)
            flat = tuple(x0.flatten(0, 1) for x0 in walk.baselines)
            b = at_baseline.expand(len(batch.index), -1).cpu().numpy()
            lot = _Lot(batch, table, b, walk.inputs, flat, ())
            yield replace(lot, draws=self._points(lot, shard, walk.baselines[0].shape[1] > 1))

    def _points(self, lot: _Lot, shard: Shard, own: bool) -> Iterator[Draws]:
        """The draws of a micro-batch, one forward pass at a time; `own`: whether each sample has its own baselines."""
        assert isinstance(self.attributor, PathIntegral)
        assert self.n_others is not None
        n, n_outputs, sampling = len(lot.batch.index), len(shard.outputs), self.attributor.sampling
        k, b_all = len(sampling), len(shard.baselines)
        address = self.address(lot.batch, shard)
        nodes = np.broadcast_to(sampling.nodes(address, n, b_all), (b_all, k, n)).reshape(-1, n)
        product = self._products(lot, shard, self.terms) / self.plan.work.n_baselines
        label = np.where((lot.known.target == 1).any(1), (lot.known.target == 1).argmax(1), -1)
        cell = self.cells.of(lot.batch.index, torch.as_tensor(lot.known.target), _slice(shard.outputs)).numpy()
        purpose = f"targets.others.{shard.outputs.start}"
        for start in range(0, b_all * k, self.plan.points_per_batch):
            c = np.arange(start, min(start + self.plan.points_per_batch, b_all * k))
            keys = [
                [
                    address.generator(i, purpose, int(shard.baselines[p // k]) * k + p % k).random(n_outputs)
                    for i in range(n)
                ]
                for p in c.tolist()
            ]
            often = np.stack([asked(np.asarray(one), label, self.n_others) for one in keys])  # c n J
            weight = product[:, None] * (often * sampling.weights[c % k][:, None, None])
            samples = np.tile(np.arange(n), len(c))
            starts = np.repeat(c // k, n) * (n if own else 1) + (samples if own else 0)
            yield Draws(
                samples,
                starts,
                nodes[c].ravel(),
                weight.reshape(len(weight), -1, n_outputs),
                np.tile(cell, (len(c), 1)),
            )


def _slice(numbers: range) -> slice:
    return slice(numbers.start, numbers.stop)


def _refuse(index: int, shard: Shard) -> None:
    raise NonFiniteError(
        f"sample {index} has NaN or infinity in a gradient ({shard}): a draw cannot be left out without a bias. Try "
        "another baseline or precision, or take the sample out of the data"
    )
