"""Steps: how much a map changes when it is made with twice the steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from igc_dist.metrics.base import FOUR, Effort, Maps, Metric, Predict, Subject, whole
from igc_dist.metrics.similarity import spearman


@dataclass(frozen=True)
class Steps(Metric):
    """``|a_2n - a_n|_1 / |a_2n|_1`` of maps with n = `n_steps` and 2 n steps; lower is better.

    It says whether n steps suffice, also of methods whose maps are complete for any n, such as IDGI. The map that is
    scored was made with n steps; that of 2 n is asked of ``explain(x, output, n_steps=2 n)``. In a run n is that of
    the run, and 2 n the same walk in steps of half the size (`Attributor.doubled`): leave `n_steps` None. "_spearman"
    is the rank correlation of both. NaN for a map of zeros.
    """

    name = "steps"
    n_steps: int | None = None

    def __post_init__(self) -> None:
        if self.n_steps is not None:
            whole(self, "n_steps")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"explain"} if self.n_steps else {"explain", "doubled"})

    def effort(self, subject: Subject) -> Effort:
        return Effort(walks=2, held=2 * FOUR * subject.size)

    def __call__(self, predict: Predict, maps: Maps) -> dict[str, Float64[Tensor, "M *T"]]:
        a = maps.values.flatten(1)
        wish = {"n_steps": 2 * self.n_steps} if self.n_steps else {"doubled": True}
        b = predict.explained(maps.x, maps, **wish).flatten(1)
        size = b.abs().sum(1)
        change = torch.where(size > 0, (b - a).abs().sum(1) / size, torch.nan)
        return {"": change, "spearman": spearman(a, b)}
