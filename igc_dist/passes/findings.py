"""The results of pass 1, and what designs need of them: weights, strata, importance, correctness, confidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from igc_dist.passes.predict import centre_of
from igc_dist.planning import Plan
from igc_dist.records import ConfigError
from igc_dist.statistics import Centre
from igc_dist.store import Store

N_STRATA = 32
"""Number of strata of the predictions in the store; for baselines it is the number of baselines."""


@dataclass(frozen=True)
class Known:
    """The results of pass 1 for the samples of one fold: tables over its rows and the selected outputs."""

    target: Float64[np.ndarray, "n J"]
    prediction: np.ndarray
    bad: UInt8[np.ndarray, " n"]
    scores: np.ndarray
    """Correctness and confidence, (n, 2); NaN if y is not a label."""

    def at(self, rows: slice | np.ndarray, outputs: slice | np.ndarray) -> Known:
        """Some rows, some outputs. One of them at most is an array of numbers."""
        return Known(self.target[rows, outputs], self.prediction[rows, outputs], self.bad[rows], self.scores[rows])


def of_fold(store: Store, fold: int) -> Known:
    """The tables of pass 1."""
    return Known(*(store.read_own("predict", fold, name) for name in ("target", "prediction", "bad", "scores")))


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
    plan: Plan, means: Float64[np.ndarray, "F 3 J"], weights: np.ndarray | None, known: Callable[[int], Known]
) -> Findings:
    """The findings, from tables read fold by fold. Deviations are computed from sums about the means, in float64."""
    centre, squares, fine = centre_of(means), np.zeros((2, means.shape[2])), []
    for fold in range(plan.n_folds):
        rows, table = plan.order[plan.fold(fold).start : plan.fold(fold).stop], known(fold)
        fit = table.bad == 0
        fine.append(rows[fit])
        own = np.ones(len(rows)) if weights is None else weights[rows]
        weight = np.where(fit[:, None] & ~np.isnan(table.target), own[:, None], 0.0)
        for sums, value, mean in zip(squares, (table.target, table.prediction), (centre.y, centre.r), strict=True):
            sums += (weight * np.where(weight > 0, value - mean, 0.0) ** 2).sum(0)
    total = means[:, 0].sum(0)
    std, mean = np.sqrt(squares / np.where(total > 0, total, 1.0)), np.abs([centre.y, centre.r])
    y_std, r_std = np.where(std <= 1e-13 * mean, 0.0, std)  # a constant may differ from its mean by a few ulp
    return Findings(centre, total, y_std, r_std, np.sort(np.concatenate(fine)))


def by_prediction(plan: Plan, found: Findings, known: Callable[[int], Known]) -> Int64[np.ndarray, " M"]:
    """Indices of the samples that are fit for use in the order of their predictions, read fold by fold.

    One output: by its value. Several outputs: each is standardised; samples are ordered by the output that is largest,
    then by its value. For classes this is the order by predicted class and its margin.
    """
    index, most, size = [], [], []
    for fold in range(plan.n_folds):
        table = known(fold)
        fit = table.bad == 0
        z = (table.prediction[fit] - found.centre.r) / np.where(found.r_std > 0, found.r_std, np.inf)
        index.append(plan.order[plan.fold(fold).start : plan.fold(fold).stop][fit])
        most.append(z.argmax(1))
        size.append(z.max(1))
    return np.concatenate(index)[np.lexsort((np.concatenate(size), np.concatenate(most)))]


def top_classes(plan: Plan, known: Callable[[int], Known], k: int) -> Int64[np.ndarray, "N k"]:
    """The k classes with the largest predictions of each sample, in this order, read fold by fold.

    Only classes that are the first of some sample are used. A sample that is not fit for use has arbitrary classes.
    Raises `ConfigError` if there are fewer than k classes, or if not all outputs are selected.
    """
    if len(plan.work.outputs) < plan.shapes.n_outputs:
        raise ConfigError(
            f"baseline.choice=top_k ranks all {plan.shapes.n_outputs} outputs of the model, {len(plan.work.outputs)} "
            "are selected: leave "
            "target.outputs null, or take choice=other_label"
        )
    fit = [
        (plan.order[plan.fold(fold).start : plan.fold(fold).stop], known(fold).bad == 0) for fold in range(plan.n_folds)
    ]
    met = np.unique(np.concatenate([known(fold).prediction[fine].argmax(1) for fold, (_, fine) in enumerate(fit)]))
    if len(met) < k:
        raise ConfigError(
            f"baseline.choice=top_k with baseline.k={k - 1} needs rows of {k} predicted classes, but the model "
            f"predicts {len(met)} for "
            f"these data: give baseline.k of at most {len(met) - 1}"
            + ("" if len(met) > 1 else ", which is none: take choice=other_label")
        )
    found = np.tile(met[:k], (plan.shapes.n_samples, 1))
    for fold, (rows, fine) in enumerate(fit):
        found[rows[fine]] = met[np.argsort(-known(fold).prediction[fine][:, met], axis=1, kind="stable")[:, :k]]
    return found


def tables(
    plan: Plan, findings: Findings, weights: np.ndarray | None, known: Callable[[int], Known], ranked: np.ndarray
) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
    """Per-sample arrays for the store, a fold at a time, in fold order.

    `weight` (n, J) is ``w_n = v_n (y_n - mean y) / (W std y std r)`` with sample weights v, so that ``IGC = sum_n w_n
    IG_n``. `importance` (n) is ``sum_j |w_nj|``, in shares of the whole data set. `stratum` is the place of the sample
    in the order of predictions, in 32 equal parts; -1 if it is not fit for use. If y is a label, `correct` says whether
    the largest output is that of the label, and `confidence` is the probability of the label.
    """
    place = np.full(plan.shapes.n_samples, -1)
    place[ranked] = np.arange(len(ranked)) * N_STRATA // len(ranked)

    size = np.where(findings.total > 0, findings.total, 1.0)

    def weighed(fold: int) -> tuple[slice, Known, np.ndarray]:
        rows, table = slice(plan.fold(fold).start, plan.fold(fold).stop), known(fold)
        found = findings.importance_weights(table.target, table.prediction, slice(None), ("ay",)) / size
        if weights is not None:
            found *= weights[plan.order[rows], None]
        return rows, table, np.where((table.bad == 0)[:, None], found, 0.0)

    total = sum(float(np.abs(weighed(fold)[2]).sum()) for fold in range(plan.n_folds)) or 1.0
    for rows, table, weight in map(weighed, range(plan.n_folds)):
        index, scores = plan.order[rows], table.scores
        found = {"index": index, "weight": weight, "importance": np.abs(weight).sum(1) / total, "stratum": place[index]}
        if not np.isnan(scores).all():
            found |= {"correct": scores[:, 0], "confidence": scores[:, 1]}
        yield rows, found
