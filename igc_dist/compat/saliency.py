"""PAIR's saliency (version 0.2.1): the signatures of its classes over our attributors, for arrays.

Change only the import. `GradientSaliency`, `IntegratedGradients`, `GuidedIG`, `BlurIG` and `XRAI` have `GetMask` and
`GetSmoothedMask`. Some numbers differ because PAIR is wrong, or coarse, there; each class says where.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from igc_dist import attributors, features
from igc_dist.attributors import Gradients, PathIntegral
from igc_dist.compat.called import (
    INPUT_OUTPUT_GRADIENTS,
    SHAPE_ERROR_MESSAGE,
    Called,
    ChannelsLast,
    floating,
    mask,
    start,
)
from igc_dist.paths import rule
from igc_dist.records import ConfigError, DataError
from igc_dist.seeds import generator

__all__ = [
    "INPUT_OUTPUT_GRADIENTS",
    "SHAPE_ERROR_MESSAGE",
    "XRAI",
    "BlurIG",
    "CoreSaliency",
    "GradientSaliency",
    "GuidedIG",
    "IntegratedGradients",
    "XRAIParameters",
]

SIDE = 224
"""Height and width of the image in which XRAI looks for segments."""


class CoreSaliency:
    """What all classes share: masks of noisy inputs."""

    def GetMask(  # noqa: N802 - PAIR's name
        self, x_value: Any, call_model_function: Callable[..., Any], call_model_args: Any = None
    ) -> np.ndarray:
        """The attribution of `x_value`; each class has its own."""
        raise NotImplementedError("GetMask: take a class that has one, such as IntegratedGradients")

    def GetSmoothedMask(  # noqa: N802 - PAIR's name
        self,
        x_value: Any,
        call_model_function: Callable[..., Any],
        call_model_args: Any = None,
        stdev_spread: int | float = 0.15,
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
        x = floating(x_value)
        noise = generator(seed, 0, "saliency.noise").normal(
            0.0, stdev_spread * (x.max() - x.min()), (nsamples, *x.shape)
        )
        masks = np.stack(
            [self.GetMask(x + e, call_model_function, call_model_args, **kwargs) for e in noise.astype(x.dtype)]
        )
        return (masks**2 if magnitude else masks).mean(0)


class GradientSaliency(CoreSaliency):
    """``d f(x) / d x`` of one array."""

    def GetMask(  # noqa: N802
        self, x_value: Any, call_model_function: Callable[..., Any], call_model_args: Any = None
    ) -> np.ndarray:
        """The gradient at `x_value`, by one call. Raises `DataError` for gradients of a wrong shape."""
        return mask(Gradients(), Called(call_model_function, call_model_args), floating(x_value))


class IntegratedGradients(CoreSaliency):
    """``IG = integral_0^1 d f(x0 + t (x - x0)) / d x dt * (x - x0)`` of one array.

    Source: Sundararajan, Taly, Yan 2017, eq. 1. The points are PAIR's: `x_steps` of them from the baseline to x, both
    included. The weights are those of the trapezoidal rule. PAIR's weights are all ``1 / x_steps``; their error is
    ``((g(0) + g(1)) / 2 - integral of g) / x_steps`` for the gradient g, however smooth it is.
    """

    def GetMask(  # noqa: N802
        self,
        x_value: Any,
        call_model_function: Callable[..., Any],
        call_model_args: Any = None,
        x_baseline: Any = None,
        x_steps: int = 25,
        batch_size: int = 1,
    ) -> np.ndarray:
        """The attribution of `x_value`, in its shape, against `x_baseline` (None: zeros).

        It takes ``ceil(x_steps / batch_size)`` calls. Raises `DataError` for gradients or a baseline of a wrong shape,
        and `ConfigError` for `x_steps` below 2: both are `ValueError`s.
        """
        x, model = floating(x_value), Called(call_model_function, call_model_args)
        return mask(PathIntegral(rule("trapezoid", x_steps)), model, x, start(x_baseline, x), batch_size)


class GuidedIG(CoreSaliency):
    """Guided Integrated Gradients of one array (Kapishnikov et al. 2021): `attributors.GuidedIG`.

    The fractions that PAIR finds by a loop are found by sorting, which takes no tolerance.
    """

    def GetMask(  # noqa: N802
        self,
        x_value: Any,
        call_model_function: Callable[..., Any],
        call_model_args: Any = None,
        x_baseline: Any = None,
        x_steps: int = 200,
        fraction: int | float = 0.25,
        max_dist: int | float = 0.02,
    ) -> np.ndarray:
        """The attribution of `x_value`, in its shape, against `x_baseline` (None: zeros), by `x_steps` calls.

        Raises `DataError` for gradients or a baseline of a wrong shape, `ConfigError` for settings out of range.
        """
        x, model = floating(x_value), Called(call_model_function, call_model_args)
        return mask(attributors.GuidedIG(x_steps, fraction, max_dist), model, x, start(x_baseline, x))


class BlurIG(CoreSaliency):
    """Blur Integrated Gradients of an image (H, W, C) (Xu et al. 2020): `attributors.BlurIG`.

    The path is PAIR's: from a blur of `max_sigma` to the image, zeros outside of it, the right rule. The derivative of
    the path is exact, so `grad_step` does not matter. Each point has the weight of its own step; with `sqrt`, PAIR
    gives all points of a batch that of the last one.
    """

    def GetMask(  # noqa: N802
        self,
        x_value: Any,
        call_model_function: Callable[..., Any],
        call_model_args: Any = None,
        max_sigma: int | float = 50,
        steps: int = 100,
        grad_step: int | float = 0.01,
        sqrt: bool = False,
        batch_size: int = 1,
    ) -> np.ndarray:
        """The attribution of `x_value`, in its shape, by ``ceil(steps / batch_size)`` calls.

        Raises `DataError` for gradients of a wrong shape and for an `x_value` that is not (H, W, C), `ConfigError` for
        settings out of range.
        """
        x, model = floating(x_value), ChannelsLast(call_model_function, call_model_args)
        if x.ndim != 3:
            raise DataError(f"x_value has shape {x.shape}: give an image (height, width, channels)")
        sigma, schedule = (max_sigma**0.5, "tau") if sqrt else (max_sigma, "sigma")
        blur = attributors.BlurIG(float(sigma), schedule, "zero", rule("right", steps))
        return np.moveaxis(mask(blur, model, np.moveaxis(x, -1, 0), size=batch_size), 0, -1)


@dataclass
class XRAIParameters:
    """Settings of `XRAI`: nodes of Integrated Gradients, the part of the image to cover, "full" or "fast" order.

    `experimental_params`: segments with fewer new pixels than `min_pixel_diff` are dropped. The settings of what is
    returned beside the mask have no effect, as only the mask is returned.
    """

    steps: int = 100
    area_threshold: int | float = 1.0
    return_baseline_predictions: bool = False
    return_ig_attributions: bool = False
    return_xrai_segments: bool = False
    flatten_xrai_segments: bool = True
    algorithm: str = "full"
    experimental_params: dict[str, int] = field(default_factory=lambda: {"min_pixel_diff": 50})


class XRAI(CoreSaliency):
    """XRAI of an image (H, W, C) or (H, W) (Kapishnikov et al. 2019): `features.XRAI` of Integrated Gradients.

    Segments are found in the image at 224 x 224, as by PAIR, and brought back to its own size. It needs scikit-image:
    ``pip install 'igc-dist[xrai]'``.
    """

    def GetMask(  # noqa: N802
        self,
        x_value: Any,
        call_model_function: Callable[..., Any],
        call_model_args: Any = None,
        baselines: Any = None,
        segments: Any = None,
        base_attribution: Any = None,
        batch_size: int = 1,
        extra_parameters: XRAIParameters | None = None,
    ) -> np.ndarray:
        """The mask (H, W).

        `baselines`: arrays like `x_value`, whose maps are averaged (None: the least and the largest value of the
        image). `segments`: masks (H, W) in place of those that would be found. `base_attribution`: a map like
        `x_value`, in place of Integrated Gradients. Raises `DataError` for shapes that do not fit, `ConfigError` for
        settings out of range and if scikit-image is missing.
        """
        x, given = floating(x_value), extra_parameters or XRAIParameters()
        if given.algorithm not in ("full", "fast"):
            raise ConfigError(f"Unknown algorithm type: {given.algorithm}, choose full or fast")
        if x.ndim not in (2, 3):
            raise DataError(f"x_value has shape {x.shape}: give an image (height, width) or (height, width, channels)")
        fast = given.algorithm == "fast"
        regions = features.XRAI(
            area=1.0 if fast else given.area_threshold,
            min_pixels=given.experimental_params["min_pixel_diff"],
            fast=fast,
        )
        if base_attribution is None:
            starts = [np.full_like(x, x.min()), np.full_like(x, x.max())] if baselines is None else baselines
            one = IntegratedGradients()
            found = [one.GetMask(x, call_model_function, call_model_args, x0, given.steps, batch_size) for x0 in starts]
            a = np.mean(found, axis=0)
        else:
            a = floating(base_attribution, "base_attribution")
            if a.shape != x.shape:
                raise DataError(
                    "The base attribution shape should be the same as the shape of `x_value`. "
                    f"Expected {x.shape}, got {a.shape}"
                )
        image = np.moveaxis(x.reshape(*x.shape[:2], -1), -1, 0).astype(np.float64)
        masks = regions.segments_at(SIDE, image) if segments is None else np.asarray(segments, dtype=bool)
        if masks.ndim != 3 or masks.shape[1:] != x.shape[:2]:
            raise DataError(f"segments have shape {masks.shape}: give masks of {x.shape[:2]}, that of the image")
        return regions.covered((a.max(-1) if a.ndim == 3 else a).astype(np.float64), masks)
