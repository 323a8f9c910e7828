"""Attributors that sum gradients, and the one loop that walks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from igc_dist.attributors.base import Attributor
from igc_dist.model import Model
from igc_dist.records import Tensors
from igc_dist.seeds import Address


@dataclass(frozen=True)
class Step:
    """Some points of the walks of n samples, done in one forward pass.

    `points[i]` is (c, n, *P_i); each gradient there is multiplied by `factors[i]`, which broadcasts against it, and
    summed over c into the attribution.
    """

    points: Tensors
    factors: Tensors


class Walk(Attributor):
    """Sums of gradients: ``a[n, j, i] = sum_c factor[c, n, i] * d f_j(point[c, n]) / d x_i``."""

    def points(self, features: Sequence[tuple[int, ...]]) -> int:
        return 1

    @abstractmethod
    def steps(self, inputs: Tensors, baselines: Tensors, share: float, size: int, address: Address | None) -> Iterator[Step]:
        """The walks of n samples, at most `size` points at a time; arguments as in `attribute`."""

    def attribute(
        self,
        model: Model,
        inputs: Tensors,
        baselines: Tensors,
        outputs: Sequence[int],
        *,
        share: float,
        size: int,
        watch: Callable[[int], None] = lambda rows: None,
        address: Address | None = None,
    ) -> Tensors:
        n = len(inputs[0])
        totals = tuple(x.new_zeros(len(outputs), *x.shape) for x in inputs)
        for step in self.steps(inputs, baselines, share, size, address):
            c = len(step.points[0])
            for j, grads in model.gradients(tuple(p.flatten(0, 1) for p in step.points), outputs):
                for total, factor, grad in zip(totals, step.factors, grads, strict=True):
                    grad = grad.unflatten(0, (c, n))
                    total[j].addcmul_(factor[0], grad[0]) if c == 1 else total[j].add_((factor * grad).sum(0))
            watch(c * n)
        return tuple(total.transpose(0, 1) for total in totals)


def column(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Numbers (c,), or (c, n), as (c, 1, 1, ...) or (c, n, 1, ...), in the type and on the device of `like`, (c, n, *P)."""
    return values.to(like.dtype).to(like.device).reshape(*values.shape, *(1,) * (like.ndim - values.ndim))
