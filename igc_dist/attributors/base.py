"""The contract of an attributor, and the one loop that walks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from igc_dist.model import Model
from igc_dist.records import Tensors


@dataclass(frozen=True)
class Step:
    """Some points of the walks of n samples, done in one forward pass.

    `points[i]` is (c, n, *P_i); each gradient there is multiplied by `factors[i]`, which broadcasts against it, and
    summed over c into the attribution.
    """

    points: Tensors
    factors: Tensors


class Attributor(ABC):
    """Attributions of a batch of samples: ``a[n, j, i] = sum_c factor[c, n, i] * d f_j(point[c, n]) / d x_i``.

    `complete`: the sum over features equals ``f(x) - mean_b f(x0_b)`` up to quadrature error. `baselines`: walks start
    at baselines; otherwise it is called with none.
    """

    name: ClassVar[str]
    complete: ClassVar[bool]
    baselines: ClassVar[bool]
    labels: ClassVar[dict[str, str]] = {}
    """Names of the results that have one in the literature, by the name that the statistic gives."""

    @property
    def points(self) -> int:
        """Gradient evaluations per (input, baseline, output)."""
        return 1

    @abstractmethod
    def steps(self, inputs: Tensors, baselines: Tensors, share: float, size: int) -> Iterator[Step]:
        """The walks of n samples, at most `size` points at a time.

        `inputs[i]` is (n, *P_i); `baselines[i]` is (b, n or 1, *P_i); `share` is the weight 1/B of one baseline.
        """

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
    ) -> Tensors:
        """Attributions (n, J, *P_i) per input, summed on the device over this block of baselines.

        `watch(rows)` is called after each forward pass of `rows` rows; it may raise to stop.
        """
        n = len(inputs[0])
        totals = tuple(x.new_zeros(len(outputs), *x.shape) for x in inputs)
        for step in self.steps(inputs, baselines, share, size):
            c = len(step.points[0])
            for j, grads in model.gradients(tuple(p.flatten(0, 1) for p in step.points), outputs):
                for total, factor, grad in zip(totals, step.factors, grads, strict=True):
                    grad = grad.unflatten(0, (c, n))
                    total[j].addcmul_(factor[0], grad[0]) if c == 1 else total[j].add_((factor * grad).sum(0))
            watch(c * n)
        return tuple(total.transpose(0, 1) for total in totals)

    def label(self, result: str) -> str:
        """Name in the store of a statistic's result: "igc" for the correlation of IG, else e.g. "gradient_mean"."""
        return self.labels.get(result, f"{self.name}_{result}")


def column(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A vector of c numbers as (c, 1, 1, ...), in the type and on the device of `like`, (c, n, *P)."""
    return values.to(like.dtype).to(like.device).reshape(-1, *(1,) * (like.ndim - 1))
