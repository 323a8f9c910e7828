"""The contract of inputs, and the simplest kind: floating-point inputs that are walked unchanged."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from igc_dist.attributors import Attributor, Task
from igc_dist.baselines import Baseline
from igc_dist.data import input_names
from igc_dist.model import Model
from igc_dist.records import DataError
from igc_dist.tensors import Batch, Tensors


@dataclass(frozen=True)
class Walk:
    """What an attributor is given: a function, its inputs (n, *P_i), and baselines (b, n or 1, *P_i)."""

    function: Model
    inputs: Tensors
    baselines: Tensors


class Inputs(ABC):
    """Converts raw inputs of a model to walks, and the results of walks to attributions."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def around(self, model: Model) -> Inputs:
        """The same inputs for another view of the model."""
        view = copy.copy(self)
        view.model = model
        return view

    def n_categorical(self, raw: Tensors) -> int:
        """The number of trailing inputs that are categorical."""
        return 0

    def check(self, few: Batch, baseline: Baseline | None) -> None:
        """Check the data and the settings, before any forward pass.

        Raises `DataError` for inputs of a wrong type, and `ConfigError` for a baseline that cannot be a category.
        """
        self.take(few.inputs, "cpu")

    def take(self, raw: Tensors, device: torch.device | str, what: str = "input") -> Tensors:
        """Raw inputs or baselines on the device: floating point in the run's dtype, categories unchanged.

        Raises `DataError` if an input that must be floating point has another type.
        """
        dtype, m = self.model.dtype(raw), self.n_categorical(raw)
        for name, x in zip(input_names(len(raw)), raw[: len(raw) - m], strict=False):
            if 0 in x.shape[1:]:
                raise DataError(f"{what} {name} has no features (shape {tuple(x.shape[1:])}): leave it out")
            if x.is_complex():
                raise DataError(
                    f"{what} {name} is complex ({x.dtype}), and a path needs real numbers: give its parts, such as "
                    "torch.view_as_real(x), and let the model join them"
                )
            if not x.is_floating_point():
                raise DataError(
                    f"{what} {name} has type {x.dtype}: gradients need floating point; convert it in the data set "
                    "(images: x.float() / 255); "
                    "or, if these are categories, put them last and name the method that embeds them (embedding), or "
                    "say how many there "
                    "are (categories)"
                )
        return tuple(
            x.to(device=device, dtype=dtype if x.is_floating_point() else None, non_blocking=True) for x in raw
        )

    @abstractmethod
    def predict(self, taken: Tensors) -> Float[Tensor, "n J"]:
        """f(x) for all outputs of the model."""

    @abstractmethod
    def walk(self, taken: Tensors, baselines: Tensors) -> Walk:
        """The walk for taken inputs (n, *P) and taken baselines (b, n or 1, *P). There may be no baselines."""

    def features(self, walk: Walk) -> tuple[tuple[int, ...], ...]:
        """The feature shapes of the attributions."""
        return tuple(tuple(x.shape[1:]) for x in walk.inputs)

    def dims(self, shapes: tuple[tuple[int, ...], ...]) -> list[Any] | None:
        """Names of the dimensions of the features, if they are other than those of data. None: the default ones."""
        return None

    def prove(self, taken: Tensors) -> None:  # noqa: B027 - nothing is to be proven where points are what the model is given
        """Check on a probe that the walk ends where the model is evaluated. Raises `ModelError` if not."""

    def attribute(self, attributor: Attributor, task: Task) -> Tensors:
        """Attributions (n, J, *P_i) per feature group, for a task of taken inputs and baselines."""
        return attributed(attributor, self.walk(task.inputs, task.baselines), task)

    def describe(self) -> dict[str, Any]:
        """The settings that identify these inputs, for the spec of a run."""
        return {}


def attributed(attributor: Attributor, walk: Walk, task: Task) -> Tensors:
    """The attributor's result for the task, with this walk in place of the task's own.

    Latents are used if they are fewer than the outputs. Gradients are linear in the output, so attributions of the
    latents z give those of ``f = W z + c``. The exception is an attributor whose walk depends on the output (`linear`
    is false).
    """
    task = replace(task, model=walk.function, inputs=walk.inputs, baselines=walk.baselines)
    latent = walk.function.latent(task.outputs) if attributor.gradients and attributor.linear else None
    if latent is None:
        return attributor.of(task)
    return tuple(
        latent.expand(value) for value in attributor.of(replace(task, model=latent.model, outputs=latent.outputs))
    )


class Plain(Inputs):
    """Floating-point inputs, walked as they are."""

    def predict(self, taken: Tensors) -> Float[Tensor, "n J"]:
        return self.model.predict(taken)

    def walk(self, taken: Tensors, baselines: Tensors) -> Walk:
        return Walk(self.model, taken, baselines)
