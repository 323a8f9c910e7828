"""Orthonormal bases of an image, and sums of attributions in them.

In coordinates ``z = T x`` with ``T' T = 1`` a model is ``f(T' z)``, and its attributions ``(T g)_q (T (x - x0))_q``
have the sum of those of the pixels (Parseval). A sum over a band does not say where in the image something is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from igc_dist.features.names import Names, Shape
from igc_dist.features.reducers import Sums
from igc_dist.records import ConfigError
from igc_dist.tensors import there

LUMINANCE = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]]) / np.sqrt([[3], [2], [6]])
"""Rows: luminance, and two directions of chroma. Orthonormal."""


@cache
def cosines(n: int) -> Float64[np.ndarray, "n n"]:
    """The orthonormal DCT-II: row k is ``sqrt((2 - [k = 0]) / n) cos(pi (2 p + 1) k / 2 n)``."""
    k, p = np.arange(n)[:, None], np.arange(n)
    return np.sqrt((2 - (k == 0)) / n) * np.cos(np.pi * (2 * p + 1) * k / (2 * n))


@cache
def haar(n: int) -> Float64[np.ndarray, "n n"]:
    """The orthonormal Haar basis: means of halves, again and again, as long as their number is even; then differences,
    the coarsest first."""
    if n % 2:
        return np.eye(n)
    means, differences = np.kron(np.eye(n // 2), [1, 1]), np.kron(np.eye(n // 2), [1, -1])
    return np.concatenate((haar(n // 2) @ means, differences)) / np.sqrt(2)


@cache
def scales(n: int) -> Int64[np.ndarray, " n"]:
    """The scale of each row of `haar`: 0 for means, 1 for the coarsest differences, and so on."""
    if n % 2:
        return np.zeros(n, np.int64)
    coarse = scales(n // 2)
    return np.concatenate((coarse, np.full(n // 2, coarse.max() + 1)))


BASES: dict[str, Callable[[int], np.ndarray]] = {"dct": cosines, "haar": haar}


@dataclass(frozen=True)
class Basis:
    """An orthonormal basis of images (*lead, C, H, W): `space` is a name of `BASES`, `colour` says whether channels
    become luminance and chroma."""

    space: str | None = None
    colour: bool = False

    def __or__(self, other: Basis) -> Basis:
        return Basis(self.space or other.space, self.colour or other.colour)

    def __bool__(self) -> bool:
        return self.space is not None or self.colour

    def to(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """``T x``."""
        return self._applied(x, lambda rows: rows)

    def back(self, z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """``T' z``."""
        return self._applied(z, lambda rows: rows.mT)

    def _applied(self, x: Tensor, way: Callable[[Tensor], Tensor]) -> Tensor:
        if self.space is not None:
            rows, columns = (_matrix(self.space, n, x.device, x.dtype) for n in x.shape[-2:])
            x = way(rows) @ x @ way(columns).mT
        if self.colour:
            x = (way(_matrix("colour", 3, x.device, x.dtype)) @ x.flatten(-2)).unflatten(-1, x.shape[-2:])
        return x


@cache
def _matrix(name: str, n: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A basis on a device. It is kept, because every forward pass takes it."""
    return there(LUMINANCE if name == "colour" else BASES[name](n), device).to(dtype)


@dataclass(frozen=True)
class Bands(Sums):
    """Sums over bands of the last two dimensions: of radial frequency in the DCT, or of scale in the Haar basis.

    `n`: the number of bands of frequency ``sqrt((k / H)^2 + (l / W)^2) / sqrt 2`` from 0 to 1, all equally wide; the
    first has the mean of the image. Haar: one band for each scale, the coarsest first; `n` is not used.
    """

    basis_name: str = "dct"
    n: int = 8

    basis: ClassVar[Basis]

    def __post_init__(self) -> None:
        if self.basis_name not in BASES:
            raise ConfigError(f"reduce: bands in the basis {self.basis_name!r}: choose one of {', '.join(BASES)}")
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            raise ConfigError(f"reduce: n={self.n!r} bands, give a number of at least 1")
        object.__setattr__(self, "basis", Basis(space=self.basis_name))

    def labels(self, shape: Shape) -> Int64[np.ndarray, "H W"]:
        """The band of each coefficient. Raises `ConfigError` for features that are no image."""
        if len(shape) < 2:
            raise ConfigError(f"bands need features with at least 2 dimensions, these have shape {shape}")
        h, w = shape[-2:]
        if self.basis_name == "haar":
            return np.maximum(scales(h)[:, None], scales(w))
        radius = np.hypot(np.arange(h)[:, None] / h, np.arange(w) / w) / math.sqrt(2)
        return np.minimum((radius * self.n).astype(np.int64), self.n - 1)

    def shape(self, shape: Shape) -> Shape:
        return (*shape[:-2], int(self.labels(shape).max()) + 1)

    def dims(self, dims: Names, n_dims: int) -> Names:
        return (*dims[:-2], "band")

    def groups(self, shape: Shape) -> Int64[np.ndarray, "*P"]:
        labels, lead = self.labels(shape), shape[:-2]
        offsets = np.arange(math.prod(lead)).reshape(*lead, 1, 1) * (int(labels.max()) + 1)
        return np.broadcast_to(offsets + labels, shape)

    def summed(self, a: Float64[Tensor, "n *P"]) -> Float64[Tensor, "n *Q"]:
        labels = self.labels(tuple(a.shape[1:]))
        # a product with 0 and 1 adds in one order on any device
        member = there((labels.reshape(-1)[:, None] == np.arange(labels.max() + 1)).astype(np.float64), a.device)
        return a.flatten(-2) @ member


@dataclass(frozen=True)
class Colour(Sums):
    """Luminance and chroma: channels (R, G, B) to 2, ``(R + G + B) / sqrt 3`` and the sum of two directions across."""

    basis: ClassVar[Basis] = Basis(colour=True)

    def shape(self, shape: Shape) -> Shape:
        if len(shape) != 3 or shape[0] != 3:
            raise ConfigError(f"colour needs images (3, height, width), these features have shape {shape}")
        return (2, *shape[1:])

    def dims(self, dims: Names, n_dims: int) -> Names:
        return ("luminance_chroma", *dims[1:])

    def groups(self, shape: Shape) -> Int64[np.ndarray, "*P"]:
        pixels = np.arange(math.prod(shape[1:])).reshape(1, *shape[1:])
        return np.broadcast_to(pixels + np.array([0, 1, 1]).reshape(3, 1, 1) * pixels.size, shape)

    def summed(self, a: Float64[Tensor, "n *P"]) -> Float64[Tensor, "n *Q"]:
        return torch.stack((a[:, 0], a[:, 1] + a[:, 2]), 1)
