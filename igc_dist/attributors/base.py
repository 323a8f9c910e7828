"""The contract of an attributor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from igc_dist.model import Model
from igc_dist.records import Tensors
from igc_dist.seeds import Address


@runtime_checkable
class Note(Protocol):
    """Takes what an attributor says of the samples of a batch, beside their attributions, by keyword; baselines add to each other.

    `failed`: which samples failed for which output, and `evaluations`, the gradients that each took. `baseline_prediction`:
    what the model predicts at the baselines that the attributor makes itself, times the weight of each.
    """

    def __call__(
        self,
        *,
        failed: Bool[np.ndarray, "n J"] | None = None,
        evaluations: Int64[np.ndarray, "n J"] | None = None,
        baseline_prediction: Float64[Tensor, "n J"] | None = None,
    ) -> None: ...


def silent(**said: Any) -> None:
    """Takes no note."""


@dataclass(frozen=True)
class Price:
    """What the walks from one baseline to one sample cost: rows of forward passes and gradients, for all outputs together and for each.

    `sums`: so many times the attributions of a batch are held beside those that are returned.
    """

    rows: int = 0
    rows_per_output: int = 0
    gradients: int = 0
    gradients_per_output: int = 0
    sums: int = 0


@dataclass(frozen=True)
class Task:
    """What is to be attributed: J outputs of a model to its inputs, for n samples and b of their baselines.

    `inputs[i]` is (n, *P_i); `baselines[i]` is (b, n or 1, *P_i), and there are none for attributors without. `share` is the weight
    1/B of one baseline. A forward pass takes at most `size` points of each sample. `watch(rows)` is called after each forward
    pass of `rows` rows; it may raise to stop. `address` is where random draws are addressed: those that draw need it. `note` takes
    what is to be said beside the attributions.
    """

    model: Model
    inputs: Tensors
    baselines: Tensors
    outputs: Sequence[int]
    share: float
    size: int
    watch: Callable[[int], None] = lambda rows: None
    address: Address | None = None
    note: Note = silent

    @property
    def n(self) -> int:
        """Samples."""
        return len(self.inputs[0])

    def zeros(self) -> Tensors:
        """Where attributions are summed, (J, n, *P_i) per input."""
        return tuple(x.new_zeros(len(self.outputs), *x.shape) for x in self.inputs)

    def alone(self) -> Iterator[Task]:
        """The same for one baseline after the other; itself if there are none."""
        if not self.baselines:
            yield self
        for b in range(len(self.baselines[0]) if self.baselines else 0):
            here = None if self.address is None else replace(self.address, baselines=self.address.baselines[b : b + 1])
            yield replace(self, baselines=tuple(x0[b : b + 1] for x0 in self.baselines), address=here)


class Attributor(ABC):
    """Attributions ``a[n, j, i]`` of a batch of samples: what component i of the input of sample n does for output j.

    `complete`: the sum over features equals ``f(x) - mean_b f(x0_b)``, up to the quadrature error if there is one.
    `baselines`: it compares with baselines; otherwise it is called with none. `gradients`: it takes gradients; otherwise
    its forward passes are all that it costs. `linear`: attributions of ``W f`` are W times those of f, so that those of latents
    may stand for those of the outputs. `exact`: each attribution is what it is called, and not only right on average.
    `raw`: attributions are in the units of the input, so their mean may be far from 0. `certified`: it aims at a goal and
    notes which samples failed to reach it (`Note`). `own_baseline`: the baseline is none of those that it is called with, if with
    any: it makes one of each sample, and notes what the model predicts there. `estimate`: it is called an estimate
    of what `exact` would say, so it may be kept for single samples nevertheless. `held`: points that it holds in float64 for each
    row of a forward pass.
    """

    name: ClassVar[str]
    complete: ClassVar[bool]
    baselines: ClassVar[bool]
    gradients: ClassVar[bool] = True
    linear: ClassVar[bool] = True
    raw: ClassVar[bool] = False
    certified: ClassVar[bool] = False
    own_baseline: ClassVar[bool] = False
    estimate: ClassVar[bool] = False
    held: ClassVar[int] = 0
    labels: ClassVar[dict[str, str]] = {}
    """Names of the results that have one in the literature, by the name that the statistic gives."""

    @property
    def exact(self) -> bool:
        return True

    @property
    def unrelaxed(self) -> str:
        """Why it does not go with categories, which are walked as a mixture of two of them; nothing if it does."""
        return ""

    @property
    def rule(self) -> str:
        """Where gradients are taken, for people; nothing if there is no choice."""
        return ""

    def suited(self, piecewise: Callable[[], bool]) -> Attributor:
        """The attributor with what was left open chosen by the activations; `piecewise()`, whether they are piecewise linear, costs a
        forward pass."""
        return self

    def prove(self, model: Model, inputs: Tensors) -> None:  # noqa: B027 - most walks go through any model
        """Refuse on a probe, before anything is computed, a model that cannot be walked. Raises `ConfigError` or `ModelError`."""

    @abstractmethod
    def points(self, features: Sequence[tuple[int, ...]]) -> int:
        """Points of the walk from one baseline to one input, for inputs of these shapes; 0 if the model is not needed."""

    def price(self, features: Sequence[tuple[int, ...]]) -> Price:
        """What that costs; by default a row of a forward pass for each point, and a gradient there for each output."""
        points = self.points(features)
        return Price(points, gradients_per_output=points if self.gradients else 0)

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
        note: Note = silent,
    ) -> Tensors:
        """What `of` makes of a `Task` of these."""
        return self.of(Task(model, inputs, baselines, outputs, share, size, watch, address, note))

    @abstractmethod
    def of(self, task: Task) -> Tensors:
        """Attributions (n, J, *P_i) per input, summed on the device over this block of baselines."""

    def label(self, result: str) -> str:
        """Name in the store of a statistic's result: "igc" for the correlation of IG, else e.g. "gradient_mean"."""
        return self.labels.get(result, f"{self.name}_{result}")
