"""How far a run goes: folds are added until the result is accurate enough, or the budget is spent.

A fold is a random part of the data, so the first few folds give the same map with larger standard errors. Decisions
are made after a fixed number of folds, from the states of all these folds, so they do not depend on the number of
ranks. A budget of seconds is the exception; the store records where it ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from igc_dist.planning.plan import Plan
from igc_dist.records import ConfigError

REPLICATES = 4
"""Folds that are drawn twice if an accuracy is requested: 1/8 of the work of 32 folds, and enough to see which noise
is larger."""


@dataclass
class Budget:  # not frozen: OmegaConf makes the fields of a frozen schema read-only
    """Where to stop; None: no limit. Raises `ConfigError` for values that are not positive.

    `gradients`: gradient evaluations, of all ranks and replicates together. `seconds`: time of the walks, checked
    between stages of about an eighth of the folds. `rel_se`: upper bound for the standard error of the map of each
    output relative to its size, ``sqrt(sum_i se_i^2 / sum_i C_i^2)``; an output that is constant in the folds so far
    has no such error yet. `replicates`: folds that are walked a second time with other draws, to separate the noise of
    baselines and nodes from that of the data; by default 4 with `rel_se`, else 0.
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
        """Number of folds that are walked twice; 0 unless something is `drawn` for each sample."""
        wish = REPLICATES if self.replicates is None and self.rel_se is not None else self.replicates or 0
        return wish if drawn else 0

    def stages(self, plan: Plan, n_replicates: int = 0) -> list[int]:
        """Numbers of folds after which the budget is checked.

        Raises `ConfigError` if two folds exceed the budget of gradients.
        """
        most = plan.n_folds
        if self.gradients is not None:
            while most and _cost(plan, most, n_replicates) > self.gradients:
                most -= 1
            least = min(2, plan.n_folds)
            if most < least:
                raise ConfigError(
                    f"budget.gradients={self.gradients}: two of {plan.n_folds} folds, the least that has a standard "
                    "error, are "
                    f"{_cost(plan, least, n_replicates)} gradients. Raise it, or lower what a sample costs "
                    "(design=pairs)"
                )
        step = max(4, ceil(plan.n_folds / 8))
        looks = range(step, most, step) if self.seconds is not None or self.rel_se is not None else []
        return [*looks, most]


def _cost(plan: Plan, n_folds: int, n_replicates: int) -> int:
    """Gradients of the first folds and of the replicates; the last of all folds may be smaller."""
    rows = sum(min(n * plan.fold_size, plan.shapes.n_samples) for n in (n_folds, min(n_replicates, n_folds)))
    return plan.gradient_evaluations // plan.shapes.n_samples * rows
