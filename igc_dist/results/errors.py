"""Standard errors of maps during a run, relative to the size of the maps, and the part that comes from draws."""

from __future__ import annotations

from typing import Any

import numpy as np

from igc_dist.results.block import Recipe
from igc_dist.results.exchange import Slots
from igc_dist.statistics import leave_one_out, standard_error, tree_sum


def relative_errors(slots: Slots, recipe: Recipe) -> np.ndarray:
    """Standard error over size of the map of each output, (J,), for the first statistic; NaN where there is no map."""
    whole, without = slots.state(tree_sum), slots.state(leave_one_out)
    squares = _squares(whole, without, slots.state(lambda array: array), recipe)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(squares[0] / squares[1])


def _squares(whole: Any, without: Any, folds: Any, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Sums over all features of the squares of the standard errors and of the values, (J,)."""
    n_groups = recipe.cells.n_groups
    statistic = next(s for s in recipe.statistics if s.jackknifed)
    weight = folds.union(n_groups).scalars[""]
    found, left = (
        statistic.finalize(state.union(n_groups, groups=statistic.n_groups > 1)) for state in (whole, without)
    )
    errors, values = np.zeros(weight.shape[1]), np.zeros(weight.shape[1])
    for named, others in zip(found.features, left.features, strict=True):
        name = next(iter(named))
        error = standard_error(named[name], others[name], weight)
        errors += (error**2).reshape(len(error), -1).sum(1)
        values += (named[name] ** 2).reshape(len(error), -1).sum(1)
    return errors, values


def draw_share(slots: Slots, again: Slots, recipe: Recipe) -> np.ndarray:
    """The part of the variance of each map that comes from draws of baselines and nodes, (J,), between 0 and 1.

    `again` are the states of the first R folds with other draws. If one of these R folds is replaced by its repetition,
    the result of the R folds changes by d, which has the variance ``2 Var_draw`` of one fold. So ``sum_g d_g^2 / 2`` is
    the variance by draws for R folds, and R / G of it is the variance for all G folds.
    """
    n_groups, n = recipe.cells.n_groups, len(again.scalars)
    statistic = next(s for s in recipe.statistics if s.jackknifed)

    def result(change: Any) -> list[np.ndarray]:
        state = change.state(tree_sum).union(n_groups, groups=statistic.n_groups > 1)
        return [next(iter(named.values())) for named in statistic.finalize(state).features]

    first = slots.upto(n)
    base, moved = result(first), np.zeros(first.scalars.shape[-1])
    for fold in range(n):
        for one, two in zip(result(first.swapped(fold, again)), base, strict=True):
            moved += ((one - two) ** 2).reshape(len(one), -1).sum(1) / 2
    total, _ = _squares(slots.state(tree_sum), slots.state(leave_one_out), slots.state(lambda array: array), recipe)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(moved * n / len(slots.scalars) / total, 0.0, 1.0)


def advice(rel_se: np.ndarray, share: np.ndarray | None, whole: bool) -> str:
    """A sentence that says what to increase for a smaller standard error."""
    worst = (
        f"standard errors are {np.nanmax(rel_se):.1%} of the maps at most"
        if np.isfinite(rel_se).any()
        else "no standard error"
    )
    if share is None or not np.isfinite(share).any():
        return f"{worst}; set budget.replicates=4 to see whether they come from the data or from the draws"
    part = float(np.nanmean(share))
    more = "samples: all of the data set were used" if whole else "samples (a larger budget)"
    what = "draws (n_draws, baselines)" if part > 0.5 else more
    return (
        f"{worst}; {part:.0%} of their variance comes from the draws of baselines and nodes, the rest from the "
        f"samples: add {what}"
    )
