"""The content of a store's tree, under the names that the rest of the report uses. Only reads an opened tree.

Shape legend: O outputs, F the feature dimensions of one input (any number), K folds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from igc_dist.records import printable
from igc_dist.secrets import masked

Floats = NDArray[np.float64]

NOT_INPUTS = ("samples", "known", "shards", "convergence", "slices", "metrics")
FLAGS = {1: "constant target", 2: "constant prediction"}
TITLES = {
    "igc": "IGC",
    "igac": "IGaC",
    "ig_mean": "mean of IG",
    "ig_std": "standard deviation of IG",
    "igc_between": "IGC between slices",
    "igc_per_area": "IGC per area",
    "bsc_per_area": "BSC per area",
    "bsc": "BSC",
    "bsc_between": "BSC between slices",
    "baseline_shapley": "Baseline Shapley",
    "gradient_x_input": "gradient x input",
    "ig": "IG",
    "ig_adaptive": "adaptive IG",
    "guided_ig": "Guided IG",
    "blur_ig": "Blur IG",
    "ig2": "IG²",
    "idgi": "IDGI",
    "idgi_guided_ig": "IDGI of Guided IG",
    "idgi_blur_ig": "IDGI of Blur IG",
    "idgi_ig2": "IDGI of IG²",
    "left_ig": "Left-IG",
    "idg": "IDG",
    "smoothgrad": "SmoothGrad",
    "smoothgrad_ig": "SmoothGrad of IG",
    "expected_gradients": "Expected Gradients",
    "naive_ttest": "p-value of the naive t-test",
    "naive_ttest_t": "t of the naive t-test",
}
UNITS = {
    "naive_.*": "",
    "area": "part of the image",
    "igac|autocorrelation": "part of the prediction's variance",
    "ig2?c|idgic|bsc|correlation": "part of the correlation",
    "": "unit of the output",
}
"""What the numbers of an array are counted in, by the end of its name; the first that fits."""
SUM = "igc_sum"
"""The name used for the sum of the map over all features, whatever name the method gives it."""


def discreet(tree: xr.DataTree) -> xr.DataTree:
    """The same tree with the secrets in its attributes masked: older versions masked less."""
    hidden = masked(tree.attrs)
    if hidden == tree.attrs:  # as of this version: a copy of hundreds of groups takes seconds
        return tree
    shown = tree.copy()
    shown.attrs = hidden
    return shown


def inputs(tree: xr.DataTree) -> dict[str, xr.Dataset]:
    """The group of every model input, with x2 before x10. Groups kept for resuming and for samples are left out.

    A store lists its groups and arrays in the order of the file system, so every listing here is sorted.
    """
    return {
        name: tree.children[name].to_dataset() for name in sorted(tree.children, key=natural) if name not in NOT_INPUTS
    }


def all_inputs(tree: xr.DataTree) -> list[str]:
    """The inputs that have maps, over the data set or per sample, in the order of the model's arguments."""
    found = set(inputs(tree))
    if "samples" in tree.children:
        groups = tree.children["samples"].children
        found |= {name for name, group in groups.items() if "attribution" in group.data_vars}
    said = mapping_of(tree, "spec").get("features")
    order = [str(name) for name in said.get("names") or ()] if isinstance(said, Mapping) else []
    return sorted(found, key=lambda name: (order.index(name) if name in order else len(order), natural(name)))


