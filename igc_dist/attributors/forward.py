"""Walks in forward mode: all outputs at once, one group of features after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int64

from igc_dist.attributors.base import Task
from igc_dist.attributors.walk import Fixed, Points
from igc_dist.tensors import Tensors


@dataclass(frozen=True, eq=False)
class Forward(Fixed):
    """The reduced attributions of another walk, ``a[n, j, q] = sum_c J_f(point[c, n])_j . (M_q * factor[c, n])``.

    M_q is 1 at the features of group q of one input and 0 elsewhere. One directional derivative gives all outputs. So
    the cost is the number of groups, while in reverse mode it is the number of outputs (Griewank and Walther 2008,
    section 3.1).

    `groups[i]` has the group number of each feature of input i, (*P_i); `shapes[i]` is the shape *Q_i of the groups.
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

    @property
    def doubled(self) -> Forward | None:
        walk = self.walk.doubled
        return replace(self, walk=walk) if isinstance(walk, Fixed) else None

    def points(self, features: Sequence[tuple[int, ...]]) -> int:
        return self.walk.points(features)

    def course(self, task: Task) -> Iterator[Points]:
        return self.walk.course(task)

    def of(self, task: Task) -> Tensors:
        """As in the base class, but reduced: (n, J, *Q_i) per input."""
        n = task.n
        groups = [torch.from_numpy(own).to(task.inputs[0].device) for own in self.groups]
        totals = [
            x.new_zeros(int(np.prod(shape, dtype=np.int64)), n, len(task.outputs))
            for x, shape in zip(task.inputs, self.shapes, strict=True)
        ]
        for step in self.course(task):
            c, points = len(step.points[0]), tuple(p.flatten(0, 1) for p in step.points)
            for i, (total, own, factor) in enumerate(zip(totals, groups, step.factors, strict=True)):
                for q in range(len(total)):
                    # not a product, as 0 * NaN is NaN
                    tangent = torch.where(own == q, factor, 0.0).expand(step.points[i].shape).flatten(0, 1)
                    total[q] += task.model.directional(points, i, tangent, task.outputs).unflatten(0, (c, n)).sum(0)
            task.watch(c * n)
        return tuple(
            total.permute(1, 2, 0).unflatten(2, shape or (1,)).reshape(n, len(task.outputs), *shape)
            for total, shape in zip(totals, self.shapes, strict=True)
        )
