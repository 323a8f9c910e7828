"""The table of features in one dimension: segments, bands and columns with their values, intervals and areas."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from igc_dist.report.contents import inputs, labels, main_map, number, title_of
from igc_dist.report.intervals import interval
from igc_dist.report.maps import fold_features
from igc_dist.report.panels import whole_heading
from igc_dist.report.ranked import names_of

TOP = 12
"""The largest number of features of an output."""
ROWS = 240
"""The largest number of rows of an input."""


def feature_tables(tree: xr.DataTree, groups: list[str], max_outputs: int) -> dict[str, dict[str, Any]]:
    """A table for each of these inputs whose main map has one dimension, by the name of the input.

    A row for each output and feature, those of largest magnitude, the largest value first: the value, its 95 %
    interval, and of segments the mean area (a part of the image) and the value for each unit of it, with its interval.
    `left`: the number of features that are left out of an output, at most.
    """
    found = {}
    for group in groups:
        dataset = inputs(tree)[group]
        name = main_map(dataset)
        assert name is not None
        array = dataset[name].isel(output=slice(max_outputs))
        values, _ = fold_features(array)
        if values.ndim != 2:
            continue
        columns = _columns(tree, group, name)
        names, rows, count = names_of(array, values.shape[1]), [], min(TOP, values.shape[1])
        for place, label in enumerate(labels(tree)[: min(len(values), max(ROWS // count, 1))]):
            size = np.nan_to_num(np.abs(values[place]), nan=-1.0)
            if size.max() < 0:
                continue
            chosen = np.argsort(-size, kind="stable")[:count]
            for each in chosen[np.argsort(-values[place][chosen], kind="stable")].tolist():
                cells = [cell(place, each) for cell in columns.values()]
                rows.append({"output": whole_heading(label), "feature": names[each], "cells": cells})
        left = values.shape[1] - count
        found[group] = {"heads": [*columns], "rows": rows, "left": left, "what": array.dims[-1]}
    return found


def _columns(tree: xr.DataTree, group: str, name: str) -> dict[str, Any]:
    """What gives the text of a cell, by the heads of the columns."""
    dataset, found = inputs(tree)[group], {}

    def values(of: str) -> Any:
        array = fold_features(dataset[of])[0]
        return lambda place, each: number(float(array[place, each]))

    def ends(of: str) -> Any:
        low, high = (fold_features(end)[0] for end in interval(tree, f"{group}/{of}"))
        return lambda place, each: f"{number(float(low[place, each]))} to {number(float(high[place, each]))}"

    for of, title in {name: title_of(name), "area": "area", f"{name}_per_area": "for each unit of area"}.items():
        if of not in dataset:
            continue
        found[title] = values(of)
        if f"{of}_se" in dataset and of != "area":
            found["95 % interval" if of == name else "95 % of it"] = ends(of)
    return found
