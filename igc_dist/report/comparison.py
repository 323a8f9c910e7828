"""How far two or more stores agree: their specs, their numbers per output, their maps."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from igc_dist.records import StoreError
from igc_dist.report.contents import Floats, flatten, inputs, labels, leaf, map_names, mapping_of

ABSENT = "(absent)"

PIECE = 16 << 20
"""Bytes of an array that are compared at a time."""

Piece = tuple[NDArray[Any], NDArray[Any], tuple[NDArray[Any], NDArray[Any]] | None]
"""Cells of two arrays, and of their standard errors."""


def told_apart(paths: Sequence[str]) -> list[str]:
    """Short names of stores: what differs in their paths, part by part. A path that comes again gets a number."""
    parts = [path.rstrip("/").split("/") for path in paths]
    before = _shared(parts)
    after = _shared([each[before:][::-1] for each in parts])
    items = [re.split(",|__", "/".join(each[before : len(each) - after])) for each in parts]
    common = set.intersection(*map(set, items))
    short = [",".join(item for item in each if item not in common) for each in items]
    names = [name or path for name, path in zip(short, paths, strict=True)]
    return [
        f"{name} ({again})" if (again := 1 + names[:place].count(name)) > 1 else name
        for place, name in enumerate(names)
    ]


def _shared(lists: Sequence[Sequence[str]]) -> int:
    return sum(1 for _ in takewhile(lambda same: len({*same}) == 1, zip(*lists, strict=False)))


@dataclass(frozen=True)
class Difference:
    """How far one map array is from the same array of the first store, over the cells that are finite in both.

    largest: largest absolute difference
    relative: root mean square of the difference over that of the first store's map
    correlation: Pearson correlation of the two maps; NaN if either is constant
    in_errors: largest |difference| / sqrt(se1^2 + se2^2); NaN without standard errors, infinite where both are zero
    lone_nans: cells that are NaN (or infinite) in one store only
    same_bits: the two arrays are the same bytes, type and NaN included
    """

    largest: float
    relative: float
    correlation: float
    in_errors: float
    lone_nans: int
    same_bits: bool


def difference(
    one: NDArray[Any], two: NDArray[Any], errors: tuple[NDArray[Any], NDArray[Any]] | None = None
) -> Difference:
    """Compare two arrays of one shape; `errors` are their standard errors. NaN where no cell is finite in both."""
    return difference_of([(one, two, errors)])


def difference_of(pieces: Iterable[Piece]) -> Difference:
    """Compare two arrays that come in pieces, so that only one piece of each is in memory."""
    same, lone, largest, worst = True, 0, math.nan, math.nan
    n, mean, sums, squares = 0, np.zeros(2), np.zeros(3), np.zeros(2)
    for one, two, errors in pieces:
        same = same and one.dtype == two.dtype and one.tobytes() == two.tobytes()
        finite_one, finite_two = np.isfinite(one), np.isfinite(two)
        both, lone = finite_one & finite_two, lone + int(np.sum(finite_one != finite_two))
        a, b = one[both].astype(np.float64), two[both].astype(np.float64)
        if not a.size:
            continue
        gap = np.abs(b - a)
        largest = float(np.fmax(largest, gap.max()))
        squares += [np.sum(gap**2), np.sum(a**2)]
        if errors is not None:
            spread = np.hypot(*[error[both].astype(np.float64) for error in errors])
            worst = float(np.fmax(worst, worst_ratio(gap, spread)))
        # sums about the mean of the piece, moved to the mean of all pieces so far
        step = np.array([a.mean(), b.mean()]) - mean
        a, b, moved = a - a.mean(), b - b.mean(), n * a.size / (n + a.size)
        sums += [a @ a + moved * step[0] ** 2, b @ b + moved * step[1] ** 2, a @ b + moved * step[0] * step[1]]
        n += a.size
        mean += step * a.size / n
    if not n:
        return Difference(math.nan, math.nan, math.nan, math.nan, lone, same)
    relative = ratio(*map(float, np.sqrt(squares / n)))
    norms = math.sqrt(sums[0]) * math.sqrt(sums[1])
    return Difference(largest, relative, float(sums[2]) / norms if norms else math.nan, worst, lone, same)


def ratio(part: float, whole: float) -> float:
    """part / whole, where 0 / 0 is 0 and anything else over 0 is infinite."""
    return part / whole if whole else (math.inf if part else 0.0)


def worst_ratio(gap: Floats, spread: Floats) -> float:
    """The largest gap in units of its standard error; NaN if no standard error is known."""
    known = np.isfinite(spread)
    gap, spread = gap[known], spread[known]
    certain = spread == 0
    ratios = [ratio(float(gap[certain].max()), 0.0)] if certain.any() else []
    ratios += [float((gap[~certain] / spread[~certain]).max())] if not certain.all() else []
    return max(ratios, default=math.nan)


def map_differences(one: xr.DataTree, two: xr.DataTree) -> dict[str, Difference]:
    """Compare every map array both stores hold, by its path (x/igc); one piece of a pair is in memory at a time.

    Raises StoreError for an array whose shape differs.
    """
    found: dict[str, Difference] = {}
    ours, theirs = inputs(one), inputs(two)
    for group in [name for name in ours if name in theirs]:
        for name in [name for name in map_names(ours[group]) if name in theirs[group]]:
            pair = [dataset[group][name].transpose("output", ...) for dataset in (ours, theirs)]
            if pair[0].shape != pair[1].shape:
                shapes = f"{pair[0].shape} in one store and {pair[1].shape} in the other"
                raise StoreError(f"{group}/{name} has shape {shapes}; compare stores over inputs of one shape")
            spread = f"{name}_se"
            if spread in ours[group] and spread in theirs[group]:
                pair += [dataset[group][spread].transpose("output", ...) for dataset in (ours, theirs)]
            found[f"{group}/{name}"] = difference_of(pieces_of(pair))
    return found


def pieces_of(arrays: Sequence[xr.DataArray]) -> Iterator[Piece]:
    """Pieces of a pair of arrays, and of their standard errors if there are four arrays."""
    shape = arrays[0].shape  # outputs come first
    axis = next((axis for axis, size in enumerate(shape) if size > 1), 0)
    at_once = max(1, PIECE * shape[axis] // max(1, arrays[0].nbytes))
    for start in range(0, shape[axis], at_once):
        cut = slice(start, start + at_once)
        one, two, *errors = (array.isel({array.dims[axis]: cut}).values for array in arrays)
        yield one, two, (errors[0], errors[1]) if errors else None


def spec_differences(trees: Mapping[str, xr.DataTree]) -> dict[str, list[str]]:
    """The keys of method and spec that differ between stores, dotted, with the value in each store."""
    flat = [
        {"method": leaf(tree.attrs.get("method", ABSENT))} | flatten(mapping_of(tree, "spec"))
        for tree in trees.values()
    ]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = {key: [one.get(key, ABSENT) for one in flat] for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def check_comparable(trees: Mapping[str, xr.DataTree]) -> None:
    """Raise StoreError unless there are two or more stores with the same outputs in the same order."""
    if len(trees) < 2:
        raise StoreError(f"compare was given {len(trees)} store(s): {', '.join(trees) or 'none'}; give two or more")
    (first, tree), *others = trees.items()
    expected = labels(tree)
    for name, other in others:
        found = labels(other)
        if len(found) != len(expected):
            raise StoreError(
                f"{first} has {len(expected)} outputs and {name} has {len(found)}; compare stores with the same outputs"
            )
        wrong = [(place, a, b) for place, (a, b) in enumerate(zip(expected, found, strict=True)) if a != b]
        if wrong:
            place, a, b = wrong[0]
            pair = f"output {place} is {a!r} in {first} and {b!r} in {name} ({len(wrong)} differ)"
            raise StoreError(f"{pair}; compare stores with the same outputs in the same order")
