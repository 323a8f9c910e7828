"""Sampling designs: at which points of its paths the gradients of each input are taken.

IGC is linear in the gradient and a mean over inputs, so the integral of a single input need not be accurate. If nodes
are drawn anew for every input, every attribution is right on average, and the errors cancel over the data set. A design
that is `exact` is needed for a statistic that is not linear in the attribution, and for the attribution of one sample.

The cost of a design is its number of draws, that is gradients per input and output. Designs that place nodes on given
paths need B baselines with K nodes each. Designs that pair the samples of the data set need S partners.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from igc_dist.paths.quadrature import Auto, Quadrature
from igc_dist.records import ConfigError
from igc_dist.seeds import Address


class Design(ABC):
    """``integral_0^1 g(t) dt = E[sum_k weight_k g(t_k)]`` for each (input, baseline), K nodes each."""

    name: ClassVar[str]
    exact: ClassVar[bool]

    @abstractmethod
    def __len__(self) -> int:
        """The number K of nodes per (input, baseline)."""

    @property
    @abstractmethod
    def weights(self) -> Float64[np.ndarray, " K"]:
        """The weights of the nodes; they sum to 1."""

    @abstractmethod
    def nodes(self, address: Address | None, n: int, b: int) -> Float64[np.ndarray, "b K n"]:
        """Nodes of n samples and b baselines, or (1, K, 1) if they are the same for all."""


@dataclass(frozen=True)
class Grid(Design):
    """Every baseline with every node of a quadrature. Each sample is accurate up to the error of the rule."""

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
    """Nodes of equal weight, drawn for each sample: `n_steps` per baseline. Raises `ConfigError` for fewer than 1."""

    n_steps: int = 1

    exact = False

    def __post_init__(self) -> None:
        check_count("n_steps", self.n_steps, self.name)

    def __len__(self) -> int:
        return int(self.n_steps)

    @property
    def weights(self) -> Float64[np.ndarray, " K"]:
        return np.full(len(self), 1 / len(self))

    def nodes(self, address: Address | None, n: int, b: int) -> Float64[np.ndarray, "b K n"]:
        if address is None:
            raise TypeError(f"design {self.name!r} draws its nodes: an address is needed")
        block = slice(address.baselines.start, address.baselines.stop)
        draws = [
            self._drawn(address.generator(k, f"designs.{self.name}"), address.n_baselines)[block] for k in range(n)
        ]
        return np.stack(draws, axis=-1)

    @abstractmethod
    def _drawn(self, generator: np.random.Generator, n_baselines: int) -> Float64[np.ndarray, "B K"]:
        """Nodes of one sample for all of its baselines."""


@dataclass(frozen=True)
class Shifted(_Drawn):
    """Equidistant nodes with a random offset for each (input, baseline), ``t_k = (k + u) / K``, u uniform on [0, 1].

    A shifted lattice (Cranley and Patterson 1976): unbiased, and as accurate as the midpoint rule for one sample.
    """

    n_steps: int = 4

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


GROUP = 64
"""The number of samples among which pairs are drawn. They are read once, and give enough choice of partners."""


@dataclass(frozen=True)
class Drawn:
    """R draws among the samples of a group: ``sum_r factor_r h(end_r, start_r, node_r)`` is right on average."""

    end: Int64[np.ndarray, " R"]
    start: Int64[np.ndarray, " R"]
    node: Float64[np.ndarray, " R"]
    factor: Float64[np.ndarray, " R"]


@dataclass(frozen=True)
class Pairs(Design):
    """Antisymmetric pairs of data rows: as ``IG(x_n; x_m) = -IG(x_m; x_n)``, every gradient is used twice.

    ``Cov_n(mean_m IG(x_n; x_m), y) = 1/2 mean_(n, m) (y_n - y_m) IG(x_n; x_m)``, the mean over all ordered pairs. Each
    sample has `n_draws` partners with one node each; these nodes form a Latin hypercube. Partners are in the same fold,
    so that folds are independent and the jackknife is right. They are in the same group of 64 to 127 samples, so that
    nothing is read twice.

    Partners come from random cyclic shifts. With `importance` they are drawn with probability ``q_nm ~ sum_j |w_nj -
    w_mj|``, ``w = y / (std y std r)``, and weighted by 1 / q. If y is one-hot, only the outputs of the two labels have
    a weight, and only their gradients are taken.

    Raises `ConfigError` for fewer than 1 draw.
    """

    n_draws: int = 4
    importance: bool = False

    name = "pairs"
    exact = False

    def __post_init__(self) -> None:
        check_count("n_draws", self.n_draws, self.name)

    def __len__(self) -> int:
        return 1

    @property
    def weights(self) -> Float64[np.ndarray, " K"]:
        return np.ones(1)

    def nodes(self, address: Address | None, n: int, b: int) -> Float64[np.ndarray, "b K n"]:
        raise TypeError("pairs draw their nodes with their partners")

    def draw(self, generator: np.random.Generator, weights: Float64[np.ndarray, "G D"]) -> Drawn:
        """Draws among G samples, so that ``sum_r factor_r h(..)`` has the mean of h over pairs.

        This mean is ``sum_(n != m) integral h(n, m, t) dt / (G - 1)``. It holds for every h whose integral is symmetric
        in n and m. With `importance`, h must also be 0 for pairs of equal weights. The importance of a pair is the L1
        distance of its `weights`.
        """
        n, s = len(weights), self.n_draws
        ends, starts, factor = np.repeat(np.arange(n), s), np.zeros(n * s, dtype=np.int64), np.zeros(n * s)
        if not self.importance:
            # a shift and its complement give the same pairs, and a shift by half of the group gives each pair twice: so
            # half of the shifts suffice, each equally often
            half = n // 2
            shifts = 1 + np.concatenate([generator.permutation(half) for _ in range(-(-s // half))])[:s]
            starts = (ends + np.tile(shifts, n)) % n
            factor = np.tile(np.where(2 * shifts == n, 0.5, 1.0) * 2 * half / (s * (n - 1)), n)
        else:
            # sorted by weight, so that systematic sampling is stratified by the weights
            order = np.argsort(weights[:, 0], kind="stable")
            # imported here: it takes 0.25 s, which would delay every command
            from scipy.spatial.distance import cdist

            distance = cdist(weights[order], weights[order], "cityblock")
            rows, total = distance.sum(1), distance.sum()
            if not total > 0:  # all weights are the same: no pair contributes
                ends = ends[:0]
                return Drawn(ends, ends, factor[:0], factor[:0])
            chosen = _systematic(np.cumsum(rows) / total, (np.arange(n) + generator.random()) / n)
            within = (np.arange(s) + generator.random((n, 1))) / s
            partners = np.stack(
                [_systematic(np.cumsum(distance[c]) / rows[c], u) for c, u in zip(chosen, within, strict=True)]
            )
            q = distance[chosen[:, None], partners] / total
            ends, starts, factor = (
                order[np.repeat(chosen, s)],
                order[partners].ravel(),
                (1 / (s * n * (n - 1) * q)).ravel(),
            )
        ranks = np.argsort(generator.random((n, s)), axis=1)
        return Drawn(ends, starts, ((ranks + generator.random((n, s))) / s).ravel(), factor)


def _systematic(cumulated: Float64[np.ndarray, " G"], at: Float64[np.ndarray, " V"]) -> Int64[np.ndarray, " V"]:
    """The index of the interval of cumulated probabilities that holds each position in [0, 1).

    An interval of probability 0 is never returned.
    """
    last = int(
        np.searchsorted(cumulated, cumulated[-1])
    )  # the last interval of positive probability, as the sum is 1 only up to rounding
    return np.minimum(np.searchsorted(cumulated, at, side="right"), last)


DESIGNS: dict[str, type[_Drawn]] = {kind.name: kind for kind in (Shifted, Stratified, Random)}
NAMES = (Grid.name, *DESIGNS, "pairs", "importance_pairs")


def check_count(name: str, value: int, design: str) -> None:
    """Raise `ConfigError` unless `value` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ConfigError(f"{name}={value!r} with design {design!r}: give an integer of at least 1")


