"""Linear reducers: sums of features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from igc_dist.arrays import absent, numbers
from igc_dist.features.names import Names, Shape
from igc_dist.records import ConfigError
from igc_dist.tensors import there


class Reducer(ABC):
    """A map of one input's attribution, the same for every output. `linear`: it also preserves the sum."""

    linear: ClassVar[bool] = True

    @abstractmethod
    def shape(self, shape: Shape) -> Shape:
        """The reduced shape *Q of features of shape *P. Raises `ConfigError` with the numbers if they do not fit."""

    @abstractmethod
    def dims(self, dims: Names, n_dims: int) -> Names:
        """Names of the `n_dims` reduced dimensions, from those of the features."""

    @abstractmethod
    def __call__(
        self, values: Float[Tensor, "n J *P"], x: Tensor, segments: Tensor | None = None
    ) -> Float[Tensor, "n J *Q"]:
        """The reduced attributions of n samples; `x` are their raw inputs, `segments` their label maps, if any."""

    def groups(self, shape: Shape) -> Int64[np.ndarray, "*P"] | None:
        """For each feature, the number (from 0) of the reduced feature that it is added to.

        None if the reducer does more than add features.
        """
        return None


class Sums(Reducer):
    """A linear reducer: each reduced feature is a sum of features, formed in float64."""

    def __call__(
        self, values: Float[Tensor, "n J *P"], x: Tensor, segments: Tensor | None = None
    ) -> Float[Tensor, "n J *Q"]:
        # one output at a time, in one buffer: small results between large temporary copies would fragment the heap
        found = values.new_empty(values.shape[1], len(values), *self.shape(tuple(values.shape[2:])))
        a = torch.empty_like(values[:, 0], dtype=torch.float64, memory_format=torch.contiguous_format)
        for j in range(values.shape[1]):
            found[j] = self.summed(a.copy_(values[:, j]))
        return found.transpose(0, 1)

    @abstractmethod
    def summed(self, a: Float64[Tensor, "n *P"]) -> Float64[Tensor, "n *Q"]:
        """The sums for one output."""


@dataclass(frozen=True, eq=False)
class Segments(Sums):
    """``R(a)_q = sum of a_p over the features p with label q``: sums over the regions of a map.

    `labels` are integers from 0 over the last dimensions of the features. Earlier dimensions (channels) are summed as
    well. There are max + 1 segments. Raises `ConfigError` for a negative label: a feature would be missing from the
    sum.
    """

    labels: Any

    def __post_init__(self) -> None:
        labels, missing = numbers(self.labels, "reduce: labels", ConfigError)
        if missing is not None:
            raise ConfigError(absent("reduce: labels", missing))
        if labels.dtype.kind not in "iub" or not labels.size or not labels.ndim:
            raise ConfigError(
                f"reduce: labels of type {labels.dtype} and shape {labels.shape}, expected an array of integers from 0"
            )
        if labels.min() < 0:
            raise ConfigError(
                f"reduce: {int((labels < 0).sum())} labels are negative (the lowest is {labels.min()}): every feature "
                "must belong to a "
                "segment, or the sum is not preserved; give what is left over a label of its own"
            )
        object.__setattr__(self, "labels", labels.astype(np.int64))

    def shape(self, shape: Shape) -> Shape:
        if shape[-self.labels.ndim :] != self.labels.shape:
            raise ConfigError(
                f"labels of shape {self.labels.shape} do not fit the last dimensions of features of shape {shape}"
            )
        return (int(self.labels.max()) + 1,)

    def dims(self, dims: Names, n_dims: int) -> Names:
        return ("segment",)

    def groups(self, shape: Shape) -> Int64[np.ndarray, "*P"]:
        return np.broadcast_to(self.labels, shape)

    def summed(self, a: Float64[Tensor, "n *P"]) -> Float64[Tensor, "n *Q"]:
        labels = there(self.labels, a.device).reshape(-1)
        return by_label(a.reshape(len(a), -1, labels.numel()).sum(1), labels, int(self.labels.max()) + 1)


