"""Paths from a baseline to an input: a value and a derivative, ``point(t)`` and ``velocity(t)`` for t in [0, 1].

The path integral of a gradient is ``integral_0^1 grad f(point(t)) * velocity(t) dt`` (feature by feature).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.special import ive
from torch import Tensor

from igc_dist.records import ConfigError


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
        # lerp is exact at both ends, but x0 + t * (x - x0) is not
        return torch.lerp(x0, x, t)

    def velocity(self, x0: Float[Tensor, "*shape"], x: Float[Tensor, "*shape"], t: Tensor) -> Float[Tensor, "*shape"]:
        return x - x0


SCHEDULES = ("sigma", "tau")
BOUNDARIES = ("reflect", "zero")


@dataclass(frozen=True)
class Blurred:
    """``gamma(t) = L(tau(t))``: the input blurred over its last two dimensions.

    The blur is sigma_max at t = 0 and decreases to none at t = 1. ``d L / d tau = 1/2 (second difference of L, along
    either dimension)`` with ``L(0) = x`` is the heat equation on the grid of pixels (Lindeberg 1990). Its kernel is the
    discrete analogue of a Gaussian, of variance ``tau = sigma**2`` in pixels. The kernel and its derivative are known
    in closed form at any tau, so no kernel is cut off, and no finite difference is taken along the path.

    `schedule`: ``sigma = (1 - t) sigma_max`` (Xu, Venugopalan, Sundararajan 2020), or ``tau = (1 - t) sigma_max**2``,
    which passes quickly through the sharp images. `boundary`: edges reflect, so that a constant image does not change
    and borders do not get darker; or everything outside is 0. Raises `ConfigError` for settings out of range.
    """

    sigma_max: float = 50.0
    schedule: str = "sigma"
    boundary: str = "reflect"

    def __post_init__(self) -> None:
        number = self.sigma_max
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < float("inf"):
            raise ConfigError(f"method.attributor.sigma_max={number!r}: give a width in pixels above 0")
        for name, known in (("schedule", SCHEDULES), ("boundary", BOUNDARIES)):
            if getattr(self, name) not in known:
                raise ConfigError(f"method.attributor.{name}={getattr(self, name)!r}: choose one of {', '.join(known)}")

    def at(
        self, x: Float[Tensor, "n *P"], t: Float64[np.ndarray, " c"]
    ) -> tuple[Float[Tensor, "c n *P"], Float[Tensor, "c n *P"]]:
        """gamma and d gamma / d t at c values of t, for n inputs."""
        left = 1 - t
        if self.schedule == "sigma":
            tau, rate = (left * self.sigma_max) ** 2, -2 * left * self.sigma_max**2
        else:
            tau, rate = left * self.sigma_max**2, np.full_like(left, -(self.sigma_max**2))
        # constant inputs are not changed, exactly
        level = (
            (x.amax((-2, -1), keepdim=True) + x.amin((-2, -1), keepdim=True)) / 2
            if self.boundary == "reflect"
            else x.new_zeros(())
        )
        rest = (x - level).reshape(-1, *x.shape[-2:])
        (rows, rows_rate), (columns, columns_rate) = (self._matrices(size, tau, x) for size in x.shape[-2:])
        half, half_rate = (torch.einsum("chk,mkw->cmhw", matrix, rest) for matrix in (rows, rows_rate))
        blurred = torch.einsum("cmhw,cvw->cmhv", half, columns)
        slope = torch.einsum("cmhw,cvw->cmhv", half_rate, columns).add_(
            torch.einsum("cmhw,cvw->cmhv", half, columns_rate)
        )
        slope *= torch.from_numpy(rate).to(x)[:, None, None, None]
        sharp = torch.from_numpy(tau == 0).to(x.device).reshape(-1, *(1,) * x.ndim)
        points = torch.where(sharp, x, blurred.reshape(len(t), *x.shape) + level)
        return points, slope.reshape(len(t), *x.shape)

    def _matrices(
        self, n: int, tau: Float64[np.ndarray, " c"], like: Tensor
    ) -> tuple[Float[Tensor, "c N N"], Float[Tensor, "c N N"]]:
        """The blur of one dimension of n pixels, and its derivative by tau, as matrices."""
        k = np.arange(n)
        if self.boundary == "reflect":
            # cosines are the eigenvectors of the second difference between reflecting edges (Strang 1999, DCT-2)
            basis = np.cos(np.pi / n * (k[:, None] + 0.5) * k)
            basis /= np.linalg.norm(basis, axis=0)
            decay = 1 - np.cos(np.pi / n * k)
            kept = np.exp(-tau[:, None] * decay)[:, None]
            found = (basis * kept) @ basis.T, (basis * (-decay * kept)) @ basis.T
        else:
            kernel = ive(np.arange(n + 1), tau[:, None])  # exp(-tau) I_d(tau) at distance d
            d = abs(k[:, None] - k)
            found = kernel[:, d], (kernel[:, abs(d - 1)] + kernel[:, d + 1]) / 2 - kernel[:, d]
        one, two = (torch.from_numpy(matrix).to(like) for matrix in found)
        return one, two
