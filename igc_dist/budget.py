"""How far a run goes: folds are added until the result is accurate enough, or the budget is spent.

A fold is a random part of the data, so the first few of them give the same map with larger standard errors. Decisions are made
after a fixed number of folds, from the states of all of them, so they do not depend on the number of ranks; but for a budget of
seconds, of which it is recorded where it ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from igc_dist.plan import Plan
from igc_dist.records import ConfigError
from igc_dist.results import Recipe, Slots
from igc_dist.statistics import tree_sum
from igc_dist.statistics.jackknife import leave_one_out, standard_error

REPLICATES = 4
"""Folds that are drawn twice, if an accuracy is asked for: 1/8 of the work of 32 folds, and enough to see which noise prevails."""


@dataclass
class Budget:  # not frozen: OmegaConf makes the fields of a frozen schema read-only
    """Where to stop; None: no limit. Raises `ConfigError` for values that are not positive.

    `gradients`: gradient evaluations, of all ranks and of replicates together. `seconds`: of the walks, looked at between stages of
    about an eighth of the folds. `rel_se`: the standard error of the map of each output over its size, ``sqrt(sum_i se_i^2 / sum_i
    C_i^2)``, is to be at most this; an output that is constant in the folds so far has none yet. `replicates`: folds that are walked a
    second time with other draws, to tell the noise of baselines and nodes from that of the data; by default 4 with `rel_se`, else 0.
    """

    gradients: int | None = None
    seconds: float | None = None
    rel_se: float | None = None
    replicates: int | None = None

    def __post_init__(self) -> None:
        for name in ("gradients", "seconds", "rel_se"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"budget.{name}={value!r}: give a number above 0, or null for no limit")
        if self.replicates is not None and (
            isinstance(self.replicates, bool) or not isinstance(self.replicates, int) or self.replicates < 0
        ):
            raise ConfigError(f"budget.replicates={self.replicates!r}: give a number of folds, 0 for none, or null")

    @property
    def limited(self) -> bool:
        """Whether folds may be left out."""
        return not self.gradients is self.seconds is self.rel_se is None

    def n_replicates(self, drawn: bool) -> int:
        """Folds to be walked twice, of a run in which something is drawn for each sample."""
        wish = REPLICATES if self.replicates is None and self.rel_se is not None else self.replicates or 0
        return wish if drawn else 0

    def stages(self, plan: Plan, n_replicates: int = 0) -> list[int]:
        """Numbers of folds after which to look. Raises `ConfigError` if two folds are more than the budget of gradients."""
        most = plan.n_folds
        if self.gradients is not None:
            while most and _cost(plan, most, n_replicates) > self.gradients:
                most -= 1
            least = min(2, plan.n_folds)
            if most < least:
                raise ConfigError(
                    f"budget.gradients={self.gradients}: two of {plan.n_folds} folds, the least that has a standard error, are "
                    f"{_cost(plan, least, n_replicates)} gradients. Raise it, or lower what a sample costs (design=pairs)"
                )
        step = max(4, ceil(plan.n_folds / 8))
        looks = range(step, most, step) if self.seconds is not None or self.rel_se is not None else []
        return [*looks, most]


def _cost(plan: Plan, n_folds: int, n_replicates: int) -> int:
    """Gradients of the first folds, of which the last of all may be smaller, and of those that are walked twice."""
    rows = sum(min(n * plan.fold_size, plan.shapes.n_samples) for n in (n_folds, min(n_replicates, n_folds)))
    return plan.gradient_evaluations // plan.shapes.n_samples * rows


def relative_errors(slots: Slots, recipe: Recipe) -> np.ndarray:
    """Standard error over size of the map of each output, (J,): of the first statistic; NaN for an output without a map."""
    whole, without = slots.state(tree_sum), slots.state(leave_one_out)
    squares = _squares(whole, without, slots.state(lambda array: array), recipe)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(squares[0] / squares[1])


def _squares(whole: Any, without: Any, folds: Any, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Sums over all features of the squares of the standard errors and of the values, (J,)."""
    n_groups = recipe.cells.n_groups
    statistic = next(s for s in recipe.statistics if s.jackknifed)
    weight = folds.union(n_groups).scalars[""]
    found, left = (statistic.finalize(state.union(n_groups, groups=statistic.n_groups > 1)) for state in (whole, without))
    errors, values = np.zeros(weight.shape[1]), np.zeros(weight.shape[1])
    for named, others in zip(found.features, left.features, strict=True):
        name = next(iter(named))
        error = standard_error(named[name], others[name], weight)
        errors += (error**2).reshape(len(error), -1).sum(1)
        values += (named[name] ** 2).reshape(len(error), -1).sum(1)
    return errors, values


def draw_share(slots: Slots, again: Slots, recipe: Recipe) -> np.ndarray:
    """Part of the variance of the map of each output that comes from the draws of baselines and nodes, (J,), between 0 and 1.

    `again` are the states of the first R folds with other draws. With each in turn in the place of its twin the result of the R
    folds moves by d, of variance ``2 Var_draw`` of one fold; so ``sum_g d_g^2 / 2`` is the variance by draws of R folds, and R / G of
    it that of all G.
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
    """What to add for a smaller standard error, in a sentence."""
    worst = f"standard errors are {np.nanmax(rel_se):.1%} of the maps at most" if np.isfinite(rel_se).any() else "no standard error"
    if share is None or not np.isfinite(share).any():
        return f"{worst}; set budget.replicates=4 to see whether they come from the data or from the draws"
    part = float(np.nanmean(share))
    more = "samples: all of the data set were used" if whole else "samples (a larger budget)"
    what = "draws (n_draws, baselines)" if part > 0.5 else more
    return f"{worst}; {part:.0%} of their variance comes from the draws of baselines and nodes, the rest from the samples: add {what}"
