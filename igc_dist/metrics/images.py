"""Metrics that take images as people see them: 8 bits per channel, as files hold them."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from igc_dist.metrics.base import Metric, Subject
from igc_dist.records import ConfigError, DataError

OUTSIDE = 0.01
"""How far a channel may lie outside of [0, 1]: rounding of floats, not another scale."""


@dataclass(frozen=True)
class OfImages(Metric, ABC):
    """A metric of images whose channels are ``x * std + mean`` in [0, 1]: numbers, or one for each channel.

    `mean`, `std`: what inputs were standardised with; 0 and 1 for inputs that are in [0, 1] themselves.
    """

    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0

    def check(self, subject: Subject) -> None:
        if len(subject.shape) != 3 or subject.shape[0] not in (1, 3) or min(subject.shape[1:]) < 2:
            raise ConfigError(
                f"{self.name} needs images (channels, height, width) of 1 or 3 channels, and samples have shape "
                f"{subject.shape}"
            )
        for field in ("mean", "std"):
            if np.size(getattr(self, field)) not in (1, subject.shape[0]):
                raise ConfigError(f"{self.name}: {field} has {np.size(getattr(self, field))} numbers for "
                                  f"{subject.shape[0]} channels: give one, or one for each")  # fmt: skip

    def pixels(self, x: Float[Tensor, "M C H W"]) -> UInt8[np.ndarray, "M H W C"]:
        """Inputs as images. Raises `DataError` if they are not in the range of `mean` and `std`."""
        mean, std = (np.reshape(np.asarray(v, np.float64), -1) for v in (self.mean, self.std))
        z = x.double().cpu().numpy().transpose(0, 2, 3, 1) * std + mean
        if len(z) and not (z.min() >= -OUTSIDE and z.max() <= 1 + OUTSIDE):
            raise DataError(
                f"{self.name} takes images, and x * std + mean goes from {z.min():.3g} to {z.max():.3g}, not from 0 to "
                "1: give the mean and std that inputs were standardised with, as in "
                f"{type(self).__name__}(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))"
            )
        return np.rint(z.clip(0, 1) * 255).astype(np.uint8)

    def inputs(self, pixels: UInt8[np.ndarray, "M H W C"], like: Float[Tensor, "*P"]) -> Float[Tensor, "M C H W"]:
        """Images as the model gets them, on the device and in the type of `like`."""
        mean, std = (np.reshape(np.asarray(v, np.float64), -1) for v in (self.mean, self.std))
        z = (pixels / 255 - mean) / std
        return torch.as_tensor(np.ascontiguousarray(z.transpose(0, 3, 1, 2))).to(like)
