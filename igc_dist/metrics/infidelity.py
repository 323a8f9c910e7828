"""Infidelity: how far a map is from the change of the model under a perturbation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from igc_dist.metrics.base import FOUR, Effort, Maps, Metric, Predict, Subject, check_of, choice, whole
from igc_dist.records import ConfigError
from igc_dist.seeds import generator

PERTURBATIONS = ("noise", "baseline")


@dataclass(frozen=True)
class Infidelity(Metric):
    """``mean_I (<I, g> - (f(x) - f(x - I)))^2`` over `draws` perturbations I; lower is better.

    `perturbation`: "noise", I is normal noise of standard deviation `noise`; "baseline", ``I = x - x0 + noise``. With
    `multiply_by_inputs`, for maps such as IG that have the factor ``x - x0``, ``g = a / (x - x0)``, and ``g = a`` where
    that is 0; else g is the map. `scaled`: g is first scaled by the best factor,
    ``E[<I, g> (f(x) - f(x - I))] / E[<I, g>^2]``. Each sample has its own draws, the same for all of its maps.

    Source: Yeh et al. 2019, arXiv:1901.09392.
    """

    name = "infidelity"
    draws: int = 10
    perturbation: str = "noise"
    noise: float = 0.1
    of: str = "logit"
    multiply_by_inputs: bool = True
    scaled: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        choice(self, "perturbation", PERTURBATIONS)
        whole(self, "draws")
        if not self.noise >= 0 or (self.noise == 0 and self.perturbation == "noise"):
            raise ConfigError(f"infidelity: noise={self.noise!r}, give a number above 0")

    @property
    def needs(self) -> frozenset[str]:
        needed = self.multiply_by_inputs or self.perturbation == "baseline"
        return frozenset({"baseline"} if needed else ())

    def check(self, subject: Subject) -> None:
        check_of(self, self.of, subject)

    def effort(self, subject: Subject) -> Effort:
        return Effort(1 + self.draws, held=FOUR * subject.size, row=FOUR * subject.size)

    def __call__(self, predict: Predict, maps: Maps) -> dict[str, Float64[Tensor, "M *T"]]:
        x, g = maps.x[:, None], maps.values
        if self.multiply_by_inputs:
            assert maps.baseline is not None  # `needs` says so
            step = (maps.x - maps.baseline).double()
            g = g / torch.where(step == 0, 1.0, step)

        def perturbed(m: slice, t: slice) -> Float[Tensor, "m t *P"]:
            samples, draws = maps.sample[m].tolist(), range(self.draws)[t]
            noise = np.stack([[self._noise(n, draw, maps.x.shape[1:]) for draw in draws] for n in samples])
            moved = torch.as_tensor(noise).to(maps.x)
            return moved if self.perturbation == "noise" else moved + (x[m] - maps.baseline[m, None])  # type: ignore[index]

        sums = g.new_empty(len(maps), self.draws)

        def made(m: slice, t: slice) -> Float[Tensor, "m t *P"]:
            moved = perturbed(m, t)
            sums[m, t] = (moved.double() * g[m, None]).flatten(2).sum(2)
            return x[m] - moved

        after = predict.grid(self.of, maps.output, self.draws, made)
        change = predict(self.of, maps.output, lambda rows: maps.x[rows])[:, None] - after
        if self.scaled:
            size = sums.square().mean(1, keepdim=True)
            sums = sums * (sums * change).mean(1, keepdim=True) / torch.where(size == 0, 1.0, size)
        return {"": (sums - change).square().mean(1)}

    def _noise(self, sample: int, draw: int, shape: torch.Size) -> Float64[np.ndarray, "*P"]:
        return self.noise * generator(self.seed, sample, self.name, draw).standard_normal(shape)
