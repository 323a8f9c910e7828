"""Versions of the root document, and the step from each to the next, so that old stores open.

    1  the first
    2  missing targets, weights and slices; `sums_to_prediction`
    3  budgets: how many folds were walked, and why no more; `retried`, `fallback`
    4  `recipe`: how results are made; folded layouts (`igc-dist merge`, `compact`)
    5  the chunks of an array lie in one folder: `separator` of its layout; the small arrays of a shard are one object:
       `packed` of its phase

A step is a pure function from a document to one of the next version. It gives new keys the values that held without
them. Documents are upgraded when they are read; nothing is written. Arrays do not change: an array that a version did
not have does not exist, and the layout says where the chunks of those lie that do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from igc_dist.records import StoreError

SCHEMA = 5

Document = dict[str, Any]


def _two(document: Mapping[str, Any]) -> Document:
    """Version 1 stored the sums over all features for complete attributors, and only for these."""
    return {**document, "sums_to_prediction": "igc_error/zarr.json" in document.get("digests", {})}


def _three(document: Mapping[str, Any]) -> Document:
    """Version 2 had no budgets: all folds were walked, in the micro-batches of the plan and in one precision."""
    if document.get("status") != "complete":
        return dict(document)
    grids = {phase["name"]: phase["grid"] for phase in document["layout"]}
    wish = dict.fromkeys(("gradients", "rel_se", "replicates", "seconds"))
    folds = {"folds": grids["predict"][0], "of": grids["predict"][0]}
    budget = {**folds, "wish": wish, "reason": "all folds", "used": {"attribute": grids["attribute"][0]}}
    return {**document, "budget": budget, "retried": [], "fallback": None}


def _four(document: Mapping[str, Any]) -> Document:
    """Version 3 did not say how results were made."""
    return {**document, "recipe": None}


def _five(document: Mapping[str, Any]) -> Document:
    """Version 4 kept each chunk of a shard in an object, and each object in a folder of its own."""
    layout = [
        {
            **phase,
            "packed": [],
            "arrays": {name: {**array, "separator": "/"} for name, array in phase["arrays"].items()},
        }
        for phase in document["layout"]
    ]
    return {**document, "layout": layout}


STEPS: tuple[Callable[[Mapping[str, Any]], Document], ...] = (_two, _three, _four, _five)


def upgraded(document: Mapping[str, Any], path: Any) -> Document:
    """A root document upgraded to this version. `written` is its version on disk, if that is older.

    Raises `StoreError` for a document of a newer version, naming both versions.
    """
    version = document.get("schema")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise StoreError(f"store {path} names no version of its schema ({str(version)[:50]!r}): no run wrote it")
    if version > SCHEMA:
        raise StoreError(
            f"store {path} has schema {version}, this version of igc-dist reads 1 to {SCHEMA}: a newer one wrote it, "
            "upgrade to read it"
        )
    found = dict(document)
    try:
        for step in STEPS[version - 1 :]:
            found = step(found)
    except (KeyError, IndexError, TypeError) as error:
        raise StoreError(
            f"store {path}: its root document says what no run of schema {version} writes ({error!r}): do not use it"
        ) from error
    return found if version == SCHEMA else {**found, "schema": SCHEMA, "written": version}
