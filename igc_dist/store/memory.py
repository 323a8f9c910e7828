"""A store in memory as a labelled tree, without zarr: opening one by zarr took a third of a small run."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from igc_dist.store.arrays import STRINGS, document_of
from igc_dist.store.bound import Bound
from igc_dist.store.guarded import opened, packed
from igc_dist.store.layout import Array, Phase
from igc_dist.store.objects import InMemory
from igc_dist.store.rebuilt import rebuilt


class _Later(BackendArray):
    """An array of many chunks, which zarr decodes when they are asked for."""

    def __init__(self, objects: InMemory, array: Array, inside: tuple[Phase, str] | None) -> None:
        self.objects, self.path, self.inside = objects, array.path, inside
        self.shape, self.dtype = array.shape, np.dtype(array.dtype)

    def __getitem__(self, key: Any) -> Any:
        got = opened(self.objects, self.path, self.inside).get_orthogonal_selection
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, got)


def datasets(objects: InMemory, document: Mapping[str, Any]) -> dict[str, xr.Dataset]:
    """The groups of a complete store with this root document, by path. What is one chunk is in memory."""
    groups: dict[str, dict[str, xr.Variable]] = defaultdict(dict)
    records = packed(document["attributes"])
    inside = {at: json.loads(document_of(phase.arrays[name], plain=True)) for at, (phase, name) in records.items()}
    for name, about in {**document["consolidated_metadata"]["metadata"], **inside}.items():
        if (found := rebuilt(name, about, name)) is not None:
            group, _, leaf = name.rpartition("/")
            groups[f"/{group}"][leaf] = _variable(objects, *found, records.get(name))
    return _in_order({path: _dataset(variables) for path, variables in groups.items()})


def _in_order(groups: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The same with samples in the order of the data. A tree takes milliseconds to be made again in another order."""
    for top in {"/samples", "/known"} & {*groups}:
        if "index" in groups[top]:
            order = np.argsort(np.asarray(groups[top]["index"].values))
            inside = {path for path in groups if f"{path}/".startswith(f"{top}/")}
            groups |= {path: groups[path].isel(sample=order, missing_dims="ignore") for path in inside}
    return groups


def _variable(objects: InMemory, array: Array, bound: Bound, inside: tuple[Phase, str] | None) -> xr.Variable:
    values: Any = _decoded(objects, array, bound) if bound.n == 1 else None
    if values is None:
        later: Any = indexing.LazilyIndexedArray(_Later(objects, array, inside))
        values = indexing.MemoryCachedArray(indexing.CopyOnWriteArray(later))
    variable = xr.Variable(array.dims, values, fastpath=True)
    cuts = dict(zip(array.dims, array.chunks, strict=True))
    variable.encoding = {"chunks": array.chunks, "preferred_chunks": cuts, "dtype": variable.dtype}
    return variable


def _decoded(objects: InMemory, array: Array, bound: Bound) -> np.ndarray | None:
    """The one chunk of an array; None if it lies elsewhere."""
    key = array.key((0,) * len(array.shape))
    chunk = objects.get(key)
    if chunk is None:
        return None
    plain = bound.decoded(chunk, key)
    if array.dtype == "string":
        return np.asarray(STRINGS.decode(plain), dtype=np.dtypes.StringDType()).reshape(array.shape)
    inside = tuple(slice(size) for size in array.shape)
    return np.frombuffer(plain, array.dtype).reshape(array.chunks)[inside].copy()


def _dataset(variables: Mapping[str, xr.Variable]) -> xr.Dataset:
    coordinates = {name: variable for name, variable in variables.items() if variable.dims == (name,)}
    return xr.Dataset({name: v for name, v in variables.items() if name not in coordinates}, coordinates)
