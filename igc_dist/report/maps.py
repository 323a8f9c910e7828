"""Maps of one input: an array of it over outputs, with standard errors.

Shape legend: O outputs drawn, F feature dimensions as drawn (none, length, or height x width).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from igc_dist.report.contents import Floats, flags, inputs, labels
from igc_dist.report.intervals import folds_of, student
from igc_dist.report.panels import (
    MANY_BARS,
)
from igc_dist.report.significance import significant

NAMED = 8
"""The largest number of undefined outputs that a note names."""
NewFigure = Callable[..., Figure]
"""What makes a figure: `Figure`, or pyplot's, which shows it."""


@dataclass(frozen=True)
class Maps:
    """The outputs of one array of one input that are drawn, with their features folded to at most two dimensions."""

    name: str
    values: Floats
    errors: Floats | None
    labels: list[str]
    flags: list[str]
    features: list[str]
    note: str
    columns: int | None = None
    """Panels in a row; None: as many as fit."""
    folds: Floats | None = None
    """The number of folds that hold samples of each output."""
    undefined: int = 0
    """The number of outputs that were taken out by `defined`."""
    axis: str = ""
    """What the features are, in one dimension: segment, band, feature."""

    @property
    def sure(self) -> np.ndarray | None:
        """Of each feature whether it differs from zero (`significant`); None also of what cannot be below zero."""
        return None if not self.signed else significant(self.values, self.errors, self.folds)

    @property
    def signed(self) -> bool:
        """Whether values may be negative. Deviations and areas are not, so their scale starts at zero."""
        return not self.name.endswith(("_std", "_se")) and self.name != "area"

    @property
    def reach(self) -> Floats | None:
        """Half widths of 95 % intervals, by Student's t of the folds; standard errors where folds are not known."""
        if self.errors is None or self.folds is None:
            return self.errors
        t = np.where(self.folds > 1, student(np.maximum(self.folds - 1, 1), 0.95), np.nan)
        return self.errors * t.reshape(-1, *(1,) * (self.errors.ndim - 1))

    @property
    def of_errors(self) -> Maps | None:
        """The standard errors as maps of their own."""
        return None if self.errors is None else replace(self, name=f"{self.name}_se", values=self.errors, errors=None)


def read_maps(tree: xr.DataTree, group: str, name: str, max_outputs: int) -> Maps:
    """Read the first `max_outputs` outputs of array `name` of input `group`, and their standard errors if any."""
    dataset = inputs(tree)[group]
    array = dataset[name].isel(output=slice(max_outputs))
    se = dataset[f"{name}_se"].isel(output=slice(max_outputs)) if f"{name}_se" in dataset else None
    values, summed = fold_features(array)
    errors = None if se is None else fold_features(se)[0]
    note = ""
    if summed:
        note = f"Summed over {' and '.join(summed)}."
        note += (
            "" if errors is None else " Its standard error is the sum over the same entries, which is an upper bound."
        )
    names = feature_names(array, values.shape[1:])
    axes = [str(dim) for dim in array.dims if dim != "output" and (array.sizes[dim],) == values.shape[1:]]
    return Maps(
        name,
        values,
        errors,
        labels(tree)[:max_outputs],
        flags(tree)[:max_outputs],
        names,
        note,
        folds=folds_of(tree)[:max_outputs],
        axis=next(iter(axes), ""),
    )


def defined(maps: Maps) -> Maps:
    """Without the outputs that have no finite value, which the note names; all of them if none has one."""
    known = np.asarray(np.isfinite(maps.values).reshape(len(maps.labels), -1).any(1))
    if known.all() or not known.any():
        return maps
    gone = [
        f"{label} ({flag})" if flag else label for label, flag in _where(np.logical_not(known), maps.labels, maps.flags)
    ]
    told = ", ".join(gone[:NAMED]) + (f" and {len(gone) - NAMED} more" if len(gone) > NAMED else "")
    kept = _where(known, maps.labels, maps.flags)
    return replace(
        maps,
        values=maps.values[known],
        errors=None if maps.errors is None else maps.errors[known],
        labels=[label for label, _ in kept],
        flags=[flag for _, flag in kept],
        folds=None if maps.folds is None else maps.folds[known],
        note=f"{maps.note} Undefined, so not drawn: {told}.".strip(),
        undefined=len(gone),
    )


def _where(chosen: np.ndarray, *lists: Sequence[str]) -> list[tuple[str, ...]]:
    return [row for row, take in zip(zip(*lists, strict=True), chosen.tolist(), strict=True) if take]


def fold_features(array: xr.DataArray) -> tuple[Floats, list[str]]:
    """Fold features to at most two dimensions (O, *F). Returns also the dimensions that were summed.

    Dimensions of size one are dropped. If three or more remain, `channel` is summed first, then the leading ones. Sums
    keep the total of a map.
    """
    array = array.transpose("output", ...)
    array = array.squeeze([dim for dim in array.dims[1:] if array.sizes[dim] == 1])
    dims = [dim for dim in array.dims if dim != "output"]
    order = sorted(dims, key=lambda dim: dim != "channel")
    summed = order[: max(len(dims) - 2, 0)]
    values = np.asarray(array.values, dtype=np.float64)
    values = np.where(np.isfinite(values), values, np.nan)
    total = values.sum(axis=tuple(array.dims.index(dim) for dim in summed)) if summed else values
    return total, [f"{dim} ({array.sizes[dim]})" for dim in summed]


def feature_names(array: xr.DataArray, shape: tuple[int, ...]) -> list[str]:
    """The names of single features, if the store has them and they are few enough to print."""
    if len(shape) != 1 or shape[0] > MANY_BARS:
        return []
    named = [
        array.coords[dim].values
        for dim in array.dims
        if dim != "output" and array.sizes[dim] == shape[0] and dim in array.coords
    ]
    return [str(value) for value in named[0].tolist()] if named else []
