"""The results of pass 1, and what designs need of them: weights, strata, importance, correctness, confidence."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from jaxtyping import Float64, Int64, Shaped, UInt8
from torch import Tensor

from igc_dist.data import WRONG
from igc_dist.passes.predict import centre_of, columns
from igc_dist.planning import Piece, Plan
from igc_dist.records import ConfigError
from igc_dist.statistics import Centre
from igc_dist.store import Store
from igc_dist.tensors import there

log = logging.getLogger(__name__)

N_STRATA = 32
"""Number of strata of the predictions in the store; for baselines it is the number of baselines."""


@dataclass(frozen=True)
class Known:
    """The results of pass 1 for some samples: tables over rows (in fold order) and the selected outputs."""

    target: Float64[np.ndarray, "n J"]
    prediction: np.ndarray
    bad: UInt8[np.ndarray, " n"]
    scores: np.ndarray
    """Correctness and confidence, (n, 2); NaN if y is not a label."""
    explained: Int64[np.ndarray, "n J"] | None = None
    """Which outputs of the model these are, if each sample has its own."""

    def at(self, rows: slice | np.ndarray, outputs: slice | np.ndarray) -> Known:
        """Some rows, some outputs. One of them at most is an array of numbers."""
        own = None if self.explained is None else self.explained[rows, outputs]
        return Known(self.target[rows, outputs], self.prediction[rows, outputs], self.bad[rows], self.scores[rows], own)

    def columns(
        self, every: Shaped[Tensor, "1 J"] | Shaped[Tensor, "n J"], outputs: Sequence[int]
    ) -> Shaped[Tensor, "1 L"] | Shaped[Tensor, "n L"]:
        """The `outputs` of a table of all outputs of the model, or each sample's own; one row may stand for all."""
        if self.explained is None:
            return every.index_select(1, there(list(outputs), every.device))
        own = there(self.explained, every.device)
        return every.expand(len(own), -1).gather(1, own)

    def of(self, piece: Piece) -> Known:
        """A piece of the only fold."""
        return self.at(slice(piece.rows.start, piece.rows.stop), slice(None))

    @staticmethod
    def joined(parts: Sequence[Known]) -> Known:
        """Consecutive rows."""
        if len(parts) == 1:
            return parts[0]
        tables = [one.name for one in fields(Known) if getattr(parts[0], one.name) is not None]
        return Known(**{table: np.concatenate([getattr(part, table) for part in parts]) for table in tables})


def of_piece(store: Store, piece: Piece) -> Known:
    """The tables of a piece of a fold."""
    tables = [one.name for one in fields(Known) if one.name in store.phases["predict"].arrays]
    if piece.whole:
        return Known(**dict(zip(tables, store.read_tables("predict", piece.fold, tables), strict=True)))
    rows = slice(piece.rows.start, piece.rows.stop)
    return Known(**{table: store.read("predict", table, (rows,)) for table in tables})


@dataclass
class Fold:
    """The tables of a fold in pieces, which are read when their rows are asked for. Rows are asked for in order."""

    store: Store
    pieces: Sequence[Piece]
    bad: UInt8[np.ndarray, " n"]
    _near: dict[Piece, Known] = field(default_factory=dict)

    def at(self, rows: slice | np.ndarray, outputs: slice | np.ndarray) -> Known:
        """Some rows of the fold, given as numbers or not, of some outputs."""
        first = self.pieces[0].rows.start
        start, stop = (rows.start, rows.stop) if isinstance(rows, slice) else (int(rows.min()), int(rows.max()) + 1)
        near = [p for p in self.pieces if p.rows.start - first < stop and p.rows.stop - first > start]
        self._near = {piece: known for piece, known in self._near.items() if piece in near}  # frees others first
        self._near |= {piece: of_piece(self.store, piece) for piece in near if piece not in self._near}
        parts = []
        for piece in near:
            low = piece.rows.start - first
            cut = slice(max(start - low, 0), min(stop - low, len(piece.rows)))
            parts.append(self._near[piece].at(cut, slice(None)))
        return Known.joined(parts).at(slice(None) if isinstance(rows, slice) else rows - start, outputs)


Tables = Known | Fold
"""The tables of a fold, from which some rows and outputs are asked for."""


def of_fold(store: Store, plan: Plan, fold: int) -> Tables:
    """The tables of a fold: all of them, or, if they are large, in pieces."""
    pieces = list(plan.tables(fold))
    if len(pieces) == 1:
        return of_piece(store, pieces[0])
    rows = plan.fold(fold)
    return Fold(store, pieces, store.read("predict", "bad", (slice(rows.start, rows.stop),)))


