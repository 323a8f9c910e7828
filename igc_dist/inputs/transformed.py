"""Images that are walked in an orthonormal basis: the model is ``f(T' z)`` of ``z = T x``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor

from igc_dist.baselines import Baseline
from igc_dist.features import Basis
from igc_dist.inputs.base import Inputs, Walk
from igc_dist.model import Model
from igc_dist.records import DataError
from igc_dist.tensors import Batch, Tensors


class Transformed(Inputs):
    """Floating-point images. Raw inputs and baselines are pixels; points, gradients and attributions are coefficients.

    A straight path is straight in either, and sums of attributions are the same (`features.bases`).
    """

    def __init__(self, model: Model, basis: Basis) -> None:
        super().__init__(model)
        self.basis = basis

    def check(self, few: Batch, baseline: Baseline | None) -> None:
        super().check(few, baseline)
        for x in few.inputs:
            if x.ndim < 3 or (self.basis.colour and (x.ndim != 4 or x.shape[1] != 3)):
                raise DataError(
                    f"reduce: bands are of images (height, width) with channels before them, colour of (3, height, "
                    f"width), and an input has shape {tuple(x.shape[1:])}"
                )

    def predict(self, taken: Tensors) -> Float[Tensor, "n J"]:
        return self.model.predict(taken)

    def walk(self, taken: Tensors, baselines: Tensors) -> Walk:
        return Walk(
            self.model.calling(self._called(self.model._call)),
            tuple(map(self.basis.to, taken)),
            tuple(map(self.basis.to, baselines)),
        )

    def _called(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The model's call on coefficients."""
        return lambda *points, **kwargs: call(*map(self.basis.back, points), **kwargs)

    def describe(self) -> dict[str, Any]:
        return {"basis": {"space": self.basis.space, "colour": self.basis.colour}}
