"""The scores of the metrics of a store: means over samples with their intervals."""

from __future__ import annotations

from typing import Any

import xarray as xr

from igc_dist.records import printable
from igc_dist.report.contents import flatten, labels, mapping_of, number


def score_columns(tree: xr.DataTree) -> dict[str, list[str]]:
    """One column for each score that is a mean, a median or a count, with its value for each output.

    A mean is followed by its 95 % interval and the number of samples in it. Empty without metrics.
    """
    if "metrics" not in tree.children:
        return {}
    found = tree["metrics"].to_dataset()
    names = {str(name) for name, array in found.data_vars.items() if array.dims == ("output",)}
    columns: dict[str, list[str]] = {}
    for name in sorted(names):
        values = found[name].values.tolist()
        score = name.removesuffix("_mean")
        if name.endswith("_mean"):
            ends = zip(
                values, *(found[f"{score}_{end}"].values.tolist() for end in ("ci_low", "ci_high", "n")), strict=True
            )
            columns[printable(score)] = [
                f"{number(mean)} ({number(low)} to {number(high)}, n {count})" for mean, low, high, count in ends
            ]
        elif not any(f"{name.removesuffix(end)}_mean" in names for end in ("_se", "_ci_low", "_ci_high", "_n")):
            columns[printable(name)] = [number(value) if isinstance(value, float) else f"{value:,}" for value in values]
    return columns


def metric_rows(tree: xr.DataTree, most: int) -> dict[str, Any] | None:
    """The scores of the metrics for at most so many outputs, and their settings; None without metrics."""
    columns = score_columns(tree)
    if not columns:
        return None
    rows = [
        {"label": label, "numbers": [each[index] for each in columns.values()], "flag": ""}
        for index, label in enumerate(labels(tree)[:most])
    ]
    return {"heads": list(columns), "rows": rows, "settings": flatten(mapping_of(tree, "metrics"))}
