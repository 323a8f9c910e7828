"""Walks in forward mode: all outputs at once, one group of features after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64

from igc_dist.attributors.walk import Fixed, Points
from igc_dist.model import Model
from igc_dist.records import Tensors
from igc_dist.seeds import Address


@dataclass(frozen=True, eq=False)
class Forward(Fixed):
    """The reduced attributions of another walk, ``a[n, j, q] = sum_c J_f(point[c, n])_j . (M_q * factor[c, n])``.

    M_q is 1 at the features of group q of one input and 0 elsewhere. One directional derivative gives all outputs, so it costs as many
    as there are groups, where gradients cost as many as there are outputs (Griewank and Walther 2008, section 3.1).

    `groups[i]` numbers the groups of input i, (*P_i); `shapes[i]` is the shape *Q_i that these numbers run through.
    """

    walk: Fixed
    groups: tuple[Int64[np.ndarray, "..."], ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.walk.name

    @property
    def complete(self) -> bool:  # type: ignore[override]
        return self.walk.complete

    @property
    def baselines(self) -> bool:  # type: ignore[override]
        return self.walk.baselines

    @property
    def exact(self) -> bool:
        return self.walk.exact

    def points(self, features: Sequence[tuple[int, ...]]) -> int:
        return self.walk.points(features)

    def course(self, inputs: Tensors, baselines: Tensors, share: float, size: int, address: Address | None) -> Iterator[Points]:
        return self.walk.course(inputs, baselines, share, size, address)

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
        """As the base says, but reduced: (n, J, *Q_i) per input."""
        n = len(inputs[0])
        groups = [torch.from_numpy(own).to(inputs[0].device) for own in self.groups]
        totals = [x.new_zeros(int(np.prod(shape, dtype=np.int64)), n, len(outputs)) for x, shape in zip(inputs, self.shapes, strict=True)]
        for step in self.course(inputs, baselines, share, size, address):
            c, points = len(step.points[0]), tuple(p.flatten(0, 1) for p in step.points)
            for i, (total, own, factor) in enumerate(zip(totals, groups, step.factors, strict=True)):
                for q in range(len(total)):
                    # not a product, as 0 * NaN is NaN
                    tangent = torch.where(own == q, factor, 0.0).expand(step.points[i].shape).flatten(0, 1)
                    total[q] += model.directional(points, i, tangent, outputs).unflatten(0, (c, n)).sum(0)
            watch(c * n)
        return tuple(
            total.permute(1, 2, 0).unflatten(2, shape or (1,)).reshape(n, len(outputs), *shape)
            for total, shape in zip(totals, self.shapes, strict=True)
        )
