"""Maps of slices beside each other on one scale, with their differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from igc_dist.records import ConfigError, printable
from igc_dist.report.contents import Floats, inputs, labels, map_names, number, sum_of
from igc_dist.report.intervals import quantile
from igc_dist.report.maps import Maps, read_maps
from igc_dist.report.panels import whole_heading
from igc_dist.secrets import masked

MOST = 4
"""The largest number of slices beside each other: with their differences from the first, seven panels in a row."""


def slice_names(tree: xr.DataTree) -> list[str]:
    """The slices that have results, if there are two or more."""
    if "slices" not in tree.children or tree["slices"].sizes.get("slice", 0) < 2:
        return []
    return [printable(name) for name in masked(tree["slices"].coords["slice"].values.tolist())]


def sliced_map(tree: xr.DataTree, group: str) -> str | None:
    """The array of an input that is there for the whole and for each slice; None if there is none."""
    if not slice_names(tree) or group not in tree["slices"].children:
        return None
    known = tree[f"slices/{group}"].data_vars
    return next((name for name in map_names(inputs(tree)[group]) if name in known and f"{name}_se" in known), None)


def read_slices(tree: xr.DataTree, group: str, max_outputs: int) -> Maps:
    """A row of maps for each output: its slices, then each slice less the first one.

    Slices hold different samples, so the standard error of a difference is the root of the sum of the squares of both.
    Raises `ConfigError` for a store without slices.
    """
    if (name := sliced_map(tree, group)) is None:
        raise ConfigError(f"no slices of input {group!r} here: give slices=, a label for each sample, to the run")
    names = slice_names(tree)[:MOST]
    parts = tree[f"slices/{group}"].to_dataset()
    each = []
    for place in range(len(names)):
        whole = xr.DataTree.from_dict({"/": tree.to_dataset(), f"/{group}": parts.isel(slice=place)})
        each.append(read_maps(whole, group, name, max_outputs))
    first = each[0]
    values = [part.values for part in each] + [part.values - first.values for part in each[1:]]
    errors = [_known(part) for part in each] + [np.hypot(_known(part), _known(first)) for part in each[1:]]
    heads = [*names, *(f"{other} - {names[0]}" for other in names[1:])]
    shown = [f"{whole_heading(label)}: {head}" for label in labels(tree)[:max_outputs] for head in heads]
    return replace(
        first,
        values=np.stack(values, 1).reshape(-1, *first.values.shape[1:]),
        errors=np.stack(errors, 1).reshape(-1, *first.values.shape[1:]) if first.values.ndim < 3 else None,
        labels=shown,
        flags=[""] * len(shown),
        columns=len(heads),
        folds=None if first.folds is None else np.repeat(first.folds, len(heads)),
    )


def slice_rows(tree: xr.DataTree, most: int) -> dict[str, Any] | None:
    """A table per slice and output, that of differences from the first slice, and the parts that add up to the whole.

    It has n, correlation, sum of the map, both with 95 % intervals, and the share of the slice. At most `most` rows are
    listed.
    """
    if "slices" not in tree.children:
        return None
    node = tree["slices"].to_dataset()
    total = sum_of(node)
    kind, t = total.removesuffix("_sum"), quantile(tree)
    titles = {"correlation": "correlation", total: "sum of map"}
    slices = [printable(name) for name in masked(node["slice"].values.tolist())]
    each: dict[str, Any] = {"n": node["n"].values} if "n" in node else {}
    apart: dict[str, Any] = {}
    for name, title in titles.items():
        if name not in node:
            continue
        values = np.asarray(node[name].values, np.float64)
        errors = node[f"{name}_se"].values if f"{name}_se" in node else np.full_like(values, np.nan)
        each |= {title: values, f"95 % of {title}": _around(values, t * errors)}
        apart |= {title: values - values[0]}
        apart[f"95 % of {title}"] = _around(values - values[0], t * np.hypot(errors, errors[0]))
    if f"{kind}_share" in node:
        each["share"] = node[f"{kind}_share"].values
    between = [
        np.asarray(dataset[f"{kind}_between"]).reshape(len(labels(tree)), -1).sum(1)
        for dataset in inputs(tree).values()
        if f"{kind}_between" in dataset
    ]
    parts = zip(labels(tree), sum(between), strict=True) if between else ()
    rest = [f"{name} - {slices[0]}" for name in slices[1:]]
    return {
        **_rows(slices, labels(tree), each, most),
        "first": slices[0] if slices else "",
        "apart": _rows(rest, labels(tree), apart, most, 1) if apart and rest else None,
        "between": [f"{label}: {number(float(value))}" for label, value in parts][:most],
    }


def _around(value: Floats, half: Floats) -> Floats:
    """The ends of intervals, (S, J, 2)."""
    return np.stack([value - half, value + half], -1)


def _rows(
    slices: list[str], outputs: list[str], columns: Mapping[str, np.ndarray], most: int, first: int = 0
) -> dict[str, Any]:
    """A table with a row for each slice, from the number `first` on, and output."""
    rows = []
    for s, name in enumerate(slices, first):
        cells = {title: values[s] for title, values in columns.items()}
        for k, label in enumerate(outputs):
            numbers = [_text(title, cell, k) for title, cell in cells.items()]
            rows.append({"label": f"{name}, output {label}", "numbers": numbers, "flag": ""})
            if len(rows) == most:
                break
    return {"heads": [*columns], "rows": rows[:most]}


def _text(title: str, cell: np.ndarray, k: int) -> str:
    if cell.ndim == 2:
        return " to ".join(number(float(end)) for end in cell[k])
    return f"{cell[k]:.0f}" if title == "n" else number(float(cell[k]))


def _known(maps: Maps) -> np.ndarray:
    assert maps.errors is not None
    return maps.errors
