"""The common algebra: sums about a centre, in float64. Update, merge and reduction over ranks are the same addition.

A state holds, for weighted samples, the sums of first and second order of a few variables about fixed centres:

    scalars,  one number per output:    y target, r prediction, b prediction at the baseline
    features, one per output, feature:  a attribution, z mean baseline, s area of a segment

A *term* names one sum: "" is the total weight, "n" the number of samples of any weight, "d" is ``sum w |delta|`` (delta
is the completeness residual), "y" is ``sum w (y - c_y)``, "ay" is ``sum w a (y - c_y)``. The samples of an output may
be divided into *cells* (slices of the data set, the groups of a t-test). A state then has an axis of cells, and the
state of a union of cells is a sum over this axis.

The centre of attributions is 0 by default. That is safe: attributions come from float32 gradients of relative error u32
= 6e-8. A variance summed in float64 about 0 has a relative error near ``u64 * (mean/std)**2``, which stays below the
data's own ``u32 * (mean/std)`` as long as mean/std < 5e8.

Sources: Chan, Golub, LeVeque 1983 (pairwise update); Schubert and Gertz 2018 (sums about a shift). The operations
use only + - * so that a state may hold torch tensors on a device, or numpy arrays with any leading axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from igc_dist.statistics.terms import SCALAR_TERMS, feature_terms

Array = Any
"""A numpy array or a torch tensor of float64."""


@dataclass(frozen=True)
class Centre:
    """The constants about which sums are formed: `y`, `r`, `b` are (J,); `a` is one (J, *P) array per input, or 0."""

    y: Array
    r: Array
    b: Array
    a: tuple[Array, ...] | None = None

    def of(self, variable: str, i: int = 0) -> Array:
        """Centre of a scalar variable, or of the attribution to input `i`."""
        if variable == "a":
            return 0.0 if self.a is None else self.a[i]
        if variable in ("z", "s"):
            return 0.0
        return getattr(self, variable)

    def outputs(self, index: slice | np.ndarray) -> Centre:
        """The centre of some outputs."""
        a = None if self.a is None else tuple(c[index] for c in self.a)
        return Centre(self.y[index], self.r[index], self.b[index], a)

    def same(self, other: Centre) -> bool:
        """Whether both are equal to the bit, so that sums about them may be added."""
        if self is other:
            return True
        if (self.a is None) != (other.a is None):
            return False
        pairs = [
            (self.y, other.y),
            (self.r, other.r),
            (self.b, other.b),
            *zip(self.a or (), other.a or (), strict=True),
        ]
        return all(np.array_equal(np.asarray(one), np.asarray(two)) for one, two in pairs)


@dataclass(frozen=True)
class State:
    """Sums about a centre: `scalars[term]` is (..., J), `features[i][term]` is (..., J, *P_i)."""

    centre: Centre
    scalars: Mapping[str, Array]
    features: tuple[Mapping[str, Array], ...]

    def __add__(self, other: State) -> State:
        """Merge: one addition, after a shift where the centres differ."""
        if not self.centre.same(other.centre):
            other = other.shift(self.centre)
        scalars = {term: self.scalars[term] + other.scalars[term] for term in self.scalars}
        features = tuple(
            {term: mine[term] + its[term] for term in mine}
            for mine, its in zip(self.features, other.features, strict=True)
        )
        return State(self.centre, scalars, features)

    def shift(self, centre: Centre) -> State:
        """The same samples about another centre (exact): with ``d_u = c_u - c'_u``,

        ``S'_u = S_u + W d_u`` and ``S'_uv = S_uv + d_u S_v + d_v S_u + W d_u d_v``.
        """

        scalars = {term: self._moved(term, self.scalars, centre, 0, 0) for term in self.scalars}
        features = tuple(
            {term: self._moved(term, sums, centre, i, self._dims(i)) for term in sums}
            for i, sums in enumerate(self.features)
        )
        return State(centre, scalars, features)

    def _moved(self, term: str, sums: Mapping[str, Array], centre: Centre, i: int, dims: int) -> Array:
        """One sum about another centre; scalars get `dims` axes to meet the features of input `i`."""

        def first(u: str) -> Array:
            return sums[u] if u in sums else widen(self.scalars[u], dims)

        def step(u: str) -> Array:
            d = self.centre.of(u, i) - centre.of(u, i)
            return d if u in "azs" else widen(d, dims)

        if term in ("", "n", "d"):
            return sums[term]
        weight = widen(self.scalars[""], dims)
        u, v = term[0], term[1:]
        if not v:
            return sums[term] + weight * step(u)
        return sums[term] + step(u) * first(v) + step(v) * first(u) + weight * step(u) * step(v)

    def union(self, n_groups: int, *, slices: bool = False, groups: bool = False) -> State:
        """Merge the cells of (..., C, J, *P), numbered ``slice * n_groups + group``.

        `slices`, `groups`: whether to keep this axis.
        """

        def merged(array: Array, dims: int) -> Array:
            at = array.ndim - 2 - dims
            array = array.reshape(*array.shape[:at], -1, n_groups, *array.shape[at + 1 :])
            for axis, keep in ((at + 1, groups), (at, slices)):
                if not keep:  # no copy if there is one cell
                    array = array.sum(axis) if array.shape[axis] > 1 else array.squeeze(axis)
            return array

        features = tuple(
            {term: merged(array, self._dims(i)) for term, array in sums.items()} for i, sums in enumerate(self.features)
        )
        return State(self.centre, {term: merged(array, 0) for term, array in self.scalars.items()}, features)

    def at(self, group: int) -> State:
        """The state of one group, if `union` kept the groups: (..., groups, J, *P)."""

        def one(array: Array, dims: int) -> Array:
            return array.take(group, axis=array.ndim - 2 - dims)

        features = tuple(
            {term: one(array, self._dims(i)) for term, array in sums.items()} for i, sums in enumerate(self.features)
        )
        return State(self.centre, {term: one(array, 0) for term, array in self.scalars.items()}, features)

    def _dims(self, i: int) -> int:
        """Number of feature dimensions of input `i`."""
        return self.features[i]["a"].ndim - self.scalars[""].ndim

    def map(self, change: Callable[[Array], Array]) -> State:
        """A state with `change` applied to every array of sums."""
        return State(
            self.centre,
            {term: change(array) for term, array in self.scalars.items()},
            tuple({term: change(array) for term, array in sums.items()} for sums in self.features),
        )

    def covariance(self, u: str, v: str, i: int = 0) -> Array:
        """Population covariance ``C_uv / W`` with ``C_uv = S_uv - S_u S_v / W``; NaN where W = 0.

        (..., J) or (..., J, *P_i).
        """
        if not {*"azs"} & {*u, *v}:
            sums, wide = self.scalars, lambda array: array
        else:
            sums, wide = {**self.scalars, **self.features[i]}, lambda array: widen(array, self._dims(i))
        weight = wide(self.scalars[""])
        one, two = (sums[s] if s in "azs" else wide(sums[s]) for s in (u, v))
        joint = sums[u + v] if u + v in sums else sums[v + u]
        with np.errstate(invalid="ignore", divide="ignore"):
            return (joint - one * two / weight) / weight

    def mean(self, u: str, i: int = 0) -> Array:
        """``c_u + S_u / W``. NaN where W = 0."""
        with np.errstate(invalid="ignore", divide="ignore"):
            if u in "azs":
                return self.centre.of(u, i) + self.features[i][u] / widen(self.scalars[""], self._dims(i))
            return self.centre.of(u) + self.scalars[u] / self.scalars[""]

    def std(self, u: str, i: int = 0) -> Array:
        """Population standard deviation, exactly 0 for a variable that is constant to float64 rounding."""
        variance = np.maximum(self.covariance(u, u, i), 0.0)
        mean = self.mean(u, i)
        # rounding gives a constant a spread: 1e-16 of its size if its mean is off by a few ulp, and a variance of 1e-15
        # of its squared distance from the centre, as for a class that occurs in one fold only and is absent when that
        # fold is left out
        noise = (1e-13 * mean) ** 2 + 4e-15 * (mean - self.centre.of(u, i)) ** 2
        return np.where(variance <= noise, 0.0, np.sqrt(variance))


def widen(array: Array, n_dims: int) -> Array:
    """Append `n_dims` axes of length 1, so that (..., J) broadcasts against (..., J, *P)."""
    return array.reshape(*array.shape, *(1,) * n_dims) if hasattr(array, "shape") else array


def empty(
    centre: Centre,
    shapes: Iterable[tuple[int, ...]],
    terms: Iterable[str],
    device: str | torch.device = "cpu",
    n_cells: int | None = None,
) -> State:
    """The identity of the merge: no sample, all sums 0, as torch tensors; an axis of cells if `n_cells` is given."""
    lead = (len(centre.y),) if n_cells is None else (n_cells, len(centre.y))
    scalars = {term: torch.zeros(lead, dtype=torch.float64, device=device) for term in SCALAR_TERMS}
    features = tuple(
        {term: torch.zeros(*lead, *shape, dtype=torch.float64, device=device) for term in feature_terms(terms)}
        for shape in shapes
    )
    return State(centre, scalars, features)


def tree_sum(slots: np.ndarray) -> np.ndarray:
    """Merge slots along axis 0 in a fixed binary tree over their numbers, so that nothing else affects the bits."""
    while len(slots) > 1:
        pairs = slots[0 : len(slots) - 1 : 2] + slots[1::2]
        slots = np.concatenate([pairs, slots[-1:]]) if len(slots) % 2 else pairs
    return slots[0]
