"""Versions of the root document, and the way from each to the next, so that old stores open.

    1  the first
    2  missing targets, weights and slices; `sums_to_prediction`
    3  budgets: how many folds were walked and why no more; `retried`, `fallback`
    4  `recipe`: what results are made by; folded layouts (`igc-dist merge`, `compact`)

A step is a pure function from a document to one of the next version, and says of the new keys what was so without them. Documents are
upgraded as they are read; nothing is written. Arrays are not touched: those that a version did not have are not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from igc_dist.records import StoreError

SCHEMA = 4

Document = dict[str, Any]


def _two(document: Mapping[str, Any]) -> Document:
    """All sums over features were among the results of an attributor that is complete, and only then."""
    return {**document, "sums_to_prediction": "igc_error/zarr.json" in document.get("digests", {})}


def _three(document: Mapping[str, Any]) -> Document:
    """There were no budgets: all folds were walked, in the micro-batches of the plan and in one precision."""
    if document.get("status") != "complete":
        return dict(document)
    grids = {phase["name"]: phase["grid"] for phase in document["layout"]}
    wish = dict.fromkeys(("gradients", "rel_se", "replicates", "seconds"))
    folds = {"folds": grids["predict"][0], "of": grids["predict"][0]}
    budget = {**folds, "wish": wish, "reason": "all folds", "used": {"attribute": grids["attribute"][0]}}
    return {**document, "budget": budget, "retried": [], "fallback": None}


def _four(document: Mapping[str, Any]) -> Document:
    """What results were made by was not said."""
    return {**document, "recipe": None}


STEPS: tuple[Callable[[Mapping[str, Any]], Document], ...] = (_two, _three, _four)


def upgraded(document: Mapping[str, Any], path: Any) -> Document:
    """A root document in the words of this version; `written` is the version that it has on disk, if that is older.

    Raises `StoreError` for one of a newer version, naming both.
    """
    version = document.get("schema")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise StoreError(f"store {path} names no version of its schema ({str(version)[:50]!r}): no run wrote it")
    if version > SCHEMA:
        raise StoreError(
            f"store {path} has schema {version}, this version of igc-dist reads 1 to {SCHEMA}: a newer one wrote it, upgrade to read it"
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
