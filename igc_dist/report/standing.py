"""Whether the numbers of an output can be used: trust, look or do not use, each with its reasons."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr

from igc_dist.report.contents import column, flags, inputs, labels, leaf, mapping_of
from igc_dist.report.intervals import quantile
from igc_dist.report.judgement import SHARE, coarse_outputs

TRUST, LOOK, AVOID = "trust", "look", "do not use"
FEW = 20
"""Fewer positives than this are looked at: one of them then moves the map by several percent."""
MOVING = 0.5
"""A relative distance of the map of half of the samples to that of all, above which it is looked at."""


class Standing(NamedTuple):
    """A verdict and why, in words; no reason for trust."""

    word: str
    reasons: list[str]


def standings(tree: xr.DataTree) -> list[Standing]:
    """The verdict of each output. The worst reason decides.

    Not to be used: an unfinished run, a constant target or prediction, no correlation, too large a quadrature error
    (`judgement`). To be looked at: no standard error, an interval of the correlation that holds zero, fewer than 20
    positives or negatives, a change by precision above 5 %, samples that did not reach the tolerance, a baseline term
    above 5 % of the correlation and its standard error, and a map that half of the samples change by half. Attributions
    of single samples do not depend on the correlation and its samples.
    """
    avoid, look = _unusable(tree), _doubtful(tree)
    made = []
    for bad, doubts in zip(avoid, look, strict=True):
        word = AVOID if bad else LOOK if doubts else TRUST
        made.append(Standing(word, bad or doubts))
    return made


def _unusable(tree: xr.DataTree) -> list[list[str]]:
    status, correlation = leaf(tree.attrs.get("status", "complete")), column(tree, "correlation")
    everywhere = [f"status {status}"] if status != "complete" else []
    found = [[*everywhere, *filter(None, [flag])] for flag in flags(tree)]
    for place, coarse in enumerate(coarse_outputs(tree)):
        if coarse:
            found[place].append("quadrature error too large")
        if correlation is not None and not np.isfinite(correlation[place]) and not found[place]:
            found[place].append("no correlation")
    return found


def _doubtful(tree: xr.DataTree) -> list[list[str]]:
    found: list[list[str]] = [[] for _ in labels(tree)]

    def where(hit: np.ndarray, said: str, values: np.ndarray | None = None) -> None:
        for place in np.flatnonzero(hit).tolist():
            found[place].append(said if values is None else said.format(values[place]))

    correlation, error = column(tree, "correlation"), column(tree, "correlation_se")
    if correlation is not None and inputs(tree):
        if error is None:
            error = np.full_like(correlation, np.nan)
        where(~np.isfinite(error), "no standard error")
        where(np.abs(correlation) <= error * quantile(tree), "its correlation may be zero")
        if (baseline := column(tree, "baseline_term")) is not None:
            where(np.abs(baseline) > np.fmax(SHARE * np.abs(correlation), error), "baseline term {:.2g}", baseline)
    if (rare := rarer(tree)) is not None and inputs(tree):
        where(rare < FEW, "only {:.0f} of its rarer label", rare)
    if (change := column(tree, "precision_error")) is not None:
        where(change > SHARE, "changed by {:.0f} % in higher precision", 100 * change)
    if (failed := column(tree, "failed")) is not None:
        where(failed > 0, "{:.0f} samples not to tolerance", failed)
    if (distance := half_way(tree)) is not None:
        where(distance > MOVING, "half of the samples change its map by {:.0f} %", 100 * distance)
    half = leaf(mapping_of(tree, "provenance").get("half_steps", ""))
    if half.replace(".", "", 1).isdecimal() and float(half) > SHARE:
        where(np.ones(len(found), bool), "the map changes with half of the steps")
    return found


def rarer(tree: xr.DataTree) -> np.ndarray | None:
    """The number of samples with the rarer one of two labels, 0 and 1 (O,): NaN where targets are others."""
    n, mean, deviation = (column(tree, name) for name in ("n", "target_mean", "target_std"))
    if n is None or mean is None or deviation is None:
        return None
    # a variable with these two moments that lies between 0 and 1 has no other values
    two = np.abs(deviation**2 - mean * (1 - mean)) < 1e-9
    return np.where(two, n * np.minimum(mean, 1 - mean), np.nan)


def half_way(tree: xr.DataTree) -> np.ndarray | None:
    """The relative distance (O,) between the map of the first half of the samples and that of all."""
    if "convergence" not in tree.children or "map_distance" not in tree["convergence"].data_vars:
        return None
    distance = tree["convergence/map_distance"].transpose("fold", "output").values
    return np.asarray(distance[max(len(distance) // 2 - 1, 0)], np.float64) if len(distance) > 1 else None
