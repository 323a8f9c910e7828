"""Whether the shards of a store cover its plan: every chunk has one writer, every sample counts once."""

from __future__ import annotations

from math import prod

import numpy as np

from igc_dist.results import Checked, Recorded
from igc_dist.statistics import SCALAR_TERMS
from igc_dist.store import Phase


def tiling(phase: Phase) -> list[str]:
    """Check that exactly one shard covers each chunk of a phase: every (fold, baseline block, output block) once."""
    keys = [key for number in range(len(phase)) for key in (*phase.keys(number), phase.digest_key(number))]
    chunks = sum(prod(-(-size // cut) for size, cut in zip(a.shape, a.chunks, strict=True)) for a in phase.every)
    if len({*keys}) == len(keys) == chunks:
        return []
    return [f"{phase.name}: {chunks} chunks, but shards vouch for {len(keys)}, {len({*keys})} of them different"]


def coverage(view: Checked) -> list[str]:
    """Check that every sample is in one row of one fold, by the table of the samples."""
    n = view.plan.shapes.n_samples
    rows = np.bincount(np.clip(np.asarray(view.held.array("known/index")[...]), -1, n) + 1, minlength=n + 2)
    wrong = np.flatnonzero(rows[1:-1] != 1)
    lines = [f"known/index: sample {index} is in {rows[1 + index]} rows, not in one" for index in wrong[:8]]
    return lines + ([f"known/index: and {len(wrong) - 8} more"] if len(wrong) > 8 else [])


def counts(view: Checked, job: Recorded, n_folds: int) -> list[str]:
    """Check that the states of the folds have as many samples as pass 1 found usable. Pairs are not checked."""
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
