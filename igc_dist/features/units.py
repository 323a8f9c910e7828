"""Reducers of the activations of a layer: by token, by head, by unit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from torch import Tensor

from igc_dist.features.names import Names, Shape
from igc_dist.features.reducers import Sums
from igc_dist.records import ConfigError


def _needs(shape: Shape, least: int, name: str) -> None:
    if len(shape) < least:
        raise ConfigError(
            f"{name} are of a layer of tokens (tokens, units), these features have shape {shape}: set model.layer to a "
            "block of a transformer"
        )


@dataclass(frozen=True)
class Tokens(Sums):
    """``R(a)_t = sum_u a_tu``: (tokens, units) to tokens."""

    def shape(self, shape: Shape) -> Shape:
        _needs(shape, 2, "tokens")
        return shape[:-1]

    def dims(self, dims: Names, n_dims: int) -> Names:
        return dims[:-1]

    def groups(self, shape: Shape) -> Int64[np.ndarray, "*P"]:
        places = np.arange(math.prod(shape[:-1]), dtype=np.int64).reshape(*shape[:-1], 1)
        return np.broadcast_to(places, shape)

    def summed(self, a: Float64[Tensor, "n *P"]) -> Float64[Tensor, "n *Q"]:
        return a.sum(-1)


@dataclass(frozen=True)
class Units(Sums):
    """Sums over all places: (tokens, units) to units, (channels, height, width) to channels."""

    def shape(self, shape: Shape) -> Shape:
        if not shape:
            raise ConfigError("units are of features with a dimension: leave the input as it is")
        return (shape[self._axis(shape)],)

    def dims(self, dims: Names, n_dims: int) -> Names:
        return (dims[self._axis(dims)],)

    def groups(self, shape: Shape) -> Int64[np.ndarray, "*P"]:
        axis = self._axis(shape) % len(shape)
        own = np.arange(shape[axis], dtype=np.int64).reshape([-1 if k == axis else 1 for k in range(len(shape))])
        return np.broadcast_to(own, shape)

    def summed(self, a: Float64[Tensor, "n *P"]) -> Float64[Tensor, "n *Q"]:
        axis = self._axis(tuple(a.shape[1:]))
        return a.movedim(axis if axis < 0 else axis + 1, 1).flatten(2).sum(2) if a.ndim > 2 else a

    @staticmethod
    def _axis(shape: tuple[object, ...]) -> int:
        """Units come first where places have height and width, else last."""
        return 0 if len(shape) > 2 else -1


@dataclass(frozen=True)
class Heads(Sums):
    """Sums over tokens, and over the units of each of `n` heads, which lie one after the other: to heads.

    Of a layer whose units are those of heads, as what the projection of an attention is given.
    """

    n: int = 12

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            raise ConfigError(f"reduce: n={self.n!r} heads, give a number of at least 1")

    def shape(self, shape: Shape) -> Shape:
        _needs(shape, 2, "heads")
        if shape[-1] % self.n:
            raise ConfigError(f"{shape[-1]} units are not {self.n} heads of the same size: give their number (n)")
        return (self.n,)

    def dims(self, dims: Names, n_dims: int) -> Names:
        return ("head",)

    def groups(self, shape: Shape) -> Int64[np.ndarray, "*P"]:
        return np.broadcast_to(np.arange(shape[-1], dtype=np.int64) // (shape[-1] // self.n), shape)

    def summed(self, a: Float64[Tensor, "n *P"]) -> Float64[Tensor, "n *Q"]:
        return a.unflatten(-1, (self.n, -1)).movedim(-2, 1).flatten(2).sum(2)
