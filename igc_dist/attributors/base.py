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
from igc_dist.paths import Pilot
from igc_dist.records import Price
from igc_dist.seeds import Address
from igc_dist.tensors import Tensors


@runtime_checkable
class Note(Protocol):
    """Receives notes about the samples of a batch, beside their attributions, by keyword. Notes of baselines add up.

    `failed`: which samples failed for which output; `evaluations`: the gradients that each took. `baseline_prediction`:
    the prediction of the model at baselines that the attributor makes itself, times the weight of each.
    """

    def __call__(
        self,
        *,
        failed: Bool[np.ndarray, "n J"] | None = None,
        evaluations: Int64[np.ndarray, "n J"] | None = None,
        baseline_prediction: Float64[Tensor, "n J"] | None = None,
    ) -> None: ...


def silent(**said: Any) -> None:
    """Ignores notes."""


@dataclass(frozen=True)
class Task:
    """One attribution task: J outputs of a model to its inputs, for n samples and b of their baselines.

    `inputs[i]` is (n, *P_i); `baselines[i]` is (b, n or 1, *P_i), and empty for attributors without baselines. `share`
    is the weight 1/B of one baseline. A forward pass takes at most `size` points of each sample. `watch(rows)` is
    called after each forward pass of `rows` rows; it may raise to stop. `address` is the address of random draws, which
    only attributors that draw need. `note` receives notes beside the attributions.
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
        """Empty sums for attributions, (J, n, *P_i) per input."""
        return tuple(x.new_zeros(len(self.outputs), *x.shape) for x in self.inputs)

    def alone(self) -> Iterator[Task]:
        """This task for one baseline after the other; the task itself if there are none."""
        if not self.baselines:
            yield self
        for b in range(len(self.baselines[0]) if self.baselines else 0):
            here = None if self.address is None else replace(self.address, baselines=self.address.baselines[b : b + 1])
            yield replace(self, baselines=tuple(x0[b : b + 1] for x0 in self.baselines), address=here)


class Attributor(ABC):
    """Attributions ``a[n, j, i]`` of a batch of samples: what component i of the input of sample n does for output j.

    `complete`: the sum over features equals ``f(x) - mean_b f(x0_b)``, up to the quadrature error if there is one.
    `baselines`: it compares with baselines; otherwise it gets none. `gradients`: it takes gradients; otherwise it costs
    only forward passes. `linear`: attributions of ``W f`` are W times those of f, so those of latents can replace those
    of the outputs. `exact`: each attribution is exact for its name, not only right on average. `raw`: attributions are
    in the units of the input, so their mean may be far from 0. `certified`: it has a goal and notes the samples that
    failed to reach it (`Note`). `own_baseline`: it makes its own baseline for each sample, also if it is called with
    baselines, and notes the model's prediction there. `estimate`: its name says that it estimates an exact value, so it
    may be kept for single samples although it is not `exact`. `held`: the number of points that it holds in float64 for
    each row of a forward pass.
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
    """Names of results in the literature, by the name that the statistic gives."""

    @property
    def exact(self) -> bool:
        return True

    @property
    def unrelaxed(self) -> str:
        """Why it does not work with categories, which are walked as a mixture of two; empty if it works."""
        return ""

    @property
    def rule(self) -> str:
        """Where gradients are taken, as text for people; empty if there is no choice."""
        return ""

    @property
    def halved(self) -> Attributor | None:
        """The attributor with half of its steps, where its completeness says nothing about them; else None."""
        return None

    @property
    def doubled(self) -> Attributor | None:
        """The attributor with twice the steps of the same walk; None if it has none, draws or chooses them itself."""
        return None

    def suited(self, piecewise: Callable[[], bool], pilot: Pilot | None = None) -> Attributor:
        """The attributor with open settings chosen by the model.

        `piecewise()` returns whether its activations are piecewise linear; it costs a forward pass. `pilot` chooses the
        rule of an open quadrature (None: the activations do).
        """
        return self

    def prove(self, model: Model, inputs: Tensors) -> None:  # noqa: B027 - most walks go through any model
        """Check on a probe, before the computation, that the model can be walked.

        Raises `ConfigError` or `ModelError` if not.
        """

    @abstractmethod
    def points(self, features: Sequence[tuple[int, ...]]) -> int:
        """Number of points of the walk from one baseline to one input of these shapes; 0 if it needs no model."""

    def price(self, features: Sequence[tuple[int, ...]]) -> Price:
        """The cost of the walk; by default a row of a forward pass for each point, and a gradient for each output."""
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
        **more: Any,
    ) -> Tensors:
        """The result of `of` for a `Task` with these fields; `more`: its fields `watch`, `address`, `note`."""
        return self.of(Task(model, inputs, baselines, outputs, share, size, **more))

    @abstractmethod
    def of(self, task: Task) -> Tensors:
        """Attributions (n, J, *P_i) per input, summed on the device over this block of baselines."""

    def label(self, result: str) -> str:
        """The store's name of a statistic's result: "igc" for the correlation of IG, else e.g. "gradient_mean"."""
        return self.labels.get(result, f"{self.name}_{result}")
