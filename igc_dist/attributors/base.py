"""The contract of an attributor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int64

from igc_dist.model import Model
from igc_dist.records import Tensors
from igc_dist.seeds import Address

Note = Callable[[Bool[np.ndarray, "n J"], Int64[np.ndarray, "n J"]], None]
"""Takes which samples failed for which output, and the gradients that each took."""


class Attributor(ABC):
    """Attributions ``a[n, j, i]`` of a batch of samples: what component i of the input of sample n does for output j.

    `complete`: the sum over features equals ``f(x) - mean_b f(x0_b)``, up to the quadrature error if there is one.
    `baselines`: it compares with baselines; otherwise it is called with none. `gradients`: it takes gradients; otherwise
    its forward passes are all that it costs. `linear`: attributions of ``W f`` are W times those of f, so that those of latents
    may stand for those of the outputs. `exact`: each attribution is what it is called, and not only right on average.
    `raw`: attributions are in the units of the input, so their mean may be far from 0. `certified`: it aims at a tolerance and
    says which samples failed to reach it (`noting`).
    """

    name: ClassVar[str]
    complete: ClassVar[bool]
    baselines: ClassVar[bool]
    gradients: ClassVar[bool] = True
    linear: ClassVar[bool] = True
    raw: ClassVar[bool] = False
    certified: ClassVar[bool] = False
    labels: ClassVar[dict[str, str]] = {}
    """Names of the results that have one in the literature, by the name that the statistic gives."""

    @property
    def exact(self) -> bool:
        return True

    @property
    def rule(self) -> str:
        """Where gradients are taken, for people; nothing if there is no choice."""
        return ""

    def suited(self, piecewise: Callable[[], bool]) -> Attributor:
        """The attributor with what was left open chosen by the activations; `piecewise()`, whether they are piecewise linear, costs a
        forward pass."""
        return self

    def noting(self, note: Note) -> Attributor:
        """The attributor, if it is `certified` with `note` called once for each call of `attribute`."""
        return self

    @abstractmethod
    def points(self, features: Sequence[tuple[int, ...]]) -> int:
        """Rows of forward passes per (input, baseline), for inputs of these shapes; 0 if the model is not needed."""

    @abstractmethod
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
        """Attributions (n, J, *P_i) per input, summed on the device over this block of baselines.

        `inputs[i]` is (n, *P_i); `baselines[i]` is (b, n or 1, *P_i); `share` is the weight 1/B of one baseline. A forward
        pass takes at most `size` points of each sample. `watch(rows)` is called after each forward pass of `rows` rows; it
        may raise to stop. `address` is where random draws are addressed: those that draw need it.
        """

    def label(self, result: str) -> str:
        """Name in the store of a statistic's result: "igc" for the correlation of IG, else e.g. "gradient_mean"."""
        return self.labels.get(result, f"{self.name}_{result}")
