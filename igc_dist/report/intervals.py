"""Confidence intervals from the standard errors of a store."""

from __future__ import annotations

import numpy as np
import xarray as xr

from igc_dist.records import ConfigError
from igc_dist.report.contents import Floats, mapping_of


def interval(tree: xr.DataTree, name: str, level: float = 0.95) -> tuple[xr.DataArray, xr.DataArray]:
    """The confidence interval of a result of `attribute` or `open`: ``value -+ t * SE``, two arrays like the result.

    `name`: a result that has a standard error, such as "x/igc", "igc_sum" or "correlation"; the arrays are called
    igc_ci_low and igc_ci_high. t is the quantile of Student's t with G - 1 degrees of freedom, G the number of folds
    that hold samples of the output: a standard error of few folds is itself uncertain. NaN where there is no standard
    error. Raises `ConfigError` for a result without one, and for a level that is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level={level!r}: give a number between 0 and 1, such as 0.95")
    *group, short = name.split("/")
    dataset = (tree["/".join(group)] if group else tree).to_dataset()
    if short not in dataset or f"{short}_se" not in dataset:
        known = sorted(str(each) for each in dataset if f"{each}_se" in dataset)
        raise ConfigError(f"{name!r} has no standard error here: choose from {', '.join(known) or 'none'}")
    value, spread = dataset[short], dataset[f"{short}_se"]
    reach = spread * xr.DataArray(quantile(tree, level), dims="output")
    low, high = (value - reach).transpose(*value.dims), (value + reach).transpose(*value.dims)
    return low.rename(f"{short}_ci_low"), high.rename(f"{short}_ci_high")


def quantile(tree: xr.DataTree, level: float = 0.95) -> Floats:
    """Student's t of each output (O,): NaN with fewer than two folds."""
    folds = folds_of(tree)
    return np.asarray(np.where(folds > 1, student(np.maximum(folds - 1, 1), level), np.nan))


def student(freedom: Floats | int, level: float) -> Floats:
    """Student's t for an interval of this level, by degrees of freedom."""
    # imported here: it takes a moment, and not every report has an interval
    from scipy.special import stdtrit

    return np.asarray(stdtrit(freedom, (1 + level) / 2), np.float64)


def folds_of(tree: xr.DataTree) -> Floats:
    """The number of folds that hold samples of each output (O,)."""
    outputs = tree.sizes.get("output", 0)
    if "convergence" in tree.children:
        counts = np.asarray(tree["convergence/n"].transpose("fold", ...).values, np.float64)
        return np.broadcast_to((np.diff(counts, axis=0, prepend=0.0) > 0).sum(0, dtype=np.float64), outputs)
    return np.full(outputs, float(mapping_of(tree, "budget").get("folds", 0)))
