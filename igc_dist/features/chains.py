"""Reducers one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from igc_dist.features.bases import Bands, Basis, Colour
from igc_dist.features.masks import Masks
from igc_dist.features.names import Names, Shape
from igc_dist.features.reducers import Channels, Patches, Reducer, Total
from igc_dist.features.units import Heads, Tokens, Units
from igc_dist.records import ConfigError, near

NAMED: dict[str, Callable[..., Reducer]] = {
    "channels": Channels,
    "patches": Patches,
    "total": Total,
    "bands": lambda n=8: Bands("dct", n),
    "haar": lambda: Bands("haar"),
    "colour": Colour,
    "masks": Masks,
    "tokens": Tokens,
    "units": Units,
    "heads": Heads,
}
"""Reducers that a chain takes by name; a number behind a colon is their size: patches:16, bands:4."""


@dataclass(frozen=True)
class Chain(Reducer):
    """``R = R_m ... R_2 R_1``: each reducer gets the result of the one before. Linear reducers only.

    `parts`: reducers, or names of `NAMED`. A basis (`Bands`, `Colour`) is that of the image, so what stands before
    bands may only be channels or colour. Raises `ConfigError` for other parts.
    """

    parts: Any

    def __post_init__(self) -> None:
        parts = self.parts if isinstance(self.parts, list | tuple) else (self.parts,)
        made = tuple(named(part) if isinstance(part, str) else part for part in parts)
        wrong = [part for part in made if not isinstance(part, Reducer) or not part.linear]
        if wrong or not made:
            raise ConfigError(
                f"reduce: a chain of {[*parts]}, expected linear reducers such as Channels() or Patches(8), or their "
                f"names: {', '.join(NAMED)}"
            )
        for n, part in enumerate(made):
            allowed = () if isinstance(part, Colour) else (Channels, Colour)
            of_image = isinstance(part, Bands | Colour | Masks)
            if of_image and not all(isinstance(before, allowed) for before in made[:n]):
                raise ConfigError(
                    f"reduce: {type(part).__name__.lower()} after {type(made[n - 1]).__name__.lower()}: it is of the "
                    "image, put it first (bands and masks may follow channels or colour)"
                )
        if any(isinstance(a, Bands) and not isinstance(b, Total) for a, b in pairwise(made)):
            raise ConfigError("reduce: after bands there are no places in the image left: put channels before bands")
        object.__setattr__(self, "parts", made)

    @property
    def basis(self) -> Basis:
        """The basis in which attributions are taken."""
        found = Basis()
        for part in self.parts:
            found = found | basis_of(part)
        return found

    def shape(self, shape: Shape) -> Shape:
        for part in self.parts:
            shape = part.shape(shape)
        return shape

    def dims(self, dims: Names, n_dims: int) -> Names:
        for part in self.parts:  # of the number of dimensions, only free functions make use
            dims = part.dims(dims, len(dims))
        return dims

    def __call__(
        self, values: Float[Tensor, "n J *P"], x: Tensor, segments: Tensor | None = None
    ) -> Float[Tensor, "n J *Q"]:
        for part in self.parts:
            values = part(values, x, segments)
        return values

    def groups(self, shape: Shape) -> Int64[np.ndarray, "*P"] | None:
        found: np.ndarray | None = None
        for part in self.parts:
            own = part.groups(shape)
            if own is None:
                return None
            found = own if found is None else np.asarray(own).reshape(-1)[found]
            shape = part.shape(shape)
        return found


def named(word: str) -> Reducer:
    """A reducer by its name. Raises `ConfigError` with the near one."""
    name, given, size = word.strip().partition(":")
    if name not in NAMED:
        raise ConfigError(f"reduce: {name!r} is unknown{near(name, [*NAMED])}: choose from {', '.join(NAMED)}")
    try:
        return NAMED[name](int(size)) if given else NAMED[name]()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"reduce: {word!r} has no such size: {name} alone, or patches:16, bands:4") from error


def basis_of(reduce: Any) -> Basis:
    """The basis in which a reducer wants its attributions; of several for several inputs, the one that all have.

    Raises `ConfigError` if they differ.
    """
    if isinstance(reduce, Sequence) and not isinstance(reduce, str):
        found = {basis_of(each) for each in reduce}
        if len(found) > 1:
            raise ConfigError("reduce: bands and colour are for all inputs or for none, as the model is walked in them")
        return found.pop() if found else Basis()
    basis = getattr(reduce, "basis", None)
    return basis if isinstance(basis, Basis) else Basis()
