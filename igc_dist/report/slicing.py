"""Maps of slices beside each other on one scale, with their differences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from igc_dist.records import ConfigError, printable
from igc_dist.report.contents import inputs, labels, number, sum_of
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
    return next((str(name) for name in inputs(tree)[group].data_vars if name in known and f"{name}_se" in known), None)


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
    )


def slice_rows(tree: xr.DataTree, most: int) -> dict[str, Any] | None:
    """A table per slice and output, and the parts that add up to the whole.

    It has n, correlation, sum of the map, and the share of the slice. At most `most` rows are listed.
    """
    if "slices" not in tree.children:
        return None
    node = tree["slices"].to_dataset()
    total = sum_of(node)
    share = f"{total.removesuffix('_sum')}_share"
    heads = {"n": "n", "correlation": "correlation", total: "sum of map", share: "share"}
    columns = {title: node[name].values for name, title in heads.items() if name in node}
    rows = [
        {
            "label": f"{printable(name)}, output {label}",
            "numbers": [
                f"{values[s, k]:.0f}" if title == "n" else number(float(values[s, k]))
                for title, values in columns.items()
            ],
            "flag": "",
        }
        for s, name in enumerate(masked(node["slice"].values.tolist()))
        for k, label in enumerate(labels(tree))
    ]
    between = f"{total.removesuffix('_sum')}_between"
    parts = [
        np.asarray(dataset[between]).reshape(len(labels(tree)), -1).sum(1)
        for dataset in inputs(tree).values()
        if between in dataset
    ]
    apart = (
        [f"{label}: {number(float(value))}" for label, value in zip(labels(tree), sum(parts), strict=True)]
        if parts
        else []
    )
    return {"heads": list(columns), "rows": rows[:most], "between": apart[:most]}


def _known(maps: Maps) -> np.ndarray:
    assert maps.errors is not None
    return maps.errors
