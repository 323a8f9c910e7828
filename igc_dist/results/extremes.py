"""Features that carry the agreement in one part of the data only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from igc_dist.results.differences import Level, reach, within_outputs
from igc_dist.results.folds import Estimate, Folds
from igc_dist.results.stored import chosen
from igc_dist.statistics import benjamini_hochberg, p_values

KINDS = ("", "absent", "reversed", "weaker")
"""What a feature is where it counts least: its interval holds 0; it has the other sign; it has the same sign."""


def spurious(
    tree: xr.DataTree,
    slices: Sequence[str] | None = None,
    outputs: Sequence[str | int] | None = None,
    of: str | None = None,
    how: Level = Level(),  # noqa: B008 - it is frozen
) -> xr.DataTree:
    """Features whose map is high in one slice, and absent or reversed in another one.

    For each output and feature the two slices are taken whose values are farthest apart for sure (the interval of one
    ends farthest above, that of the other farthest below). Their difference is tested over the same folds; as they are
    the extreme pair of S slices, its p value is multiplied by S (S - 1) / 2, then corrected for all features of the
    output (Benjamini-Hochberg). The slice with the larger value, without its sign, is the one where it counts.

    Returns for each input (output, *features): ``high`` and ``low``, the labels of the slice where the feature counts
    and of the other one; ``value_high``, ``value_low`` with ``value_low_ci_low`` and ``_ci_high``; ``difference`` (of
    high less low) with ``_se``; ``p`` and ``p_fdr``; ``at_least``, the end of the interval of \\|difference\\| that is
    nearest to 0, or 0, by which features are ranked; and ``kind``: "absent" (at high it counts, at low the interval
    holds 0), "reversed" (the interval is on the other side of 0), "weaker", or "" where the difference is not
    significant.

    `tree`, `slices`, `outputs`, `of`: as in `between_slices`, with its errors.
    """
    folds = Folds(tree)
    name, numbers, places = folds.map_name(of), folds.slices(slices), chosen(folds, outputs)
    order, labels = [*numbers.values()], np.asarray([*numbers], dtype=object)
    cuts: list[dict[str, dict[str, np.ndarray]]] = []
    for some in folds.cuts(places):
        found = folds.estimates(some, name, slices=True)
        cuts.append(_found({each: found[each][order] for each in folds.inputs}, labels, how))
    groups = {"/": xr.Dataset(coords={"output": folds.names[places]})}
    for each, dims in zip(folds.inputs, folds.plan.shapes.dims, strict=True):
        arrays = {key: np.concatenate([cut[each][key] for cut in cuts]) for key in cuts[0][each]}
        named: Mapping[Any, Any] = {dim: at for dim, at in tree.children[each].coords.items() if dim in dims}
        groups[f"/{each}"] = xr.Dataset({key: (("output", *dims), values) for key, values in arrays.items()}, named)
    answer = xr.DataTree.from_dict(groups)
    answer.attrs = {"question": "spurious", "map": name, "slices": [*numbers], "level": how.level, "fdr": how.fdr}
    return answer


def _found(parts: Mapping[str, Estimate], labels: np.ndarray, how: Level) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of `spurious` for some outputs, by input."""
    pairs = {each: _extremes(part, how) for each, part in parts.items()}
    n_pairs = len(labels) * (len(labels) - 1) / 2
    tested = {
        each: np.minimum(p_values(gap.value, gap.se, gap.freedom) * n_pairs, 1.0) for each, (_, _, gap) in pairs.items()
    }
    corrected = within_outputs(tested, benjamini_hochberg)
    answer = {}
    for each, part in parts.items():
        high, low, gap = pairs[each]
        value, half = part.value, reach(part, how.level)
        there = {at: np.take_along_axis(value, of[None], 0)[0] for at, of in (("high", high), ("low", low))}
        wide = np.take_along_axis(half, low[None], 0)[0]
        side = np.sign(there["high"]) * there["low"]
        kind = np.where(side + wide < 0, 2, np.where(side - wide > 0, 3, 1))
        kind = np.where(corrected[each] <= how.fdr, kind, 0)
        answer[each] = {
            "high": labels[high],
            "low": labels[low],
            "value_high": there["high"],
            "value_low": there["low"],
            "value_low_ci_low": there["low"] - wide,
            "value_low_ci_high": there["low"] + wide,
            "difference": gap.value,
            "difference_se": gap.se,
            "at_least": np.maximum(np.abs(gap.value) - reach(gap, how.level), 0.0),
            "p": tested[each],
            "p_fdr": corrected[each],
            "kind": np.asarray(KINDS, dtype=object)[kind],
        }
    return answer


def _extremes(part: Estimate, how: Level) -> tuple[np.ndarray, np.ndarray, Estimate]:
    """The numbers of the slices where each feature counts most and least, and the difference of their values.

    `part`: (S, J, *P). A slice without a value (a constant target) is never taken; if less than two have one, the
    difference is NaN.
    """
    half = reach(part, how.level)
    top = np.where(np.isnan(half), -np.inf, part.value - half).argmax(0)
    bottom = np.where(np.isnan(half), np.inf, part.value + half)
    np.put_along_axis(bottom, top[None], np.inf, 0)
    bottom = bottom.argmin(0)

    def at(of: np.ndarray) -> Estimate:
        return Estimate(
            np.take_along_axis(part.value, of[None], 0)[0],
            np.take_along_axis(part.deviations, of[None, None], 1)[:, 0],
            np.take_along_axis(part.freedom, of[None], 0)[0],
        )

    swap = np.abs(at(bottom).value) > np.abs(at(top).value)
    high, low = np.where(swap, bottom, top), np.where(swap, top, bottom)
    return high, low, at(high).minus(at(low), paired=True)
