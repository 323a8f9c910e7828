"""Answers as rows of a table, for a terminal, CSV and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

Row = dict[str, Any]

FEATURES = ("difference", "difference_se", "difference_ci_low", "difference_ci_high", "band_low", "band_high")
STRONGEST = 3
"""Features that are named of the mean map of a cluster."""

TESTED = ("p", "p_holm", "p_fdr", "significant")


def differences_in(answer: xr.DataTree) -> list[Row]:
    """A row for each pair and output of an answer about differences: those of its correlation and its sum."""
    rows: list[Row] = []
    names = [str(name) for name, array in answer.data_vars.items() if array.dims == ("pair", "output")]
    for p, pair in enumerate(_labels(answer, "pair")):
        for j, output in enumerate(_labels(answer, "output")):
            counts = [group.data_vars["significant"].values[p, j] for group in answer.children.values()]
            numbers = {name: float(answer.data_vars[name].values[p, j]) for name in names}
            rows.append(
                {
                    "pair": pair,
                    "output": output,
                    **numbers,
                    "significant": int(sum(count.sum() for count in counts)),
                    "features": int(sum(count.size for count in counts)),
                }
            )
    return rows


def features_in(answer: xr.DataTree, top: int | None = None) -> list[Row]:
    """A row for each feature of each pair and output, the smallest p first, at most `top` of an output."""
    rows: list[Row] = []
    for p, pair in enumerate(_labels(answer, "pair")):
        for j, output in enumerate(_labels(answer, "output")):
            found = [
                {"pair": pair, "output": output, **row}
                for name, group in answer.children.items()
                for row in _features(name, group.to_dataset(), (p, j), top)
            ]
            rows += sorted(found, key=lambda row: (np.isnan(row["p"]), row["p"]))[:top]
    return rows


def _features(name: str, group: xr.Dataset, at: tuple[int, int], top: int | None) -> Iterator[Row]:
    cut: Mapping[str, np.ndarray] = {key: group[key].values[at] for key in ("first", "second", *FEATURES, *TESTED)}
    for place in np.argsort(cut["p"], axis=None, kind="stable")[:top]:
        index = np.unravel_index(int(place), cut["p"].shape)
        yield {
            "input": name,
            "feature": feature_name(group["p"], tuple(map(int, index))),
            **{key: values[index].item() for key, values in cut.items()},
        }


def feature_name(array: xr.DataArray, index: tuple[int, ...]) -> str:
    """The name of a feature by its index: that of the coordinate where there is one, else its number."""
    dims = array.dims[array.ndim - len(index) :]
    return ",".join(
        str(array[dim].values[at] if dim in array.coords else at) for dim, at in zip(dims, index, strict=True)
    )


def spurious_in(answer: xr.DataTree, top: int | None = None) -> list[Row]:
    """A row for each absent or reversed feature of an answer to `spurious`, ranked, at most `top` of an output."""
    rows: list[Row] = []
    for j, output in enumerate(_labels(answer, "output")):
        found: list[Row] = []
        for name, node in answer.children.items():
            group = node.to_dataset()
            cut = {str(key): array.values[j] for key, array in group.data_vars.items()}
            for index in zip(*np.nonzero(np.isin(cut["kind"], ["absent", "reversed"])), strict=True):
                numbers = {key: values[index] for key, values in cut.items()}
                found.append(
                    {
                        "output": output,
                        "input": name,
                        "feature": feature_name(group["kind"], tuple(map(int, index))),
                        **{key: value if isinstance(value, str) else value.item() for key, value in numbers.items()},
                    }
                )
        rows += sorted(found, key=lambda row: -row["at_least"])[:top]
    return rows


def samples_in(answer: xr.Dataset, top: int | None = None) -> list[Row]:
    """A row for each sample of an answer to `influence`: those for, then those against, of each output."""
    rows: list[Row] = []
    keys = [str(key) for key, array in answer.data_vars.items() if array.dims == ("output", "side", "rank")]
    for j, output in enumerate(_labels(answer, "output")):
        for s, side in enumerate(_labels(answer, "side")):
            cut = {key: answer[key].values[j, s] for key in keys}
            for at in np.flatnonzero(cut["sample"] >= 0)[:top].tolist():
                numbers = {key: values[at] for key, values in cut.items()}
                plain = {key: value if isinstance(value, str) else value.item() for key, value in numbers.items()}
                rows.append({"output": output, "side": side, "rank": at + 1, **plain})
    return rows


def clusters_in(answer: xr.DataTree) -> list[Row]:
    """A row for each cluster of each output of an answer to `strategies`."""
    root, rows = answer.to_dataset(), []
    for j, output in enumerate(_labels(answer, "output")):
        for cluster in range(int(root["clusters"].values[j])):
            map_of: list[tuple[float, str]] = []
            for name, node in answer.children.items():
                mean = node.to_dataset()["mean"]
                values = mean.values[j, cluster]
                for place in np.argsort(-np.abs(values), axis=None, kind="stable")[:STRONGEST]:
                    index = tuple(map(int, np.unravel_index(int(place), values.shape)))
                    label = feature_name(mean, index)
                    map_of.append((float(values[index]), label if len(answer.children) == 1 else f"{name} {label}"))
            strongest = sorted(map_of, key=lambda one: -abs(one[0]))[:STRONGEST]
            example = root["example"].values[j, cluster]
            rows.append(
                {
                    "output": output,
                    "cluster": cluster,
                    "size": int(root["size"].values[j, cluster]),
                    "share": float(root["share"].values[j, cluster]),
                    "p": float(root["p"].values[j]),
                    "strongest": "; ".join(f"{label} {value:+.2g}" for value, label in strongest),
                    "examples": " ".join(map(str, example[example >= 0].tolist())),
                }
            )
    return rows


def _labels(answer: xr.DataTree | xr.Dataset, dim: str) -> list[str]:
    return [str(label) for label in answer.coords[dim].values.tolist()]