@dataclass(frozen=True)
class Findings:
    """The results of pass 1 for the whole data set, per output, over the samples that count for it."""

    centre: Centre
    total: Float64[np.ndarray, " J"]
    """Sum of the weights of the samples."""
    y_std: Float64[np.ndarray, " J"]
    r_std: Float64[np.ndarray, " J"]
    pool: Int64[np.ndarray, " M"]
    """Indices of the samples that are fit for use, ascending."""
    positives: Int64[np.ndarray, " J"] | None = None
    """The number of samples whose target is 1, of outputs whose targets are all 0 or 1; -1 of others."""

    def doubt(self, n_folds: int, labels: np.ndarray) -> None:
        """Warn of classes with fewer positives than folds: standard errors are from folds that are left out."""
        if self.positives is None or not (few := (self.positives > 0) & (self.positives < n_folds)).any():
            return
        least = int(np.where(few, self.positives, n_folds).argmin())
        n = int(self.positives[least])
        log.warning(
            "%d of %d outputs have fewer positive samples than there are folds (%d); output %s has %d, so at least %d "
            "folds hold none of them: their standard errors rest on few samples and may be too small. Take fewer folds "
            "(plan.n_folds), or leave such outputs out (target.outputs='positives>=%d')",
            few.sum(), len(few), n_folds, labels[least], n, n_folds - n, n_folds,
        )  # fmt: skip

    def importance_weights(
        self, y: np.ndarray, r: np.ndarray, outputs: slice, terms: tuple[str, ...]
    ) -> Float64[np.ndarray, "n D"]:
        """Weights of the samples in an (auto-)correlation of each output, ``(y - mean y) / (std y std r)``.

        The weight is 0 for a missing target, and for an output whose target or prediction is constant.
        """
        scale = (self.y_std * self.r_std)[outputs], self.r_std[outputs] ** 2
        columns = [
            (value - mean[outputs]) / np.where(size > 0, size, np.inf)
            for term, value, mean, size in zip(("ay", "ar"), (y, r), (self.centre.y, self.centre.r), scale, strict=True)
            if term in terms
        ]
        return np.nan_to_num(np.concatenate(columns or [np.zeros((len(y), 1))], axis=1))


def find(
    plan: Plan, means: Float64[np.ndarray, "F 3 J"], weights: np.ndarray | None, known: Callable[[Piece], Known]
) -> Findings:
    """The findings, from tables read piece by piece. Deviations are computed from sums about the means, in float64."""
    centre, squares, fine = centre_of(means), np.zeros((2, means.shape[2])), []
    positives, others = np.zeros((2, means.shape[2]), np.int64)
    for piece in plan.tables():
        rows, table = plan.order[piece.rows.start : piece.rows.stop], known(piece)
        fit = table.bad == 0
        fine.append(rows[fit])
        own = (np.ones(len(rows)) if weights is None else weights[rows])[:, None]
        for cut in columns(*table.target.shape):
            weight = np.where(fit[:, None] & ~np.isnan(table.target[:, cut]), own, 0.0)
            y = table.target[:, cut]
            positives[cut] += ((weight > 0) & (y == 1)).sum(0)
            others[cut] += ((weight > 0) & (y != 1) & (y != 0)).sum(0)
            for sums, value, mean in zip(squares, (table.target, table.prediction), (centre.y, centre.r), strict=True):
                sums[cut] += (weight * np.where(weight > 0, value[:, cut] - mean[cut], 0.0) ** 2).sum(0)
    total = means[:, 0].sum(0)
    std, mean = np.sqrt(squares / np.where(total > 0, total, 1.0)), np.abs([centre.y, centre.r])
    y_std, r_std = np.where(std <= 1e-13 * mean, 0.0, std)  # a constant may differ from its mean by a few ulp
    counts = np.where(others == 0, positives, -1)
    return Findings(centre, total, y_std, r_std, np.sort(np.concatenate(fine)), counts)


def by_prediction(plan: Plan, found: Findings, known: Callable[[Piece], Known]) -> Int64[np.ndarray, " M"]:
    """Indices of the samples that are fit for use in the order of their predictions, read piece by piece.

    One output: by its value. Several outputs: each is standardised; samples are ordered by the output that is largest,
    then by its value. For classes this is the order by predicted class and its margin.
    """
    index, most, size = [], [], []
    for piece in plan.tables():
        table = known(piece)
        fit = table.bad == 0
        index.append(plan.order[piece.rows.start : piece.rows.stop][fit])
        for some in _some_rows(*table.prediction.shape):
            z = (table.prediction[some][fit[some]] - found.centre.r) / np.where(found.r_std > 0, found.r_std, np.inf)
            most.append(z.argmax(1))
            size.append(z.max(1))
    return np.concatenate(index)[np.lexsort((np.concatenate(size), np.concatenate(most)))]


