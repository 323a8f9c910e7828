"""The contract of inputs, and those that need nothing: floating point, walked as it is."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from igc_dist.attributors import Attributor
from igc_dist.baselines import Baseline
from igc_dist.data import input_names
from igc_dist.model import Model
from igc_dist.records import Batch, DataError, Tensors


@dataclass(frozen=True)
class Walk:
    """What an attributor is given: a function, its inputs (n, *P_i), and baselines (b, n or 1, *P_i)."""

    function: Model
    inputs: Tensors
    baselines: Tensors


class Inputs(ABC):
    """The way from raw inputs to attributions, around a model."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def around(self, model: Model) -> Inputs:
        """The same around another view of the model."""
        view = copy.copy(self)
        view.model = model
        return view

    def n_categorical(self, raw: Tensors) -> int:
        """How many trailing inputs are categorical."""
        return 0

    def check(self, few: Batch, baseline: Baseline | None) -> None:
        """What data and settings alone can refuse, before any forward pass.

        Raises `DataError` for inputs of a wrong type; `ConfigError` for a baseline that cannot be a category.
        """
        self.take(few.inputs, "cpu")

    def take(self, raw: Tensors, device: torch.device | str, what: str = "input") -> Tensors:
        """Raw inputs or baselines on the device: floating point in the run's dtype, categories as they are.

        Raises `DataError` for another type where floating point is needed.
        """
        dtype, m = self.model.dtype(raw), self.n_categorical(raw)
        for name, x in zip(input_names(len(raw)), raw[: len(raw) - m], strict=False):
            if not x.is_floating_point():
                raise DataError(
                    f"{what} {name} has type {x.dtype}: gradients need floating point; convert it in the data set "
                    "(images: x.float() / 255); "
                    "or, if these are categories, put them last and name the method that embeds them (embedding), or say how many there "
                    "are (categories)"
                )
        return tuple(x.to(device=device, dtype=dtype if x.is_floating_point() else None, non_blocking=True) for x in raw)

    @abstractmethod
    def predict(self, taken: Tensors) -> Float[Tensor, "n J"]:
        """f(x) for all outputs of the model."""

    @abstractmethod
    def walk(self, taken: Tensors, baselines: Tensors) -> Walk:
        """The walk for taken inputs (n, *P) and taken baselines (b, n or 1, *P), or no baselines."""

    def features(self, walk: Walk) -> tuple[tuple[int, ...], ...]:
        """Feature shapes of the attributions."""
        return tuple(tuple(x.shape[1:]) for x in walk.inputs)

    def prove(self, taken: Tensors) -> None:  # noqa: B027 - nothing is to be proven where points are what the model is given
        """Check on a probe that the walk ends where the model is evaluated. Raises `ModelError` if not."""

    def attribute(
        self,
        attributor: Attributor,
        taken: Tensors,
        baselines: Tensors,
        outputs: Sequence[int],
        *,
        share: float,
        size: int,
        watch: Callable[[int], None] = lambda rows: None,
        address: Any = None,
    ) -> Tensors:
        """Attributions (n, J, *P_i) per feature group; arguments as those of `Attributor.attribute`, with taken inputs."""
        return attributed(attributor, self.walk(taken, baselines), outputs, share=share, size=size, watch=watch, address=address)

    def describe(self) -> dict[str, Any]:
        """What identifies it, for the spec of a run."""
        return {}


def attributed(attributor: Attributor, walk: Walk, outputs: Sequence[int], *, address: Any, **keywords: Any) -> Tensors:
    """One call of the attributor, through the latents where these are fewer than the outputs.

    Gradients are linear in the output, so attributions of the latents z give those of ``f = W z + c``, unless the
    attributor says that its walk depends on the output (`linear`).
    """
    if address is not None:
        keywords["address"] = address
    latent = walk.function.latent(outputs) if attributor.gradients and attributor.linear else None
    if latent is None:
        return attributor.attribute(walk.function, walk.inputs, walk.baselines, outputs, **keywords)
    values = attributor.attribute(latent.model, walk.inputs, walk.baselines, latent.outputs, **keywords)
    return tuple(latent.expand(value) for value in values)


class Plain(Inputs):
    """Floating-point inputs, walked as they are."""

    def predict(self, taken: Tensors) -> Float[Tensor, "n J"]:
        return self.model.predict(taken)

    def walk(self, taken: Tensors, baselines: Tensors) -> Walk:
        return Walk(self.model, taken, baselines)