def ensure_design(
    design: str | Design,
    quadrature: Quadrature | Auto,
    n_steps: int | None,
    n_draws: int | None = None,
    n_baselines: Callable[[], int] = lambda: 1,
) -> Design:
    """Coerce a name, or a design, to a design.

    `grid` takes the quadrature. Designs that place nodes draw `n_steps` nodes per (input, baseline) (None: 1, or 4 if
    shifted), or `n_draws` per input, divided equally among its `n_baselines()`. Pairs take `n_draws` partners per
    input, by default 4. Raises `ConfigError`.
    """
    if isinstance(design, Design):
        if n_draws is not None:
            raise ConfigError(f"n_draws={n_draws} beside a design that is given as an object: put the number into it")
        return design
    if design not in NAMES:
        raise ConfigError(f"design {design!r} is unknown: choose one of {', '.join(NAMES)}")
    if n_draws is not None:
        check_count("n_draws", n_draws, design)
    if design == Grid.name:
        if n_draws is not None:
            raise ConfigError(
                f"n_draws={n_draws} with design 'grid', which takes every baseline with every node: leave it out "
                "(design.n_draws=null) and set n_steps, or take a design that draws"
            )
        return Grid(
            quadrature if isinstance(quadrature, Quadrature) else quadrature.rule(True)
        )  # the attributor makes the choice
    if design not in DESIGNS:
        return Pairs(4 if n_draws is None else n_draws, importance=design == "importance_pairs")
    if n_draws is None:
        return DESIGNS[design]() if n_steps is None else DESIGNS[design](n_steps)
    if n_draws % n_baselines():
        raise ConfigError(
            f"n_draws={n_draws} with design {design!r}: an input has {n_baselines()} baselines, each with the same "
            "number of nodes: "
            "give a multiple"
        )
    return DESIGNS[design](n_draws // n_baselines())
