"""A model cut in two at layers: what is below gives their results, what is above takes others in their place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from igc_dist.model.function import Model
from igc_dist.model.representation import Reading
from igc_dist.model.vision import Vision
from igc_dist.records import ConfigError, ModelError
from igc_dist.tensors import Tensors


class Cut:
    """The model at `layers`, the dotted names of submodules whose result is one float tensor (n, ...), or comes first.

    Everything that acts on the output must pass the layers, once: `prove` says so. Then the output is a function of
    their results alone, and inputs of a single row, whatever they are, serve to reach them: what is below the layers
    costs next to nothing. Raises `ConfigError` for a layer that does not exist (with near names), or is named twice,
    and for a compiled forward.
    """

    def __init__(self, model: Model, layers: Sequence[str]) -> None:
        if not layers or len(set(layers)) < len(layers):
            raise ConfigError(f"model.layer={[*layers]}: name a layer, or several, each once")
        wrapped = isinstance(model.module, Vision)
        inside = [f"net.{name}" if wrapped and not name.startswith("net.") else name for name in layers]
        self.readings = [Reading(model.module, name, model._call) for name in inside]
        self.modules: list[nn.Module] = []
        for name, reading in zip(layers, self.readings, strict=True):
            if reading.whole is None:
                raise ConfigError(f"model.layer={name!r} is no submodule of {type(model.module).__name__}: name one")
            self.modules.append(reading.whole)
        self.name = " and ".join(map(repr, layers))
        if model.compiled:
            raise ConfigError(
                f"the layer {self.name} cannot be replaced in a compiled forward: set model.compiled=false"
            )
        self.rows = 1
        """Rows of the inputs that are below the layers while these are replaced; 0: as many as above them."""

    def below(self, model: Model, inputs: Tensors) -> Tensors:
        """The results of the layers, of float32 at least. Raises `ModelError` if one is no float tensor of n rows."""
        readings, call = [], model._call
        for reading in self.readings:  # each reads while the others run
            readings.append(call := Reading(reading.module, reading.layer, call))
        model._ungraphed(inputs, model.calling(call)._forward)
        return tuple(_result(reading, len(inputs[0])) for reading in readings)

    def above(self, model: Model, inputs: Tensors) -> Model:
        """The model as a function of the layers' results. `inputs`: any rows of the inputs' types and shapes."""
        few = tuple(torch.zeros_like(x[:1]) for x in inputs)
        call: Callable[..., Any] = model._call

        def called(*results: Tensor, **kwargs: Any) -> Any:
            with ExitStack() as hooks:
                for module, z in zip(self.modules, results, strict=True):
                    hooks.callback(module.register_forward_hook(partial(_replaced, z)).remove)
                rows = self.rows or len(results[0])
                return call(*(x.expand(rows, *x.shape[1:]).clone() for x in few), **kwargs)

        return model.calling(called)

    def prove(self, model: Model, inputs: Tensors) -> None:
        """Find out how many rows the inputs below need: 1, or all. Raises `ModelError` if not all passes the layers."""
        y, results, above = model.predict(inputs), self.below(model, inputs), self.above(model, inputs)
        tolerance = (1e-9 if y.dtype == torch.float64 else 1e-3) * float(y.abs().nan_to_num().max()) + 1e-12
        for self.rows in (1, 0):
            try:
                found = above.predict(results)
            except Exception:  # such as a forward that gives the batch the shape of its inputs
                if not self.rows:
                    raise
                continue
            if float((found - y).abs().nan_to_num().max()) <= tolerance:
                return
        raise ModelError(
            f"not all that acts on the outputs passes the layer {self.name}: a connection leads around it, so "
            "attributions to it would not add up. Name a layer that everything passes, such as the block around it, "
            "or all layers that it passes"
        )


def _result(reading: Reading, n: int) -> Tensor:
    """What a layer gave for n rows."""
    if len(reading.seen) != 1:
        raise ModelError(
            f"the forward calls the layer {reading.layer!r} {len(reading.seen)} times, expected once: name another"
        )
    z = _first(reading.seen[0])
    if not isinstance(z, Tensor) or not z.is_floating_point() or z.shape[:1] != (n,):
        got = f"{z.dtype} of shape {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
        raise ModelError(
            f"the layer {reading.layer!r} gives {got} for {n} inputs, expected a float tensor (n, ...) alone or first: "
            "name another"
        )
    return (z if z.dtype.itemsize == 8 else z.float()).detach()


def _replaced(z: Tensor, module: nn.Module, args: Any, given: Any) -> Any:
    """The result of a layer with `z` in its place."""
    own = _first(given)
    mine = z.to(own.dtype) if isinstance(own, Tensor) else z
    return type(given)((mine, *given[1:])) if isinstance(given, tuple | list) else mine


def _first(given: Any) -> Any:
    """The result itself, or the first of several."""
    return given[0] if isinstance(given, tuple | list) and given else given
