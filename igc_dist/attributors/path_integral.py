"""Integrated Gradients: the path integral of the gradient from a baseline to the input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from igc_dist.attributors.walk import Step, Walk, column
from igc_dist.paths import Path, Straight
from igc_dist.quadrature import Quadrature, rule
from igc_dist.records import Tensors


@dataclass(frozen=True)
class PathIntegral(Walk):
    """``IG_i = mean_b integral_0^1 d f(gamma_b(t)) / d x_i * gamma_b'(t)_i dt`` (Sundararajan, Taly, Yan 2017, eq. 1).

    The integral is replaced by `quadrature`, the mean is over the baselines of the sample. Complete:
    ``sum_i IG_i = f(x) - mean_b f(x0_b)`` up to the quadrature error.
    """

    quadrature: Quadrature = field(default_factory=lambda: rule("midpoint", 32))
    path: Path = field(default_factory=Straight)

    name = "ig"
    complete = True
    baselines = True
    labels = {"correlation": "igc", "autocorrelation": "igac"}  # noqa: RUF012 - a class constant of the base

    def points(self, features: Sequence[tuple[int, ...]]) -> int:
        return len(self.quadrature)

    def steps(self, inputs: Tensors, baselines: Tensors, share: float, size: int) -> Iterator[Step]:
        nodes, weights = torch.from_numpy(self.quadrature.nodes), torch.from_numpy(self.quadrature.weights)
        k = len(nodes)
        walks = len(baselines[0]) * k
        for start in range(0, walks, size):
            flat = torch.arange(start, min(start + size, walks))
            b, t = (flat // k).to(inputs[0].device), nodes[flat % k]
            points, factors = [], []
            for x, x0 in zip(inputs, baselines, strict=True):
                start_points, ends = x0[b].expand(len(b), *x.shape), x.expand(len(b), *x.shape)
                at = column(t, ends)
                points.append(self.path.point(start_points, ends, at))
                factors.append(column(share * weights[flat % k], ends) * self.path.velocity(start_points, ends, at))
            yield Step(tuple(points), tuple(factors))
