"""Which outputs of a store are shown, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Int64

from igc_dist.records import ConfigError, place_of
from igc_dist.report.contents import SUM, Floats, column, labels

SORTS = {"correlation": ("correlation",), "n": ("n",), "se": ("correlation_se", f"{SUM}_se")}
"""The variables that outputs may be sorted by: the first that the store has."""


def selected(tree: xr.DataTree, outputs: Sequence[str | int] | None = None, sort: str | None = None) -> xr.DataTree:
    """The tree with these outputs only, in this order, or sorted.

    `outputs`: names; a number that is no name is a position. `sort`: "correlation" or "n", the largest first, or "se",
    the smallest standard error of the correlation (else of the sum) first; NaN is last. Raises `ConfigError` for an
    output or a variable that the store does not have.
    """
    return tree if outputs is None and sort is None else tree.isel(output=places_of(tree, outputs, sort))


def places_of(
    tree: xr.DataTree, outputs: Sequence[str | int] | None = None, sort: str | None = None
) -> Int64[np.ndarray, " O"]:
    """The positions of these outputs, in the order of `selected`."""
    names = labels(tree)
    places = (
        np.arange(len(names)) if outputs is None else np.array([place_of(name, names) for name in outputs], dtype=int)
    )
    if sort is not None:
        key = _key(tree, sort)[places]
        places = places[np.argsort(key if sort == "se" else -key, kind="stable")]  # NaN is sorted to the end
    return places


def _key(tree: xr.DataTree, sort: str) -> Floats:
    found = [values for name in SORTS.get(sort, ()) if (values := column(tree, name)) is not None]
    if not found:
        can = [each for each, names in SORTS.items() if any(column(tree, name) is not None for name in names)]
        raise ConfigError(f"outputs cannot be sorted by {sort!r}: the store has {', '.join(can) or 'nothing of it'}")
    return found[0]
