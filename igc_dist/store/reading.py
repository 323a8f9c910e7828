"""A store as a labelled tree."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from igc_dist.records import StoreError
from igc_dist.store.address import objects_at
from igc_dist.store.lock import holder
from igc_dist.store.objects import Objects
from igc_dist.store.schema import upgraded
from igc_dist.store.store import attributes


def open(path: str | Path, *, allow_partial: bool = False) -> xr.DataTree:
    """A store, in a folder or under a URL, as a labelled tree.

    Arrays are in memory once accessed; per-sample rows are in the order of the data. Raises `StoreError` for a store
    that is not complete, unless `allow_partial`.
    """
    status = attributes(path).get("status")
    if status != "complete" and not allow_partial:
        filling = holder(objects_at(path))
        way = "run the same command again to finish it" if filling is None else f"{filling} is filling it, wait for it"
        raise StoreError(f"store {path} is {status}, not complete: {way}, or open it with allow_partial=True")
    return tree(objects_at(path), status == "complete")


def tree(objects: Objects, complete: bool = True) -> xr.DataTree:
    """The tree of a store, samples in data order."""
    source: Any = objects.reader()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Object at .* is not recognized"
            )  # the lock of a run, and files that are being written
            found = xr.open_datatree(source, engine="zarr", consolidated=None if complete else False, zarr_format=3)
        for group in {"samples", "known"} & {*found.children}:
            if "index" in found[group]:
                found[group] = found[group].isel(sample=np.argsort(np.asarray(found[f"{group}/index"].values)))
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(
            f"store {objects.path} cannot be read as a tree ({type(error).__name__}: {error}): run igc-dist verify"
        ) from error
    about: Any = found.attrs
    if "schema" in about:  # upgraded to this version, but with its own version number
        found.attrs = {**upgraded(about, objects.path), "schema": about["schema"]}
    return found
