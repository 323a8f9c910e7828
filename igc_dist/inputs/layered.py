"""Attributions to the activations of layers: the walk leads from those of the baseline to those of the sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from igc_dist.inputs.base import Inputs, Walk
from igc_dist.model import Cut, Model
from igc_dist.tensors import Tensors

DIMS = {1: ("unit",), 2: ("token", "unit"), 3: ("channel", "height", "width")}
"""Names of the dimensions of activations: of a linear layer, of a transformer, of a convolution."""


class Layered(Inputs):
    """Raw inputs and baselines of any type; points, gradients and attributions are activations z of `layer`.

    ``a = (z(x) - z(x0)) * int_0^1 grad f(z(x0) + t (z(x) - z(x0))) dt``, where f is what is above the layer: Layer
    Integrated Gradients, as Captum's `LayerIntegratedGradients`. Several layers are as several inputs: they move
    together. Everything must pass the layers, so that ``sum a = f(x) - f(x0)``.
    """

    def __init__(self, model: Model, layer: str | Sequence[str]) -> None:
        super().__init__(model)
        self.layer = layer
        self.cut = Cut(model, [layer] if isinstance(layer, str) else layer)

    def take(self, raw: Tensors, device: Any, what: str = "input") -> Tensors:
        """Raw inputs on the device: floating point in the run's dtype, all others unchanged."""
        dtype = self.model.dtype(raw)
        return tuple(x.to(device, dtype if x.is_floating_point() else None, non_blocking=True) for x in raw)

    def predict(self, taken: Tensors) -> Float[Tensor, "n J"]:
        return self.model.predict(taken)

    def prove(self, taken: Tensors) -> None:
        self.cut.prove(self.model, taken)

    def walk(self, taken: Tensors, baselines: Tensors) -> Walk:
        ends, flat = self.cut.below(self.model, taken), tuple(x0.flatten(0, 1) for x0 in baselines)
        starts = (z.unflatten(0, baselines[0].shape[:2]) for z in self.cut.below(self.model, flat)) if baselines else ()
        return Walk(self.cut.above(self.model, taken), ends, tuple(starts))

    def dims(self, shapes: tuple[tuple[int, ...], ...]) -> list[Any] | None:
        return [DIMS.get(len(shape)) for shape in shapes]

    def describe(self) -> dict[str, Any]:
        return {"layer": self.layer if isinstance(self.layer, str) else [*self.layer]}
