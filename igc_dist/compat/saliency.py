"""PAIR's saliency (version 0.2.1): the signatures of its Integrated Gradients, over our path integral, for arrays.

Change only the import. The points are PAIR's: `x_steps` of them from the baseline to x, both included. The weights are
those of the trapezoidal rule. PAIR's weights are all ``1 / x_steps``; their error is ``((g(0) + g(1)) / 2 - integral of
g) / x_steps`` for the gradient g, however smooth it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from igc_dist.attributors import PathIntegral
from igc_dist.model import Model
from igc_dist.paths import rule
from igc_dist.records import ConfigError, DataError
from igc_dist.seeds import generator
from igc_dist.tensors import Tensors

INPUT_OUTPUT_GRADIENTS = "INPUT_OUTPUT_GRADIENTS"


class _Called(Model):
    """A function ``(x, call_model_args=, expected_keys=) -> {INPUT_OUTPUT_GRADIENTS: gradients}`` as a model."""

    def __init__(self, function: Callable[..., Any], args: Any) -> None:
        self.function, self.args = function, args

    def gradients(
        self,
        points: Tensors,
        outputs: Sequence[int] | Int64[Tensor, "n L"],
        see: Callable[[Tensor], None] = lambda values: None,
    ) -> Iterator[tuple[int, Tensors]]:
        x = points[0].numpy()
        given = self.function(x, call_model_args=self.args, expected_keys=[INPUT_OUTPUT_GRADIENTS])
        grads = np.asarray(given[INPUT_OUTPUT_GRADIENTS], dtype=x.dtype)
        if grads.shape != x.shape:
            raise DataError(
                f"{INPUT_OUTPUT_GRADIENTS} must have the shape of x_value_batch: expected {x.shape}, actual "
                f"{grads.shape}"
            )
        see(points[0].new_full((len(x), 1), torch.nan))  # predictions are not needed
        yield 0, (torch.from_numpy(grads),)


class IntegratedGradients:
    """``IG = integral_0^1 d f(x0 + t (x - x0)) / d x dt * (x - x0)`` of one array.

    Source: Sundararajan, Taly, Yan 2017, eq. 1.
    """

    def GetMask(  # noqa: N802 - PAIR's name
        self,
        x_value: np.ndarray,
        call_model_function: Callable[..., Any],
        call_model_args: Any = None,
        x_baseline: np.ndarray | None = None,
        x_steps: int = 25,
        batch_size: int = 1,
    ) -> np.ndarray:
        """The attribution of `x_value`, in its shape, against `x_baseline` (None: zeros).

        It takes ``ceil(x_steps / batch_size)`` calls. Raises `DataError` for gradients or a baseline of a wrong shape,
        and `ConfigError` for `x_steps` below 2: both are `ValueError`s.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: give an integer of at least 1")
        x = _floating(x_value)
        x0 = np.zeros_like(x) if x_baseline is None else np.asarray(x_baseline, dtype=x.dtype)
        if x0.shape != x.shape:
            raise DataError(f"x_baseline has shape {x0.shape}, x_value {x.shape}: give one of the same shape")
        walk, model = PathIntegral(rule("trapezoid", x_steps)), _Called(call_model_function, call_model_args)
        ends = (torch.from_numpy(x[None].copy()),), (torch.from_numpy(x0[None, None].copy()),)
        return walk.attribute(model, *ends, [0], share=1.0, size=batch_size)[0][0, 0].numpy()

    def GetSmoothedMask(  # noqa: N802 - PAIR's name
        self,
        x_value: np.ndarray,
        call_model_function: Callable[..., Any],
        call_model_args: Any = None,
        stdev_spread: float = 0.15,
        nsamples: int = 25,
        magnitude: bool = True,
        *,
        seed: int = 0,
        **kwargs: Any,
    ) -> np.ndarray:
        """The mean of ``GetMask(x + e)``, or with `magnitude` of its square, over `nsamples` draws of e.

        Source: Smilkov et al. 2017. e is normal with a deviation of `stdev_spread` times ``max(x) - min(x)``. `seed` is
        the address of the draws; PAIR draws from numpy's global generator. `kwargs` go to `GetMask`.
        """
        if nsamples < 1:
            raise ConfigError(f"nsamples={nsamples}: give an integer of at least 1")
        x = _floating(x_value)
        noise = generator(seed, 0, "saliency.noise").normal(
            0.0, stdev_spread * (x.max() - x.min()), (nsamples, *x.shape)
        )
        masks = np.stack(
            [self.GetMask(x + e, call_model_function, call_model_args, **kwargs) for e in noise.astype(x.dtype)]
        )
        return (masks**2 if magnitude else masks).mean(0)


def _floating(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x)
    return x if x.dtype.kind == "f" else x.astype(np.float64)
