"""Integrated Gradients: the path integral of the gradient from a baseline to the input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from igc_dist.attributors.base import Task
from igc_dist.attributors.walk import Fixed, Points, column
from igc_dist.paths import Auto, Design, Grid, Pairs, Path, Pilot, Quadrature, Straight, rule
from igc_dist.records import ConfigError
from igc_dist.tensors import there


@dataclass(frozen=True)
class PathIntegral(Fixed):
    """``IG_i = mean_b integral_0^1 d f(gamma_b(t)) / d x_i * gamma_b'(t)_i dt`` (Sundararajan, Taly, Yan 2017, eq. 1).

    The integral is replaced by `quadrature`, or by the nodes of a `design`; the mean is over the baselines of the
    sample. Complete: ``sum_i IG_i = f(x) - mean_b f(x0_b)`` up to the quadrature error, or on average if the design
    draws nodes.

    `multiply_by_inputs`: False leaves ``gamma_b'(t)_i`` out. The result is the average gradient along the path,
    Captum's local attribution, which is not complete. Raises `ConfigError` for this with a design that pairs samples,
    because such a gradient does not change its sign with the direction.
    """

    quadrature: Quadrature | Auto = field(default_factory=lambda: rule("midpoint", 32))
    path: Path = field(default_factory=Straight)
    design: Design | None = None
    multiply_by_inputs: bool = True

    name = "ig"
    baselines = True
    labels = {  # noqa: RUF012 - a class constant of the base
        "correlation": "igc",
        "autocorrelation": "igac",
        "controlled_correlation": "igc_controlled",
    }

    def __post_init__(self) -> None:
        if not self.multiply_by_inputs and isinstance(self.design, Pairs):
            raise ConfigError(
                f"method.attributor.multiply_by_inputs=false with design={self.design.name}, where one gradient "
                "serves both samples of a "
                "pair: take design=grid, or stratified"
            )

    @property
    def complete(self) -> bool:  # type: ignore[override]
        return self.multiply_by_inputs

    def label(self, result: str) -> str:
        return super().label(result) if self.multiply_by_inputs else f"average_gradient_{result}"

    @property
    def sampling(self) -> Design:
        """The design, by default the whole grid of baselines and nodes."""
        if self.design is not None:
            return self.design
        if isinstance(self.quadrature, Auto):
            raise TypeError("PathIntegral needs a quadrature chosen for the activations: give one, or call suited")
        return Grid(self.quadrature)

    @property
    def unrelaxed(self) -> str:
        return (
            ""
            if self.multiply_by_inputs
            else "without the way to x they are gradients of all categories, of which two are walked"
        )

    @property
    def rule(self) -> str:
        if self.design is not None:
            n = self.design.n_draws if isinstance(self.design, Pairs) else len(self.design)
            return f"{self.design.name}-{n}"
        return "by the activations" if isinstance(self.quadrature, Auto) else self.quadrature.name

    @property
    def doubled(self) -> PathIntegral | None:
        return None if self.design is not None else replace(self, quadrature=self.quadrature.doubled)

    def suited(self, piecewise: Callable[[], bool], pilot: Pilot | None = None) -> PathIntegral:
        if not isinstance(self.quadrature, Auto):
            return self
        if self.design is not None:  # it takes no nodes of the rule
            return replace(self, quadrature=self.quadrature.rule(True))
        return replace(self, quadrature=self.quadrature.chosen(piecewise, pilot))

    @property
    def exact(self) -> bool:
        return self.design is None or self.design.exact

    def points(self, features: Sequence[tuple[int, ...]]) -> int:
        return len(self.sampling)

    def course(self, task: Task) -> Iterator[Points]:
        b_all, k = len(task.baselines[0]), len(self.sampling)
        nodes = torch.from_numpy(self.sampling.nodes(task.address, len(task.inputs[0]), b_all))  # b K n, or 1 K 1
        nodes, weights = nodes.expand(b_all, k, nodes.shape[2]).flatten(0, 1), torch.from_numpy(self.sampling.weights)
        for start in range(0, b_all * k, task.size):
            flat = torch.arange(start, min(start + task.size, b_all * k))
            b, t = there(flat // k, task.inputs[0].device), nodes[flat]
            points, factors = [], []
            for x, x0 in zip(task.inputs, task.baselines, strict=True):
                start_points, ends = x0[b].expand(len(b), *x.shape), x.expand(len(b), *x.shape)
                at = column(t, ends)
                points.append(self.path.point(start_points, ends, at))
                factor = column(task.share * weights[flat % k], ends)
                factors.append(
                    factor * self.path.velocity(start_points, ends, at) if self.multiply_by_inputs else factor
                )
            yield Points(tuple(points), tuple(factors))
