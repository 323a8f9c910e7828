"""Types with tensors that cross two or more wings. Types in `records.py` need no torch, so that commands start fast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from torch import Tensor

Tensors = tuple[Tensor, ...]
"""One tensor per input of the model, batch dimension first."""


def there(values: Any, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """Values of the host, or a tensor, on a device.

    The host does not wait for the copy: a copy that it waits for also waits for all that the device has still to do.
    """
    return torch.as_tensor(values, dtype=dtype).to(device, non_blocking=True)


def floating(*groups: Iterable[Tensor]) -> torch.dtype:
    """float64 if the first group with floating point numbers has no other type, else float32."""
    for tensors in groups:
        kinds = (each.dtype for each in tensors if each.is_floating_point())
        for first in kinds:  # most often it decides: a net has hundreds of parameters
            return first if first == torch.float64 and {*kinds} <= {first} else torch.float32
    return torch.float32


@dataclass(frozen=True)
class Batch:
    """Samples of the data set with their global indices. Targets are raw, as in the data set."""

    index: Int64[np.ndarray, " n"]
    inputs: Tensors
    target: Tensor
    unread: Mapping[int, str] = field(default_factory=dict)
    """Why samples could not be read, by their positions."""
    segments: UInt8[Tensor, "n H W"] | None = None
    """The number of the segment of each pixel, if the run wants it and the batch is one to walk."""

    def first(self, n: int) -> Batch:
        """The first n samples, which were read."""
        segments = None if self.segments is None else self.segments[:n]
        return Batch(self.index[:n], tuple(x[:n] for x in self.inputs), self.target[:n], segments=segments)


@dataclass(frozen=True)
class Attribution:
    """One micro-batch of attributions, averaged over baselines, which the engine gives to statistics.

    `values[i]` is (n, J, *P_i). `weight` is 0 for a sample that is masked for an output. Otherwise it is the sample's
    weight times `share`, the fraction of the baselines in this block, so that blocks of baselines add up to the whole.
    `cell`: the cell of the data set that a sample belongs to, per output.
    """

    values: Tensors
    target: Float64[Tensor, "n J"]
    prediction: Float64[Tensor, "n J"]
    baseline_prediction: Float64[Tensor, "n J"]
    weight: Float64[Tensor, "n J"]
    share: float = 1.0
    cell: Int64[Tensor, "n J"] | None = None
    unreduced: Float64[Tensor, "n J"] | None = None
    """The sum of the features before they were reduced, which a free function need not preserve."""
    baseline: Tensors | None = None
    """The mean baseline of each sample, (n, *P_i), if a statistic needs it."""
    area: Tensors | None = None
    """The area of each feature in each sample, (n, *Q_i), as a part of the image, if features are segments."""
    failed: UInt8[np.ndarray, "n J"] | None = None
    """1 where an attributor with a tolerance did not reach it."""
    evaluations: Int64[np.ndarray, "n J"] | None = None
    """The number of gradients that it used."""

    def total(self) -> Float[Tensor, "n J"]:
        """The sum over all features of all inputs, in float64."""
        # one output at a time, in one buffer: small results between large temporary copies would fragment the heap
        total = torch.zeros_like(self.target)
        for value in self.values:
            a = torch.empty_like(value[:, 0], dtype=total.dtype, memory_format=torch.contiguous_format)
            for j in range(value.shape[1]):
                total[:, j] += a.copy_(value[:, j]).reshape(len(a), a[:1].numel()).sum(1)
        return total

    def without(self, lost: Bool[Tensor, " n"]) -> Attribution:
        """The same with weight 0 for some samples."""
        other = replace(self, weight=torch.where(lost[:, None], 0.0, self.weight))
        other.__dict__["delta"] = self.delta  # which is known, and takes a copy of all attributions
        return other

    @cached_property
    def delta(self) -> Float[Tensor, "n J"]:
        """The completeness residual of each sample, ``sum_i a_i - (f(x) - mean_b f(x0_b))``, in float64.

        It is computed from the features before the reduction.
        """
        total = self.total() if self.unreduced is None else self.unreduced
        return total - (self.prediction - self.baseline_prediction)
