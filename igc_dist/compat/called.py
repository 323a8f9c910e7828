"""Functions that return gradients, as PAIR's classes call them, as models; and the attribution of one array by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from igc_dist.arrays import real
from igc_dist.attributors import Attributor
from igc_dist.model import Model, numerics
from igc_dist.records import ConfigError, DataError
from igc_dist.tensors import Tensors

INPUT_OUTPUT_GRADIENTS = "INPUT_OUTPUT_GRADIENTS"
SHAPE_ERROR_MESSAGE = {
    INPUT_OUTPUT_GRADIENTS: (
        "Expected key INPUT_OUTPUT_GRADIENTS to be the same shape as input x_value_batch - expected {}, actual {}"
    )
}
"""PAIR's words: programs look for them."""


class Called(Model):
    """A function ``(x, call_model_args=, expected_keys=) -> {INPUT_OUTPUT_GRADIENTS: gradients}`` as a model."""

    def __init__(self, function: Callable[..., Any], args: Any) -> None:
        self.function, self.args = function, args

    def asked(self, x: np.ndarray) -> np.ndarray:
        """The gradients at points, in their shape and type."""
        given = self.function(x, call_model_args=self.args, expected_keys=[INPUT_OUTPUT_GRADIENTS])
        grads = real(given[INPUT_OUTPUT_GRADIENTS], INPUT_OUTPUT_GRADIENTS).numpy().astype(x.dtype)
        if grads.shape != x.shape:
            raise DataError(SHAPE_ERROR_MESSAGE[INPUT_OUTPUT_GRADIENTS].format(x.shape, grads.shape))
        return grads

    def gradients(
        self,
        points: Tensors,
        outputs: Sequence[int] | Int64[Tensor, "n L"],
        see: Callable[[Tensor], None] = lambda values: None,
    ) -> Iterator[tuple[int, Tensors]]:
        grads = self.asked(points[0].numpy())
        see(self.predict(points))
        yield 0, (torch.from_numpy(grads),)

    def predict(self, inputs: Tensors) -> Float[Tensor, "n 1"]:
        """Not needed, so not asked for."""
        return inputs[0].new_full((len(inputs[0]), 1), torch.nan)


class ChannelsLast(Called):
    """The same for a function of images (n, H, W, C), where ours have (n, C, H, W)."""

    def asked(self, x: np.ndarray) -> np.ndarray:
        return np.moveaxis(super().asked(np.ascontiguousarray(np.moveaxis(x, 1, -1))), -1, 1)


def mask(walk: Attributor, model: Called, x: np.ndarray, start: np.ndarray | None = None, size: int = 1) -> np.ndarray:
    """The attribution of one array, against a baseline if it needs one, with `size` points to a call.

    It has the numeric context of a run, and so has the function; but the default type is that of the caller.
    """
    if size < 1:
        raise ConfigError(f"batch_size={size}: give an integer of at least 1")
    inputs = (torch.from_numpy(np.array(x[None])),)
    starts = () if start is None else (torch.from_numpy(start[None, None].copy()),)
    with numerics.owned(None):
        return walk.attribute(model, inputs, starts, [0], share=1.0, size=size)[0][0, 0].numpy()


def start(given: Any, x: np.ndarray) -> np.ndarray:
    """A baseline like x; zeros for None."""
    x0 = np.zeros_like(x) if given is None else floating(given, "x_baseline").astype(x.dtype)
    if x0.shape != x.shape:
        raise DataError(f"Baseline size {x0.shape} does not match input size {x.shape}: give one of the same shape")
    return x0


def floating(value: Any, name: str = "x_value") -> np.ndarray:
    """The numbers of an array as floats. Raises `DataError` for complex, missing or no numbers."""
    x = real(value, name).numpy()
    return x if x.dtype.kind == "f" else x.astype(np.float64)
