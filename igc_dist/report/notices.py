"""Facts that a reader must know before trusting a number, as (kind, sentence). A kind is 'warning' or 'note'."""

from __future__ import annotations

from collections.abc import Iterator

import xarray as xr

from igc_dist.report.contents import flags, flatten, labels, leaf, mapping_of
from igc_dist.report.judgement import judged

Notice = tuple[str, str]


def notices_of(tree: xr.DataTree) -> list[Notice]:
    """All notices, the most serious first."""
    return [*_status(tree), *_constants(tree), *judged(tree), *_budget(tree), *_precision(tree), *_samples(tree)]


def _status(tree: xr.DataTree) -> Iterator[Notice]:
    if (status := tree.attrs.get("status", "complete")) != "complete":
        yield "warning", f"The store's status is {leaf(status)}: the run did not finish, the numbers are partial."


def _constants(tree: xr.DataTree) -> Iterator[Notice]:
    for reason in ("constant target", "constant prediction"):
        names = [name for name, flag in zip(labels(tree), flags(tree), strict=True) if reason in flag]
        if names:
            listed = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
            where = f"{reason.capitalize()} in {len(names)} of {len(labels(tree))} outputs ({listed})"
            yield "warning", f"{where}: correlation and IGC do not exist and are NaN."


def _budget(tree: xr.DataTree) -> Iterator[Notice]:
    budget = mapping_of(tree, "budget")
    if int(budget.get("folds", 0)) < int(budget.get("of", 0)):
        reasons = {
            "rel_se": "the standard errors asked for are reached",
            "gradients": "the budget of gradients is spent",
        }
        why = reasons.get(str(budget.get("reason")), "the budget of seconds is spent")
        used = f"{leaf(budget['folds'])} of {leaf(budget['of'])} folds were used"
        yield "note", f"{used}, as {why}; a larger budget goes on from here."
    if budget.get("advice"):
        yield "note", f"{str(leaf(budget['advice']))[:1].upper()}{str(leaf(budget['advice']))[1:]}."


def _precision(tree: xr.DataTree) -> Iterator[Notice]:
    if fallback := tree.attrs.get("fallback"):
        yield (
            "warning",
            f"The precision asked for changed the results by more than precision.tol: all is in {leaf(fallback)}.",
        )


def _samples(tree: xr.DataTree) -> Iterator[Notice]:
    if found := mapping_of(tree, "filter"):
        why = [
            f"{count} ({reason.partition('.')[2]})" for reason, count in flatten(found).items() if "left_out" in reason
        ]
        told = f"The filter {leaf(found.get('filter'))} keeps {leaf(found.get('kept'))} samples"
        yield "note", f"{told} and leaves out {' and '.join(why) or 'none'}; known/left_out says which."
    if retried := len(tree.attrs.get("retried", [])):
        yield (
            "note",
            f"{retried} shards ran out of memory and were walked in smaller micro-batches: their last bits may differ.",
        )
    if skipped := len(tree.attrs.get("skipped", [])):
        what = "sample was" if skipped == 1 else "samples were"
        yield "note", f"{skipped} {what} skipped; the reasons are listed below."
