"""Is a store what it says: its bytes, its coverage of the plan, its results? Everything that can be told without model and data."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from igc_dist import reading, recomputed
from igc_dist.layout import Phase
from igc_dist.recipe import Recorded
from igc_dist.recomputed import Checked
from igc_dist.records import StoreError
from igc_dist.statistics.state import SCALAR_TERMS
from igc_dist.store import Store, attributes


@dataclass(frozen=True)
class Verdict:
    """Every damage as a line each, and why something could not be looked at."""

    lines: list[str]
    left_out: str = ""
    wrong: bool = False
    """All bytes are as they were sealed, but do not follow from each other: no rerun repairs that."""


def verify(path: str | Path, quick: bool = False) -> Verdict:
    """Look at digests; then, unless `quick` or there is damage, at coverage and at results, which are made again from the shards.

    Raises `StoreError` for what is no store, and for a recipe that no run writes.
    """
    store = Store.existing(path)
    lines = store.verify()
    if lines or quick:
        return Verdict(lines)
    about = attributes(path)
    if about.get("recipe") is None:
        return Verdict([], recomputed.without(about))
    reading.open(path)  # which looks at sizes and shapes before anything is allocated
    try:
        view, job = recomputed.opened(store, about)
        found = recomputed.found_in(view, job)
        lines = [line for phase in store.phases.values() for line in tiling(phase)]
        lines += [*coverage(view), *counts(view, job, about["budget"]["folds"])]
        lines += recomputed.check(view, job, found, about)
    except StoreError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"[:300]
        raise StoreError(f"store {path}: arrays and root document do not go together, no run wrote them ({what}): do not use it") from error
    return Verdict(lines, wrong=bool(lines))


def tiling(phase: Phase) -> list[str]:
    """Whether each chunk of a phase has one shard that vouches for it: every (fold, block of baselines, block of outputs) once."""
    keys = [key for number in range(len(phase)) for key in phase.keys(number)]
    chunks = sum(prod(-(-size // cut) for size, cut in zip(a.shape, a.chunks, strict=True)) for a in phase.arrays.values())
    if len({*keys}) == len(keys) == chunks:
        return []
    return [f"{phase.name}: {chunks} chunks, but shards vouch for {len(keys)}, {len({*keys})} of them different"]


def coverage(view: Checked) -> list[str]:
    """Whether every sample is in one row of one fold, by the table of the samples."""
    n = view.plan.shapes.n_samples
    rows = np.bincount(np.clip(np.asarray(view.held.array("known/index")[...]), -1, n) + 1, minlength=n + 2)
    wrong = np.flatnonzero(rows[1:-1] != 1)
    lines = [f"known/index: sample {index} is in {rows[1 + index]} rows, not in one" for index in wrong[:8]]
    return lines + ([f"known/index: and {len(wrong) - 8} more"] if len(wrong) > 8 else [])


def counts(view: Checked, job: Recorded, n_folds: int) -> list[str]:
    """Whether as many samples are in the states of the folds as pass 1 found fit for use; pairs of samples are not counted."""
    plan = view.plan
    if plan.work.pairs:
        return []
    fit = (view.read("predict", "bad") == 0)[:, None] & ~np.isnan(view.read("predict", "target"))
    if job.weights is not None:
        fit &= (job.weights[plan.order] > 0)[:, None]
    if "skipped" in view.phases["attribute"].arrays:
        blocks = np.arange(fit.shape[1]) // plan.output_block
        fit &= view.read("attribute", "skipped")[:, blocks] == 0
    expected = fit[: plan.fold(n_folds - 1).stop].sum(0)
    lines = []
    for block in range(plan.n_output_blocks):
        states = [view.fold_state("attribute", fold, block, "scalars") for fold in range(n_folds)]
        counted = np.rint(sum(state[SCALAR_TERMS.index("n")].sum(0) for state in states)).astype(np.int64)
        outputs = range(block * plan.output_block, block * plan.output_block + len(counted))
        lines += [
            f"shards: {mine} samples in the states of output {job.names[output]}, pass 1 found {its}"
            for output, mine, its in zip(outputs, counted, expected[outputs.start : outputs.stop], strict=True)
            if mine != its
        ]
    return lines
