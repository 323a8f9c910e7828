"""Blur Integrated Gradients: the path integral of the gradient from the blurred input to the input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from igc_dist.attributors.base import Task
from igc_dist.attributors.walk import Fixed, Points, Step, column
from igc_dist.paths import Auto, Blurred, Pilot, Quadrature, rule
from igc_dist.records import ConfigError, Price
from igc_dist.tensors import Tensors

WIDEST = 50.0
"""Width of the largest blur in the original, in pixels."""


@dataclass(frozen=True)
class BlurIG(Fixed):
    """``a_i = integral_0^1 d f(L(tau(t))) / d x_i * d L(tau(t))_i / d t dt``.

    Source: Xu, Venugopalan, Sundararajan 2020, arXiv:2004.03383.

    L is the input blurred over its last two dimensions, height and width, by `sigma_max` pixels at t = 0, and the input
    itself at t = 1. `schedule` and `boundary` are those of `paths.Blurred`, whose derivative is exact. The integral is
    replaced by `quadrature`. Complete: ``sum_i a_i = f(x) - f(L(sigma_max**2))`` up to the quadrature error. The
    blurred input takes the place of a baseline; f there is noted, and costs a row. Blurs wider than the image change
    little and take nodes from the others, so the default `sigma_max` is half of the longer side, at most 50. A constant
    image has attributions of 0 if edges reflect, because blurring does not change it.

    The original (PAIR) differs: ``boundary="zero"`` and the right rule; its `sqrt` is ``schedule="tau"`` with the root
    of its max_sigma. Raises `ConfigError` for settings out of range, and for inputs of fewer than two dimensions.
    """

    sigma_max: float | None = None
    schedule: str = "sigma"
    boundary: str = "reflect"
    quadrature: Quadrature | Auto = field(default_factory=lambda: rule("midpoint", 64))

    name = "blur_ig"
    complete = True
    baselines = False
    linear = False
    own_baseline = True
    held = 4  # the blur matrices
    labels = {"correlation": "blur_igc"}  # noqa: RUF012 - a class constant of the base

    def __post_init__(self) -> None:
        assert self.path(torch.Size((2, 2)))  # raises for wrong settings

    def path(self, shape: torch.Size) -> Blurred:
        """The path of images of this shape, (..., height, width)."""
        sigma = min(WIDEST, max(shape[-2:]) / 2) if self.sigma_max is None else self.sigma_max
        return Blurred(sigma, self.schedule, self.boundary)

    @property
    def nodes(self) -> Quadrature:
        """The quadrature rule, which must have been chosen."""
        if isinstance(self.quadrature, Auto):
            raise TypeError("BlurIG needs a quadrature chosen for the activations: give one, or call suited")
        return self.quadrature

    @property
    def unrelaxed(self) -> str:
        return "there is nothing to blur between two categories"

    @property
    def rule(self) -> str:
        return "by the activations" if isinstance(self.quadrature, Auto) else self.quadrature.name

    @property
    def doubled(self) -> BlurIG:
        return replace(self, quadrature=self.quadrature.doubled)

    def suited(self, piecewise: Callable[[], bool], pilot: Pilot | None = None) -> BlurIG:
        if isinstance(self.quadrature, Auto):
            return replace(self, quadrature=self.quadrature.chosen(piecewise, pilot))
        return self

    def points(self, features: Sequence[tuple[int, ...]]) -> int:
        for shape in features:
            if len(shape) < 2:
                raise ConfigError(
                    "Blur IG needs inputs of at least two dimensions (..., height, width), got one of shape "
                    f"{tuple(shape)}: "
                    "choose another method, or reshape the input to (1, length) in the data set and back in the model"
                )
        return len(self.nodes)

    def price(self, features: Sequence[tuple[int, ...]]) -> Price:
        points = self.points(features)
        return Price(points + 1, gradients_per_output=points)

    def course(self, task: Task) -> Iterator[Points]:
        for start in range(0, self.points([tuple(x.shape[1:]) for x in task.inputs]), task.size):
            yield self._part(task.inputs, task.share, slice(start, start + task.size))

    def _part(self, inputs: Tensors, share: float, some: slice) -> Points:
        weights = torch.from_numpy(share * self.nodes.weights[some])
        points, factors = [], []
        for x in inputs:
            point, velocity = self.path(x.shape).at(x, self.nodes.nodes[some])
            points.append(point)
            factors.append(velocity.mul_(column(weights, velocity)))
        return Points(tuple(points), tuple(factors))

    def steps(self, task: Task, ends: bool = False) -> Iterator[Step]:
        """As in the base class; first notes the prediction at the blurred input."""
        self.points([tuple(x.shape[1:]) for x in task.inputs])
        blurred = task.model.predict(tuple(self.path(x.shape).at(x, np.zeros(1))[0][0] for x in task.inputs))[
            :, list(task.outputs)
        ]
        task.watch(len(blurred))
        task.note(baseline_prediction=task.share * blurred.double())
        yield from super().steps(task, ends)
