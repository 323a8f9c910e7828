"""A store as a labelled tree."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray as xr

from igc_dist.records import IgcError, StoreError
from igc_dist.store.address import objects_at
from igc_dist.store.guarded import PER_SAMPLE, Guarded, admit, root
from igc_dist.store.lock import holder
from igc_dist.store.memory import datasets
from igc_dist.store.objects import InMemory, Objects
from igc_dist.store.schema import upgraded


def open(path: str | Path, *, allow_partial: bool = False) -> xr.DataTree:
    """A store, in a folder or under a URL, as a labelled tree.

    Arrays are in memory once accessed; per-sample rows are in the order of the data. Raises `StoreError` for a store
    that is not complete, unless `allow_partial`.
    """
    objects = objects_at(path)
    return _tree(objects, admit(objects, _ready(objects, allow_partial)))


def results(path: str | Path, *, allow_partial: bool = False, also: Sequence[str] = ()) -> xr.DataTree:
    """The same for commands that read all results of a store, and those of its other groups that `also` names.

    Raises `StoreError` too if they take much more memory than the stored bytes can be worth.
    """
    objects = objects_at(path)
    admitted = admit(objects, _ready(objects, allow_partial))
    admitted.afford(lambda name: not name.startswith(PER_SAMPLE) or name.startswith(tuple(f"{each}/" for each in also)))
    return _tree(objects, admitted)


@contextmanager
def consistent(path: Any) -> Iterator[None]:
    """For who reads arrays and root document of a store together: what does not fit is a `StoreError`."""
    try:
        yield
    except IgcError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        what = f"{type(error).__name__}: {error}"[:300]
        raise StoreError(
            f"store {path}: arrays and root document do not go together, no run wrote them ({what}): do not use it"
        ) from error


def tree(objects: Objects) -> xr.DataTree:
    """The tree of a complete store, samples in data order."""
    if isinstance(objects, InMemory):
        document = json.loads(objects.memory["zarr.json"])  # of this process: nobody else wrote it
        found = xr.DataTree.from_dict(datasets(objects, document))
        return _described(found, document["attributes"], objects)
    return _tree(objects, objects.reader())


def _ready(objects: Objects, allow_partial: bool) -> dict[str, Any]:
    """The root document of a store that is complete, or may be partial."""
    document = root(objects)
    status = document["attributes"].get("status")
    if status != "complete" and not allow_partial:
        filling = holder(objects)
        way = "run the same command again to finish it" if filling is None else f"{filling} is filling it, wait for it"
        raise StoreError(f"store {objects.path} is {status}, not complete: {way}, or open it with allow_partial=True")
    return document


def _tree(objects: Objects, admitted: Guarded) -> xr.DataTree:
    source = cast(Any, admitted)
    try:
        found = xr.open_datatree(source, engine="zarr", consolidated=True, zarr_format=3)
        for variables in (node.variables for node in found.subtree):
            for variable in variables.values():  # how it lies in memory: who saves the tree chooses a codec
                variable.encoding.pop("compressors", None)
        return _finished(found, admitted.about, objects)
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(
            f"store {objects.path} cannot be read as a tree ({type(error).__name__}: {error}): run igc-dist verify"
        ) from error


def _finished(found: xr.DataTree, about: Mapping[str, Any], objects: Objects) -> xr.DataTree:
    """The tree with samples in data order, and the attributes of its store."""
    for group in {"samples", "known"} & {*found.children}:
        if "index" in found[group]:
            found[group] = found[group].isel(sample=np.argsort(np.asarray(found[f"{group}/index"].values)))
    return _described(found, about, objects)


def _described(found: xr.DataTree, about: Mapping[str, Any], objects: Objects) -> xr.DataTree:
    """The tree with the attributes of its store."""
    # upgraded, but with its own version number
    found.attrs = {**upgraded(about, objects.path), "schema": about["schema"]}
    if isinstance(objects.path, Path):
        found.encoding["source"] = str(objects.path)
    return found
