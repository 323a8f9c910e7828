"""Gradients at the input, plain and times the input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from igc_dist.attributors.base import Task
from igc_dist.attributors.walk import Fixed, Points


@dataclass(frozen=True)
class Gradients(Fixed):
    """``a_i = d f(x) / d x_i`` (Simonyan, Vedaldi, Zisserman 2013)."""

    name = "gradient"
    complete = False
    baselines = False

    def course(self, task: Task) -> Iterator[Points]:
        yield Points(tuple(x[None] for x in task.inputs), tuple(x.new_ones(()).expand_as(x)[None] for x in task.inputs))


@dataclass(frozen=True)
class GradientXInput(Fixed):
    """``a_i = x_i * d f(x) / d x_i`` (Shrikumar et al. 2016)."""

    name = "gradient_x_input"
    complete = False
    baselines = False

    def course(self, task: Task) -> Iterator[Points]:
        yield Points(tuple(x[None] for x in task.inputs), tuple(x[None] for x in task.inputs))
