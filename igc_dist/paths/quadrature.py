"""Quadrature rules on [0, 1]: nodes and weights that are checked at construction.

A rule replaces ``integral_0^1 g(t) dt`` by ``sum_k weights[k] * g(nodes[k])``. The integrand of Integrated Gradients is
the gradient along the path (Sundararajan, Taly, Yan 2017, eq. 1), so `n` is the number of gradient evaluations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from igc_dist.records import ConfigError


@dataclass(frozen=True)
class Quadrature:
    """A quadrature rule as data.

    Raises `ConfigError` unless the weights sum to 1, the nodes lie in [0, 1], and the rule integrates ``t**k`` exactly
    (to 1e-12) for every k up to `degree`.
    """

    name: str
    nodes: Float64[np.ndarray, " K"]
    weights: Float64[np.ndarray, " K"]
    degree: int

    def __post_init__(self) -> None:
        nodes, weights = self.nodes, self.weights
        if nodes.ndim != 1 or nodes.shape != weights.shape or not nodes.size:
            raise ConfigError(
                f"quadrature {self.name!r}: nodes {nodes.shape} and weights {weights.shape} must be two equal vectors"
            )
        if not (nodes.min() >= 0 and nodes.max() <= 1):
            raise ConfigError(f"quadrature {self.name!r}: nodes must lie in [0, 1], got {nodes.min()} to {nodes.max()}")
        for power in range(self.degree + 1):
            error = abs(float(weights @ nodes**power) - 1 / (power + 1))
            if not error <= 1e-12:
                claim = "weights must sum to 1" if power == 0 else f"must be exact on t**{power}"
                raise ConfigError(f"quadrature {self.name!r}: {claim}, error {error:.3g}")

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def doubled(self) -> Quadrature:
        """The rule on each half of [0, 1]: twice the nodes, or one less if both halves have one in the middle."""
        nodes, at = np.unique(np.concatenate([self.nodes / 2, (1 + self.nodes) / 2]), return_inverse=True)
        weights = np.bincount(at, np.tile(self.weights / 2, 2))
        return Quadrature(f"{self.name}, twice", nodes, weights, self.degree)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Quadrature)
            and self.nodes.tolist() == other.nodes.tolist()
            and self.weights.tolist() == other.weights.tolist()
        )

    def __hash__(self) -> int:
        return hash((self.nodes.tobytes(), self.weights.tobytes()))


def _left(n: int) -> tuple[np.ndarray, np.ndarray, int]:
    return np.arange(n) / n, np.full(n, 1 / n), 0


def _right(n: int) -> tuple[np.ndarray, np.ndarray, int]:
    return np.arange(1, n + 1) / n, np.full(n, 1 / n), 0


def _midpoint(n: int) -> tuple[np.ndarray, np.ndarray, int]:
    return (np.arange(n) + 0.5) / n, np.full(n, 1 / n), 1


def _trapezoid(n: int) -> tuple[np.ndarray, np.ndarray, int]:
    weights = np.full(n, 1 / (n - 1))
    weights[[0, -1]] /= 2
    return np.linspace(0, 1, n), weights, 1


def _simpson(n: int) -> tuple[np.ndarray, np.ndarray, int]:
    weights = np.full(n, 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    return np.linspace(0, 1, n), weights / (3 * (n - 1)), 3


def _gauss_legendre(n: int) -> tuple[np.ndarray, np.ndarray, int]:
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return (nodes + 1) / 2, weights / 2, 2 * n - 1


@dataclass(frozen=True)
class _Rule:
    build: Callable[[int], tuple[np.ndarray, np.ndarray, int]]
    minimum: int = 1
    odd: bool = False


RULES = {
    "left": _Rule(_left),
    "right": _Rule(_right),
    "midpoint": _Rule(_midpoint),
    "trapezoid": _Rule(_trapezoid, minimum=2),
    "simpson": _Rule(_simpson, minimum=3, odd=True),
    "gauss_legendre": _Rule(_gauss_legendre),
}


def rule(name: str, n_steps: int) -> Quadrature:
    """The rule `name` with `n_steps` nodes, that is gradient evaluations per (input, baseline).

    `left`, `right`, `midpoint` and `gauss_legendre` start at 1 node, `trapezoid` at 2, `simpson` at 3 and odd.
    Raises `ConfigError` for an unknown name (the near ones are listed) and for a number below the minimum.
    """
    if name not in RULES:
        raise ConfigError(f"quadrature {name!r} is unknown: choose one of {', '.join(sorted(RULES))}")
    wish = RULES[name]
    if isinstance(n_steps, bool) or not isinstance(n_steps, int | np.integer) or n_steps < wish.minimum:
        raise ConfigError(f"n_steps={n_steps!r} with quadrature {name!r}: give an integer of at least {wish.minimum}")
    if wish.odd and n_steps % 2 == 0:
        raise ConfigError(
            f"n_steps={n_steps} with quadrature {name!r}: the number of nodes must be odd, try {n_steps + 1}"
        )
    nodes, weights, degree = wish.build(int(n_steps))
    # beyond degree 40 the moments of a Gauss rule would test the rounding of leggauss, not the rule
    return Quadrature(f"{name}-{n_steps}", nodes, weights, min(degree, 40))


DEFAULT = "auto"
"""The rule if neither a rule nor a number of nodes is given."""
TOL = 0.01
"""The tolerance of a pilot."""


@dataclass(frozen=True)
class Auto:
    """A rule that is chosen by the model.

    It is midpoint if the activations are piecewise linear, else Gauss-Legendre. `n_steps`: the number of nodes. None: a
    pilot (`igc_dist.job.pilot`) takes the first of 8, 16, 32, ..., 256 whose error on a few samples is below `tol` of
    the correlation. Where there is no pilot, it is 32 for midpoint and 8 for Gauss-Legendre. The gradient of a
    piecewise linear network jumps, so that no rule is better than 1/n.

    Raises `ConfigError` for an `n_steps` below 1, and for a `tol` that is not between 0 and 1.
    """

    n_steps: int | None = None
    tol: float = TOL

    def __post_init__(self) -> None:
        if self.n_steps is not None:
            rule("midpoint", self.n_steps)
        if isinstance(self.tol, bool) or not isinstance(self.tol, int | float) or not 0 < self.tol < 1:
            raise ConfigError(f"quadrature.tol={self.tol!r}: give a number between 0 and 1, such as {TOL}")

    @property
    def doubled(self) -> Auto:
        """Twice the nodes; an open number stays open."""
        return self if self.n_steps is None else Auto(2 * self.n_steps, self.tol)

    def rule(self, piecewise: bool, n_steps: int | None = None) -> Quadrature:
        """The rule for these activations. `n_steps`: the number of nodes where it is open."""
        name, default = ("midpoint", 32) if piecewise else ("gauss_legendre", 8)
        return rule(name, self.n_steps or n_steps or default)

    def chosen(self, piecewise: Callable[[], bool], pilot: Pilot | None) -> Quadrature:
        """The rule, by a pilot if the number of nodes is open."""
        return self.rule(piecewise()) if pilot is None or self.n_steps is not None else pilot(self)


Pilot = Callable[[Auto], Quadrature]
"""Chooses the rule by trying it on a few samples."""


def ensure_rule(
    quadrature: str | Quadrature | Auto | None, n_steps: int | None, tol: float | None = None
) -> Quadrature | Auto:
    """Coerce a name with a number of steps (None: 32, or 33 where it must be odd), or a rule, to a rule.

    None is "auto" without a number of steps, and "midpoint" with one. "auto" gives `Auto`: the rule is later chosen by
    the model, with the tolerance `tol` (None: 0.01). Raises `ConfigError`, also for a `tol` of a fixed rule.
    """
    name = ("midpoint" if n_steps is not None else DEFAULT) if quadrature is None else quadrature
    if tol is not None and (name != "auto" or n_steps is not None):
        raise ConfigError(
            f"quadrature.tol={tol!r} is for a number of nodes that is open: take quadrature=auto without n_steps, or "
            "leave tol out"
        )
    if isinstance(name, Quadrature | Auto):
        return name
    if name == "auto":
        return Auto(n_steps, TOL if tol is None else tol)
    return rule(name, n_steps if n_steps is not None else 33 if name in RULES and RULES[name].odd else 32)


@dataclass(frozen=True)
class Nested:
    """A rule, and a coarser rule at some of its nodes, to estimate the error without more evaluations.

    `coarse` are the weights of the coarser rule at the nodes of `fine`, 0 at nodes that it does not use. The coarser
    rule is exact up to `degree`, which is checked as for any rule.
    """

    name: str
    fine: Quadrature
    coarse: Float64[np.ndarray, " K"]
    degree: int

    def __post_init__(self) -> None:
        Quadrature(
            f"coarse part of {self.name}", self.fine.nodes[self.coarse != 0], self.coarse[self.coarse != 0], self.degree
        )


def _symmetric(half: list[float], sign: float) -> np.ndarray:
    """The values at the nodes left of and at the middle, followed by their mirror image."""
    return np.array([*half, *(sign * value for value in half[-2::-1])])


_KRONROD = [
    -0.991455371120812639206854697526329, -0.949107912342758524526189684047851, -0.864864423359769072789712788640926,
    -0.741531185599394439863864773280788, -0.586087235467691130294144691693560, -0.405845151377397166906606412076961,
    -0.207784955007898467600689403773245, 0.0,
]  # fmt: skip
_KRONROD_WEIGHTS = [
    0.022935322010529224963732008058970, 0.063092092629978553290700663189204, 0.104790010322250183839876322541518,
    0.140653259715525918745189590510238, 0.169004726639267902826583426598550, 0.190350578064785409913256402421014,
    0.204432940075298892414161999234649, 0.209482141084727828012999174891714,
]  # fmt: skip
_GAUSS_WEIGHTS = [
    0.0, 0.129484966168869693270611432679082, 0.0, 0.279705391489276667901467771423780,
    0.0, 0.381830050505118944950369775488975, 0.0, 0.417959183673469387755102040816327,
]  # fmt: skip

KRONROD = Nested(
    "gauss_kronrod-15",
    Quadrature("gauss_kronrod-15", (_symmetric(_KRONROD, -1.0) + 1) / 2, _symmetric(_KRONROD_WEIGHTS, 1.0) / 2, 22),
    _symmetric(_GAUSS_WEIGHTS, 1.0) / 2,
    13,
)
"""Gauss-Legendre with 7 nodes in Kronrod's extension to 15 (Kronrod 1964; digits of QUADPACK, Piessens et al. 1983)."""

TRIPLED = Nested("midpoint-3", rule("midpoint", 3), np.array([0.0, 1.0, 0.0]), 1)
"""The midpoint rule with one node, inside the midpoint rule with three nodes."""
