"""Checks a store without model and data: its bytes, its coverage of the plan, and its results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from igc_dist import results, upkeep
from igc_dist.store import Store, attributes, consistent


@dataclass(frozen=True)
class Verdict:
    """A line for each damage, and the reason if something could not be checked."""

    lines: list[str]
    left_out: str = ""
    wrong: bool = False
    """The bytes match their digests but contradict each other: a rerun does not repair this."""


def verify(path: str | Path, quick: bool = False) -> Verdict:
    """Check the digests. Then, unless `quick` or there is damage, check coverage and recompute results from the shards.

    Raises `StoreError` if `path` is not a store, or if its recipe is one that no run writes.
    """
    store = Store.existing(path)
    lines = store.verify()
    if lines or quick:
        return Verdict(lines)
    about = attributes(path)
    if about.get("recipe") is None:
        return Verdict([], results.without(about))
    with consistent(path):
        view, job = results.recomputed.opened(store, about)
        found = results.recomputed.found_in(view, job)
        lines = [line for phase in store.phases.values() for line in upkeep.tiling(phase)]
        lines += [*upkeep.coverage(view), *upkeep.counts(view, job, about["budget"]["folds"])]
        lines += results.recomputed.check(view, job, found, about)
    return Verdict(lines, wrong=bool(lines))
