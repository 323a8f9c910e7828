"""Paths from a baseline to an input: a value and a derivative, ``point(t)`` and ``velocity(t)`` for t in [0, 1].

The path integral of a gradient is ``integral_0^1 grad f(point(t)) * velocity(t) dt`` (feature by feature).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


class Path(ABC):
    """A path per sample. `x0`, `x` are (c, n, *P); `t` broadcasts against them."""

    @abstractmethod
    def point(self, x0: Float[Tensor, "*shape"], x: Float[Tensor, "*shape"], t: Tensor) -> Float[Tensor, "*shape"]:
        """gamma(t), with gamma(0) = x0 and gamma(1) = x exactly."""

    @abstractmethod
    def velocity(self, x0: Float[Tensor, "*shape"], x: Float[Tensor, "*shape"], t: Tensor) -> Float[Tensor, "*shape"]:
        """d gamma / d t."""


@dataclass(frozen=True)
class Straight(Path):
    """``gamma(t) = x0 + t (x - x0)`` (Sundararajan, Taly, Yan 2017)."""

    def point(self, x0: Float[Tensor, "*shape"], x: Float[Tensor, "*shape"], t: Tensor) -> Float[Tensor, "*shape"]:
        # lerp is exact at both ends, x0 + t * (x - x0) is not
        return torch.lerp(x0, x, t)

    def velocity(self, x0: Float[Tensor, "*shape"], x: Float[Tensor, "*shape"], t: Tensor) -> Float[Tensor, "*shape"]:
        return x - x0