def by_label(a: Float64[Tensor, "n M"], labels: Int64[Tensor, "*n M"], q: int) -> Float64[Tensor, "n {q}"]:
    """The sum of the values of each label 0 to q - 1; `labels` are the same for all samples, or each has its own."""
    n = len(a)
    # as one long vector: the CPU has a simple loop for it
    index = labels + q * torch.arange(n, device=a.device)[:, None]
    total, index, values = a.new_zeros(n * q), index.reshape(-1), a.reshape(-1)
    # each adds in one order, so with the same bits, on its own kind of device only
    if a.device.type == "cpu":
        total.index_add_(0, index, values)
    else:
        total.index_put_((index,), values, accumulate=True)
    return total.reshape(n, q)


@dataclass(frozen=True)
class Patches(Sums):
    """Sums over patches of `size` (h, w), or h = w, that tile the last two dimensions. The last ones may be smaller."""

    size: Any = 4

    def __post_init__(self) -> None:
        size = (self.size, self.size) if isinstance(self.size, int) else self.size
        if (
            not isinstance(size, list | tuple)
            or len(size) != 2
            or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in size)
        ):
            raise ConfigError(
                f"reduce: patches of size {self.size!r}, expected an integer of at least 1, or two: (height, width)"
            )
        object.__setattr__(self, "size", tuple(size))

    def shape(self, shape: Shape) -> Shape:
        if len(shape) < 2:
            raise ConfigError(
                f"patches of size {self.size} need features with at least 2 dimensions, these have shape {shape}"
            )
        return (*shape[:-2], -(-shape[-2] // self.size[0]), -(-shape[-1] // self.size[1]))

    def dims(self, dims: Names, n_dims: int) -> Names:
        return (*dims[:-2], f"{dims[-2]}_patch", f"{dims[-1]}_patch")

    def groups(self, shape: Shape) -> Int64[np.ndarray, "*P"]:
        *lead, height, width = self.shape(shape)
        rows, columns = (np.arange(extent) // min(s, extent) for s, extent in zip(self.size, shape[-2:], strict=True))
        return (
            np.arange(np.prod(lead, dtype=np.int64)).reshape(*lead, 1, 1) * height * width
            + rows[:, None] * width
            + columns
        )

    def summed(self, a: Float64[Tensor, "n *P"]) -> Float64[Tensor, "n *Q"]:
        (height, width), (h, w) = (
            a.shape[-2:],
            (min(s, extent) for s, extent in zip(self.size, a.shape[-2:], strict=True)),
        )
        padded = torch.nn.functional.pad(a, (0, -width % w, 0, -height % h))
        return padded.unflatten(-2, (-1, h)).unflatten(-1, (-1, w)).sum((-3, -1))


@dataclass(frozen=True)
class Channels(Sums):
    """Sums over the first dimension: (C, H, W) to (H, W)."""

    def shape(self, shape: Shape) -> Shape:
        if not shape:
            raise ConfigError("the input has no feature dimension to sum over: leave it as it is")
        return shape[1:]

    def dims(self, dims: Names, n_dims: int) -> Names:
        return dims[1:]

    def groups(self, shape: Shape) -> Int64[np.ndarray, "*P"]:
        return np.broadcast_to(np.arange(np.prod(shape[1:], dtype=np.int64)).reshape(shape[1:]), shape)

    def summed(self, a: Float64[Tensor, "n *P"]) -> Float64[Tensor, "n *Q"]:
        return a.sum(1)


@dataclass(frozen=True)
class Total(Sums):
    """The sum over all features of the input: the contribution of the whole input."""

    def shape(self, shape: Shape) -> Shape:
        return ()

    def dims(self, dims: Names, n_dims: int) -> Names:
        return ()

    def groups(self, shape: Shape) -> Int64[np.ndarray, "*P"]:
        return np.zeros(shape, np.int64)

    def summed(self, a: Float64[Tensor, "n *P"]) -> Float64[Tensor, "n *Q"]:
        return a.reshape(len(a), -1).sum(1)