def natural(name: str) -> list[tuple[bool, int, str]]:
    """A sort key that compares runs of digits as numbers."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def map_names(group: xr.Dataset) -> list[str]:
    """The arrays over outputs in an input's group, igc and igac first, areas of segments last.

    Standard errors of other arrays are left out.
    """
    names = [str(name) for name, array in group.data_vars.items() if "output" in array.dims]
    names = sorted(names, key=lambda name: (name != "igc", name != "igac", name.endswith("area"), name))
    return [name for name in names if not (name.endswith("_se") and name.removesuffix("_se") in names)]


def main_map(group: xr.Dataset) -> str | None:
    """The array that a reader looks at first: igc, else igac, else the first one; None in a group without maps."""
    return next(iter(map_names(group)), None)


def title_of(name: str) -> str:
    """The printed name of an array or a method. Without an entry it is the name, with spaces for underscores."""
    if name.endswith("_se"):
        return f"standard error of {title_of(name.removesuffix('_se'))}"
    return TITLES.get(name, printable(name.replace("_", " ")))


def unit_of(name: str) -> str:
    """What the numbers of an array are counted in; "" for correlations, p values and t."""
    name, per, _ = name.removesuffix("_se").removesuffix("_between").partition("_per_area")
    unit = next(unit for ends, unit in UNITS.items() if re.search(f"({ends})$", name))
    return f"{unit} for each unit of area" if per else unit


def scale_of(name: str) -> str:
    """The text of an axis or a scale: the title of an array, and its unit."""
    return ", ".join(filter(None, [title_of(name), unit_of(name)]))


def labels(tree: xr.DataTree) -> list[str]:
    """One printable name per output, in store order."""
    if "output" in tree.coords:
        return [printable(value) for value in masked(tree.coords["output"].values.tolist())]
    return [str(index) for index in range(tree.sizes.get("output", 0))]


def sum_of(tree: xr.DataTree | xr.Dataset) -> str:
    """The variable that holds the sum of the map: igc_sum, bsc_sum, or that of any other correlation."""
    found = sorted(str(name) for name in tree.data_vars if str(name).endswith("_correlation_sum"))
    return next((name for name in (SUM, "bsc_sum", *found) if name in tree.data_vars), SUM)


def column(tree: xr.DataTree, name: str) -> Floats | None:
    """A root variable over outputs as float64 (O,), or None if the method does not have it."""
    if name.startswith(SUM):
        name = name.replace(SUM, sum_of(tree))
    if name not in tree.data_vars:
        return None
    return np.asarray(tree.data_vars[name].values, dtype=np.float64)


def flags(tree: xr.DataTree) -> list[str]:
    """Why an output has no correlation, per output: '' or 'constant target', 'constant prediction', or both."""
    bits = tree.data_vars["constant"].values.tolist() if "constant" in tree.data_vars else [0] * len(labels(tree))
    return [", ".join(text for bit, text in FLAGS.items() if int(value) & bit) for value in bits]


def kept(tree: xr.DataTree) -> dict[str, int]:
    """The numbers of shards and samples that the store still holds one by one.

    In a group without a dimension to count, the members are counted.
    """
    found: dict[str, int] = {}
    for group, dims in {"shards": ("shard", "part"), "samples": ("sample",)}.items():
        if group in tree.children:
            nodes = [tree.children[group], *tree.children[group].children.values()]
            found[group] = max(int(node.sizes.get(dim, 0)) for node in nodes for dim in dims) or len(nodes) - 1
    return found


def mapping_of(tree: xr.DataTree, name: str) -> dict[str, Any]:
    """A root attribute that should be a mapping (spec, provenance). Another value is returned under its own name."""
    value = tree.attrs.get(name, {})
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {name: value}


def flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings as one level with dotted keys; every leaf as printable text."""
    if isinstance(value, Mapping) and value:
        flat: dict[str, str] = {}
        for key, item in value.items():
            flat |= flatten(item, f"{prefix}.{printable(key)}" if prefix else printable(key))
        return flat
    return {prefix: leaf(value)}


def leaf(value: Any) -> str:
    """A value of the spec or the provenance on one line."""
    return printable(value) if isinstance(value, str) else printable(json.dumps(value, default=str, ensure_ascii=False))


def skipped(tree: xr.DataTree) -> list[tuple[str, str]]:
    """The index of each sample that was left out, and the reason, with the path of a sample that cannot be read."""
    return [
        (leaf(item.get("index", "")), leaf(": ".join(str(item[key]) for key in ("reason", "path") if key in item)))
        for item in tree.attrs.get("skipped", [])
    ]


def number(value: float) -> str:
    """A number for reading: four decimals, powers of ten when small or large, 'NaN' when undefined."""
    if math.isnan(value):
        return "NaN"
    if value == 0 or math.isinf(value):
        return f"{value:g}"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e5 else f"{value:.2e}"


def span(values: NDArray[Any]) -> str:
    """One whole number if all are equal, else the range."""
    if values.size == 0:
        return "0"
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
