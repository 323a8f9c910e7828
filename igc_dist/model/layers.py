"""A model cut in two at a layer: what is below gives the layer's result, what is above takes another in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from igc_dist.model.function import Model
from igc_dist.model.representation import Reading
from igc_dist.model.vision import Vision
from igc_dist.records import ConfigError, ModelError
from igc_dist.tensors import Tensors


class Cut:
    """The model at `layer`, the dotted name of a submodule whose result is one float tensor (n, ...), or comes first.

    Everything that acts on the output must pass the layer, once: `prove` says so. Then the output is a function of the
    layer's result alone, and inputs of a single row, whatever they are, serve to reach it: what is below the layer
    costs next to nothing. Raises `ConfigError` for a layer that does not exist (with near names), and for a compiled
    forward.
    """

    def __init__(self, model: Model, layer: str) -> None:
        inside = f"net.{layer}" if isinstance(model.module, Vision) and not layer.startswith("net.") else layer
        self.reading = Reading(model.module, inside, model._call)
        if self.reading.whole is None:
            raise ConfigError(f"model.layer={layer!r} is no submodule of {type(model.module).__name__}: name one")
        if model.compiled:
            raise ConfigError(f"the layer {layer!r} cannot be replaced in a compiled forward: set model.compiled=false")
        self.layer, self.module = layer, self.reading.whole
        self.rows = 1
        """Rows of the inputs that are below the layer while it is replaced; 0: as many as above it."""

    def below(self, model: Model, inputs: Tensors) -> Float[Tensor, "n ..."]:
        """The result of the layer, of float32 at least. Raises `ModelError` if it is no float tensor of n rows."""
        reading = Reading(self.reading.module, self.reading.layer, model._call)
        model._ungraphed(inputs, model.calling(reading)._forward)
        if len(reading.seen) != 1:
            raise ModelError(
                f"the forward calls the layer {self.layer!r} {len(reading.seen)} times, expected once: name another"
            )
        z = _first(reading.seen[0])
        if not isinstance(z, Tensor) or not z.is_floating_point() or z.shape[:1] != inputs[0].shape[:1]:
            got = f"{z.dtype} of shape {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
            raise ModelError(
                f"the layer {self.layer!r} gives {got} for {len(inputs[0])} inputs, expected a float tensor (n, ...) "
                "alone or first: name another"
            )
        return (z if z.dtype.itemsize == 8 else z.float()).detach()

    def above(self, model: Model, inputs: Tensors) -> Model:
        """The model as a function of the layer's result. `inputs`: any rows of the inputs' types and shapes."""
        few = tuple(torch.zeros_like(x[:1]) for x in inputs)
        call: Callable[..., Any] = model._call

        def called(z: Tensor, **kwargs: Any) -> Any:
            def replaced(module: nn.Module, args: Any, given: Any) -> Any:
                own = _first(given)
                mine = z.to(own.dtype) if isinstance(own, Tensor) else z
                return type(given)((mine, *given[1:])) if isinstance(given, tuple | list) else mine

            hook = self.module.register_forward_hook(replaced)
            try:
                return call(*(x.expand(self.rows or len(z), *x.shape[1:]).clone() for x in few), **kwargs)
            finally:
                hook.remove()

        return model.calling(called)

    def prove(self, model: Model, inputs: Tensors) -> None:
        """Find out how many rows the inputs below need: 1, or all. Raises `ModelError` if not all passes the layer."""
        y, z, above = model.predict(inputs), self.below(model, inputs), self.above(model, inputs)
        tolerance = (1e-9 if y.dtype == torch.float64 else 1e-3) * float(y.abs().nan_to_num().max()) + 1e-12
        for self.rows in (1, 0):
            try:
                found = above.predict((z,))
            except Exception:  # such as a forward that gives the batch the shape of its inputs
                if not self.rows:
                    raise
                continue
            if float((found - y).abs().nan_to_num().max()) <= tolerance:
                return
        raise ModelError(
            f"not all that acts on the outputs passes the layer {self.layer!r}: a connection leads around it, so "
            "attributions to it would not add up. Name a layer that everything passes, such as the block around it"
        )


def _first(given: Any) -> Any:
    """The result itself, or the first of several."""
    return given[0] if isinstance(given, tuple | list) and given else given