def _some_rows(n: int, n_outputs: int) -> Iterator[slice]:
    """Cuts of n rows, so that a table of one cut takes 2 MiB in float64."""
    step = max(1, 2**18 // n_outputs)
    yield from (slice(start, start + step) for start in range(0, n, step))


def top_classes(plan: Plan, known: Callable[[Piece], Known], k: int) -> Int64[np.ndarray, "N k"]:
    """The k classes with the largest predictions of each sample, in this order, read piece by piece.

    Only classes that are the first of some sample are used. A sample that is not fit for use has arbitrary classes.
    Raises `ConfigError` if there are fewer than k classes, or if not all outputs are selected.
    """
    if len(plan.work.outputs) < plan.shapes.n_outputs:
        raise ConfigError(
            f"baseline.choice=top_k ranks all {plan.shapes.n_outputs} outputs of the model, {len(plan.work.outputs)} "
            "are selected: leave "
            "target.outputs null, or take choice=other_label"
        )
    met = np.unique(np.concatenate([_fit(known(piece)).argmax(1) for piece in plan.tables()]))
    if len(met) < k:
        raise ConfigError(
            f"baseline.choice=top_k with baseline.k={k - 1} needs rows of {k} predicted classes, but the model "
            f"predicts {len(met)} for "
            f"these data: give baseline.k of at most {len(met) - 1}"
            + ("" if len(met) > 1 else ", which is none: take choice=other_label")
        )
    found = np.tile(met[:k], (plan.shapes.n_samples, 1))
    for piece in plan.tables():
        table, rows = known(piece), plan.order[piece.rows.start : piece.rows.stop]
        for some in _some_rows(*table.prediction.shape):
            ranks = np.argsort(-table.prediction[some][:, met], axis=1, kind="stable")[:, :k]
            fit = table.bad[some] == 0
            found[rows[some][fit]] = met[ranks[fit]]
    return found


def _fit(table: Known) -> np.ndarray:
    """Predictions of the samples that are fit for use."""
    return table.prediction[table.bad == 0]


def tables(
    plan: Plan,
    findings: Findings,
    weights: np.ndarray | None,
    known: Callable[[Piece], Known],
    ranked: np.ndarray,
    filtered: bool = False,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Per-sample arrays for the store, some rows at a time, in fold order, with the number of the first row.

    `weight` (n, J) is ``w_n = v_n (y_n - mean y) / (W std y std r)`` with sample weights v, so that ``IGC = sum_n w_n
    IG_n``. `importance` (n) is ``sum_j |w_nj|``, in shares of the whole data set. `stratum` is the place of the sample
    in the order of predictions, in 32 equal parts; -1 if it is not fit for use. If y is a label, `correct` says whether
    the largest output is that of the label, and `confidence` is the probability of the label. If samples are
    `filtered`, `left_out` says why one is (`LEFT_OUT`), and is 0 for the others.
    """
    place = np.full(plan.shapes.n_samples, -1)
    place[ranked] = np.arange(len(ranked)) * N_STRATA // len(ranked)

    size = np.where(findings.total > 0, findings.total, 1.0)

    def weighed(piece: Piece, whole: Known) -> Iterator[tuple[slice, Known, np.ndarray]]:
        for some in _some_rows(*whole.target.shape):
            table, rows = whole.at(some, slice(None)), plan.order[piece.rows.start :][some]
            found = findings.importance_weights(table.target, table.prediction, slice(None), ("ay",)) / size
            if weights is not None:
                found *= weights[rows[: len(found)], None]
            yield some, table, np.where((table.bad == 0)[:, None], found, 0.0)

    total, labelled = 0.0, False
    for piece in plan.tables():
        whole = known(piece)
        every = np.empty(whole.target.shape)
        for some, _, weight in weighed(piece, whole):
            every[some] = weight
        total += float(np.abs(every, out=every).sum())  # of a piece at once, as numpy adds up in pairs
        labelled = labelled or not np.isnan(whole.scores).all()
    for piece in plan.tables():
        for some, table, weight in weighed(piece, known(piece)):
            index, scores = plan.order[piece.rows.start :][some][: len(weight)], table.scores
            importance = np.abs(weight).sum(1) / (total or 1.0)
            found = {"index": index, "weight": weight, "importance": importance, "stratum": place[index]}
            if filtered:
                found |= {"left_out": np.where(table.bad >= WRONG, table.bad, 0)}
            if labelled:
                found |= {"correct": scores[:, 0], "confidence": scores[:, 1]}
            yield piece.rows.start + some.start, found
