"""Pass 2 by draws: a flat list of them, any mix of samples, baselines, nodes and outputs, folded in forward passes of one size.

For statistics that are linear in the attribution a draw is all there is: a pair of points, a node between them, and for each
output and each sum of a state the weight with which its gradient counts. Different draws may ask for different outputs, so
that a draw costs no more gradients than it has outputs of weight: two for a pair of samples with labels, or its own output
and a few of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from igc_dist import seeds
from igc_dist.attributors import PathIntegral
from igc_dist.attributors.walk import column
from igc_dist.audit import Auditor
from igc_dist.designs import GROUP, Pairs
from igc_dist.engine import Engine, Rows, on_host
from igc_dist.faults import fault
from igc_dist.findings import Known
from igc_dist.model import Model
from igc_dist.paths import Path
from igc_dist.records import Attribution, Batch, DataError, NonFiniteError, Shard, Tensors
from igc_dist.statistics import State, empty, of
from igc_dist.targets import asked


@dataclass(frozen=True)
class Draws:
    """R draws: the gradient at `node` between two points, times the velocity there, counts with `weight` in each of T sums of J outputs.

    `end`, `start`: rows among the ends and the starts at hand; `cell`: the cell of each draw, per output.
    """

    end: Int64[np.ndarray, " R"]
    start: Int64[np.ndarray, " R"]
    node: Float64[np.ndarray, " R"]
    weight: Float64[np.ndarray, "T R J"]
    cell: Int64[np.ndarray, "R J"]

    def used(self) -> Draws:
        """Those that count anywhere."""
        return self.at(np.flatnonzero((self.weight != 0).any((0, 2))))

    def at(self, rows: Int64[np.ndarray, " r"] | slice) -> Draws:
        """Some of the draws."""
        return Draws(self.end[rows], self.start[rows], self.node[rows], self.weight[:, rows], self.cell[rows])

    def packed(self) -> Int64[np.ndarray, "R L"]:
        """The outputs that each draw asks for, those that count first; L is the largest number that one draw asks for.

        As the samples of a batch are independent, one backward pass serves any choice of one output for each.
        """
        asked = (self.weight != 0).any(0)
        return np.argsort(~asked, axis=1, kind="stable")[:, : int(asked.sum(1).max(initial=0))]


def fold(
    model: Model,
    path: Path,
    ends: Tensors,
    starts: Tensors,
    draws: Draws,
    outputs: Sequence[int],
    into: Tensors,
    *,
    size: int,
    watch: Callable[[int], None],
    broken: Callable[[int], None],
) -> None:
    """Add ``weight * velocity * d f / d x`` of all draws to the sums `into`, one (T, C, J, *P_i) in float64 per input.

    A forward pass takes `size` draws; the backward passes are as many as the most outputs that one of these draws asks for. `broken(end)`
    is called for a draw whose gradient is not finite; it raises.
    """
    draws, numbers = draws.used(), np.asarray(outputs)
    for begin in range(0, len(draws.end), size):
        part = draws.at(slice(begin, begin + size))
        picks = part.packed()
        points, velocities = [], []
        for x, x0 in zip(ends, starts, strict=True):
            one, two = (v[torch.from_numpy(rows).to(v.device)] for v, rows in ((x0, part.start), (x, part.end)))
            at = column(torch.from_numpy(part.node), two)
            points.append(path.point(one, two, at))
            velocities.append(path.velocity(one, two, at))
        wanted = torch.from_numpy(numbers[picks]).to(ends[0].device)
        for slot, grads in model.gradients(tuple(points), wanted):
            fault("gradient", *grads)
            _add(grads, velocities, part, picks[:, slot], into, broken)
        watch(len(part.end))


def _add(grads: Tensors, velocities: Sequence[Tensor], part: Draws, pick: np.ndarray, into: Tensors, broken: Callable[[int], None]) -> None:
    """Contract one gradient per draw, of the output `pick`, with its weights: one product of matrices for all outputs that occur."""
    rows = np.arange(len(pick))
    weight, n_outputs = part.weight[:, rows, pick], part.weight.shape[2]  # T R
    used = torch.from_numpy((weight != 0).any(0)).to(grads[0].device)
    places, which = np.unique(part.cell[rows, pick] * n_outputs + pick, return_inverse=True)
    spread = np.zeros((len(weight), len(places), len(rows)))
    spread[:, which, rows] = weight
    matrix = torch.from_numpy(spread.reshape(-1, len(rows))).to(grads[0].device)
    at = torch.from_numpy(places).to(grads[0].device)
    for grad, velocity, sums in zip(grads, velocities, into, strict=True):
        product = (grad * velocity).double().reshape(len(rows), -1)
        # a slot that a draw leaves empty may be NaN, and 0 * NaN is NaN
        product = torch.where(used[:, None], product, 0.0)
        lost = torch.nonzero(~torch.isfinite(product.sum(1)))
        if len(lost):
            broken(int(part.end[int(lost[0])]))
        flat = sums.view(len(weight), -1, product.shape[1])
        flat[:, at] += (matrix @ product).view(len(weight), len(places), -1)


@dataclass(frozen=True)
class _Lot:
    """Samples that are read together and their draws, between rows of `ends` and of `starts`, as the walk has them."""

    batch: Batch
    known: Known
    baseline_prediction: np.ndarray
    ends: Tensors
    starts: Tensors
    draws: Iterable[Draws]
    between: Mapping[str, Tensor] = field(default_factory=dict)
    """Of pairs: ``1/2 sum w (y_n - y_m) (r_n - r_m)``, and likewise for r in place of y, by scalar term: (C, J)."""


class DrawnEngine(Engine):
    """The engine for designs that pair samples, and for labels of which only some outputs are asked (`Targets.n_others`)."""

    def run(self, shard: Shard, known: Known, rows: Rows | None = None) -> tuple[State, list[int]]:
        """The state of a shard on the host. A gradient that is not finite is an error: the draws of others hang on every sample."""
        assert isinstance(self.attributor, PathIntegral)
        host, n_cells = self.centre.outputs(_slice(shard.outputs)), len(self.cells)
        sums, lots = self._zeros(shard, self.plan.shapes.features), self._asked
        scalars = dict(empty(host, (), (), n_cells=n_cells).scalars)
        if isinstance(self.attributor.sampling, Pairs):
            lots = self._paired
        for number, lot in enumerate(lots(shard, known)):
            into = sums if self.reduction.trivial else self._zeros(shard, self.plan.shapes.attributed or self.plan.shapes.features)
            for n, draws in enumerate(lot.draws):
                if isinstance(self.check, Auditor) and not number and not n:
                    self.check.contributions(shard, partial(self._tried, lot, draws, shard))
                self._fold(self.inputs.model, lot, draws, shard, into)
            # the baseline term: what the ends of pairs add to the covariance by themselves, less what the pairs do
            for term, of_pairs in lot.between.items():
                scalars[term] = scalars[term] - of_pairs
            own = of(self._samples(lot, shard), host, (), n_cells).scalars
            scalars = {term: value + own[term] for term, value in scalars.items()}
            if into is not sums:
                reduced = self.reduction(tuple(v.flatten(0, 1) for v in into), lot.batch.inputs)
                for total, part in zip(sums, reduced, strict=True):
                    total += part.view(total.shape)
        scalars["d"] = torch.zeros_like(scalars["d"])  # of draws, not of samples: there is no attribution to be incomplete
        state = State(host, scalars, tuple(dict(zip(self.terms, total, strict=True)) for total in sums))
        return State(host, *on_host(state)), []

    def _fold(self, model: Model, lot: _Lot, draws: Draws, shard: Shard, into: Tensors) -> None:
        assert isinstance(self.attributor, PathIntegral)
        fold(
            model,
            self.attributor.path,
            lot.ends,
            lot.starts,
            draws,
            [self.plan.work.outputs[k] for k in shard.outputs],
            into,
            size=self.plan.samples_per_batch * self.plan.points_per_batch,
            watch=self.watch,
            broken=lambda end: _refuse(int(lot.batch.index[end]), shard),
        )

    def _tried(self, lot: _Lot, draws: Draws, shard: Shard, model: Model) -> Tensors:
        """What half as many draws as are done at once contribute to the covariances with y, or else with r: (J, *P_i) per input."""
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
        """The samples of a lot without attributions, for the sums that need none; on the host, as all tables are."""
        target, prediction, b = (
            torch.as_tensor(t, dtype=torch.float64) for t in (lot.known.target, lot.known.prediction, lot.baseline_prediction)
        )
        fraction = len(shard.baselines) / self.plan.work.n_baselines
        weight = torch.from_numpy(self._own_weight(lot) * fraction)
        cell = self.cells.of(lot.batch.index, target, _slice(shard.outputs))
        return Attribution((), target, prediction, b, weight, fraction, cell)

    def _own_weight(self, lot: _Lot) -> Float64[np.ndarray, "n J"]:
        """Weights of samples, 0 where they are masked."""
        own = np.ones(len(lot.batch.index)) if self.weight is None else self.weight[lot.batch.index]
        return np.where((lot.known.bad == 0)[:, None] & ~np.isnan(lot.known.target), own[:, None], 0.0)

    def _products(self, lot: _Lot, shard: Shard, terms: Sequence[str]) -> Float64[np.ndarray, "T n J"]:
        """What multiplies the attribution of a sample in each sum."""
        centre, weight = self.centre.outputs(_slice(shard.outputs)), self._own_weight(lot)
        about = {"": 1.0, "y": np.nan_to_num(lot.known.target - centre.y), "r": np.nan_to_num(lot.known.prediction - centre.r)}
        return np.stack([weight * about[term[1:]] for term in terms])

    # -- pairs -----------------------------------------------------------------------------------------------------

    def _paired(self, shard: Shard, known: Known) -> Iterator[_Lot]:
        """Groups of the samples that are fit for use. Raises `DataError` for a fold with one of them."""
        assert isinstance(self.attributor, PathIntegral)
        assert isinstance(self.attributor.sampling, Pairs)
        outputs, fit = _slice(shard.outputs), np.flatnonzero(known.bad == 0)
        if len(fit) == 1:
            raise DataError(f"fold {shard.fold} has one usable sample, pairs need two: lower plan.n_folds")
        cuts = np.array_split(fit, max(1, len(fit) // GROUP)) if len(fit) else []
        indices = [self.plan.order[shard.rows.start + cut].tolist() for cut in cuts]
        for number, (cut, batch) in enumerate(zip(cuts, self.source.grouped(indices, self.device.type == "cuda"), strict=True)):
            table = known.at(cut, outputs)
            walk = self.inputs.walk(self.inputs.take(batch.inputs, self.device), ())
            lot = _Lot(batch, table, table.prediction, walk.inputs, walk.inputs, ())
            generator = seeds.generator(self.address(batch, shard).seed, shard.fold, "designs.pairs", number)
            drawn = self.attributor.sampling.draw(
                generator, self.findings.importance_weights(table.target, table.prediction, outputs, self.terms)
            )
            total = self.findings.total[outputs]
            # 1/2 sum_(n, m) w_n w_m (..) / W, over all pairs of the data set, of which those of a sample are N - 1
            half = 0.5 * (len(self.findings.pool) - 1) / np.where(total > 0, total, np.inf)
            # both baseline terms are told whatever the statistics: those of the maps come last
            terms = ("ay", "ar", *self.terms)
            weight, product = self._own_weight(lot), self._products(lot, shard, terms)
            mutual = half * drawn.factor[:, None] * weight[drawn.end] * weight[drawn.start]
            with np.errstate(invalid="ignore", divide="ignore"):
                deviation = np.where(weight > 0, product / weight, 0.0)
            differences = mutual * (deviation[:, drawn.end] - deviation[:, drawn.start])
            cell = np.zeros(mutual.shape, dtype=np.int64)
            change = table.prediction[drawn.end] - table.prediction[drawn.start]
            between = {term: torch.from_numpy((row * change).sum(0))[None] for term, row in zip(("yb", "rb"), differences, strict=False)}
            yield replace(lot, draws=(Draws(drawn.end, drawn.start, drawn.node, differences[2:], cell),), between=between)

    # -- some of the outputs ---------------------------------------------------------------------------------------

    def _asked(self, shard: Shard, known: Known) -> Iterator[_Lot]:
        """Micro-batches of samples; for each of their path points, the output of the label and a few others."""
        outputs, at = _slice(shard.outputs), 0
        indices = self.plan.order[shard.rows.start : shard.rows.stop].tolist()
        for batch in self.source.batches(indices, self.plan.samples_per_batch, self.device.type == "cuda"):
            table = known.at(slice(at, at := at + len(batch.index)), outputs)
            baselines, at_baseline = self._baselines(batch, shard)
            walk = self.inputs.walk(self.inputs.take(batch.inputs, self.device), baselines)
            flat = tuple(x0.flatten(0, 1) for x0 in walk.baselines)
            b = at_baseline.expand(len(batch.index), -1).cpu().numpy()
            lot = _Lot(batch, table, b, walk.inputs, flat, ())
            yield replace(lot, draws=self._points(lot, shard, walk.baselines[0].shape[1] > 1))

    def _points(self, lot: _Lot, shard: Shard, own: bool) -> Iterator[Draws]:
        """The draws of a micro-batch, a forward pass at a time; `own`: baselines are those of each sample, and not of all."""
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
                [address.generator(i, purpose, int(shard.baselines[p // k]) * k + p % k).random(n_outputs) for i in range(n)]
                for p in c.tolist()
            ]
            often = np.stack([asked(np.asarray(one), label, self.n_others) for one in keys])  # c n J
            weight = product[:, None] * (often * sampling.weights[c % k][:, None, None])
            samples = np.tile(np.arange(n), len(c))
            starts = np.repeat(c // k, n) * (n if own else 1) + (samples if own else 0)
            yield Draws(samples, starts, nodes[c].ravel(), weight.reshape(len(weight), -1, n_outputs), np.tile(cell, (len(c), 1)))


def _slice(numbers: range) -> slice:
    return slice(numbers.start, numbers.stop)


def _refuse(index: int, shard: Shard) -> None:
    raise NonFiniteError(
        f"sample {index} has NaN or infinity in a gradient ({shard}): a draw cannot be left out without a bias. Try another baseline or "
        "precision, or take the sample out of the data"
    )
