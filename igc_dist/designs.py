"""Sampling designs: where on its paths the gradients of each input are taken.

IGC is linear in the gradient and a mean over inputs, so the integral of no single input has to be accurate: nodes that are
drawn, another for every input, make every attribution right on average, and their errors cancel over the data set. A
statistic that is not linear in the attribution, or the attribution of one sample, needs a design that is `exact`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from igc_dist.quadrature import Auto, Quadrature
from igc_dist.records import ConfigError
from igc_dist.seeds import Address


class Design(ABC):
    """``integral_0^1 g(t) dt = E[sum_k weight_k g(t_k)]`` for each (input, baseline), K nodes each."""

    name: ClassVar[str]
    exact: ClassVar[bool]

    @abstractmethod
    def __len__(self) -> int:
        """K: nodes per (input, baseline)."""

    @property
    @abstractmethod
    def weights(self) -> Float64[np.ndarray, " K"]:
        """They sum to 1."""

    @abstractmethod
    def nodes(self, address: Address | None, n: int, b: int) -> Float64[np.ndarray, "b K n"]:
        """Nodes of n samples and b baselines, or (1, K, 1) where they are the same for all."""


@dataclass(frozen=True)
class Grid(Design):
    """Every baseline with every node of a quadrature: right for each sample, up to the error of the rule."""

    quadrature: Quadrature

    name = "grid"
    exact = True

    def __len__(self) -> int:
        return len(self.quadrature)

    @property
    def weights(self) -> Float64[np.ndarray, " K"]:
        return self.quadrature.weights

    def nodes(self, address: Address | None, n: int, b: int) -> Float64[np.ndarray, "1 K 1"]:
        return self.quadrature.nodes[None, :, None]


@dataclass(frozen=True)
class _Drawn(Design):
    """Nodes of equal weight, `n_steps` for each baseline, drawn for each sample; raises `ConfigError` for fewer than 1."""

    n_steps: int = 1

    exact = False

    def __post_init__(self) -> None:
        if isinstance(self.n_steps, bool) or not isinstance(self.n_steps, int | np.integer) or self.n_steps < 1:
            raise ConfigError(f"n_steps={self.n_steps!r} with design {self.name!r}: give an integer of at least 1")

    def __len__(self) -> int:
        return int(self.n_steps)

    @property
    def weights(self) -> Float64[np.ndarray, " K"]:
        return np.full(len(self), 1 / len(self))

    def nodes(self, address: Address | None, n: int, b: int) -> Float64[np.ndarray, "b K n"]:
        if address is None:
            raise TypeError(f"design {self.name!r} draws its nodes: an address is needed")
        block = slice(address.baselines.start, address.baselines.stop)
        draws = [self._drawn(address.generator(k, f"designs.{self.name}"), address.n_baselines)[block] for k in range(n)]
        return np.stack(draws, axis=-1)

    @abstractmethod
    def _drawn(self, generator: np.random.Generator, n_baselines: int) -> Float64[np.ndarray, "B K"]:
        """Nodes of one sample for all of its baselines."""


@dataclass(frozen=True)
class Shifted(_Drawn):
    """Equidistant nodes with a random offset for each (input, baseline), ``t_k = (k + u) / K``, u uniform on [0, 1].

    A shifted lattice (Cranley and Patterson 1976): unbiased, and as accurate as the midpoint rule for one sample.
    """

    name = "shifted"

    def _drawn(self, generator: np.random.Generator, n_baselines: int) -> Float64[np.ndarray, "B K"]:
        return (np.arange(len(self)) + generator.random((n_baselines, 1))) / len(self)


@dataclass(frozen=True)
class Stratified(_Drawn):
    """All nodes of an input together are a Latin hypercube: each of its ``B * K`` equal parts of [0, 1] holds one node.

    Which baseline gets which part is a random permutation (McKay, Beckman, Conover 1979). With K = 1 and many baselines
    this is the cheapest design for baselines that are drawn from the data.
    """

    name = "stratified"

    def _drawn(self, generator: np.random.Generator, n_baselines: int) -> Float64[np.ndarray, "B K"]:
        total = n_baselines * len(self)
        return ((generator.permutation(total) + generator.random(total)) / total).reshape(n_baselines, len(self))


@dataclass(frozen=True)
class Random(_Drawn):
    """Independent nodes, uniform on [0, 1]: plain Monte Carlo, for comparison."""

    name = "random"

    def _drawn(self, generator: np.random.Generator, n_baselines: int) -> Float64[np.ndarray, "B K"]:
        return generator.random((n_baselines, len(self)))


DESIGNS: dict[str, type[_Drawn]] = {kind.name: kind for kind in (Shifted, Stratified, Random)}


def ensure(design: str | Design, quadrature: Quadrature | Auto, n_steps: int) -> Design:
    """Coerce a name, or a design, to a design: `grid` takes the quadrature, the others draw `n_steps` nodes per (input, baseline)."""
    if isinstance(design, Design):
        return design
    if design == Grid.name:
        return Grid(quadrature if isinstance(quadrature, Quadrature) else quadrature.rule(True))  # the attributor holds the choice
    if design not in DESIGNS:
        raise ConfigError(f"design {design!r} is unknown: choose one of {', '.join((Grid.name, *DESIGNS))}")
    return DESIGNS[design](n_steps)
