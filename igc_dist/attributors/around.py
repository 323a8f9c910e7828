"""Attributors that wrap another attributor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from igc_dist.attributors.base import Attributor
from igc_dist.model import Model
from igc_dist.paths import Pilot
from igc_dist.tensors import Tensors


class Around(Attributor):
    """An attributor with the properties of the `attributor` inside, except those that a subclass overrides."""

    attributor: Attributor

    @property
    def baselines(self) -> bool:  # type: ignore[override]
        return self.attributor.baselines

    @property
    def gradients(self) -> bool:  # type: ignore[override]
        return self.attributor.gradients

    @property
    def certified(self) -> bool:  # type: ignore[override]
        return self.attributor.certified

    @property
    def own_baseline(self) -> bool:  # type: ignore[override]
        return self.attributor.own_baseline

    @property
    def estimate(self) -> bool:  # type: ignore[override]
        return self.attributor.estimate

    @property
    def exact(self) -> bool:
        return self.attributor.exact

    @property
    def unrelaxed(self) -> str:
        return self.attributor.unrelaxed

    @property
    def rule(self) -> str:
        return self.attributor.rule

    @property
    def doubled(self) -> Any:
        inner = self.attributor.doubled
        return None if inner is None else replace(self, attributor=inner)  # type: ignore[type-var]

    def suited(self, piecewise: Callable[[], bool], pilot: Pilot | None = None) -> Any:
        return replace(self, attributor=self.attributor.suited(piecewise, pilot))  # type: ignore[type-var]

    def prove(self, model: Model, inputs: Tensors) -> None:
        self.attributor.prove(model, inputs)

    def points(self, features: Sequence[tuple[int, ...]]) -> int:
        return self.attributor.points(features)
