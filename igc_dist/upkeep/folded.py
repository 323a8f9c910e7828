"""The folded layout: the data of the shards, with many folds in one object, and one state for each fold.

The store of a run has thousands of shards with a few objects each, so that each object has one writer. In the folded
layout, the chunks of all folds of an array lie in few objects, and the states of the blocks of baselines of a fold are
added as finalizing adds them. A reader that uses the numbers of the plan (`recomputed.View`) finds the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod

import numpy as np

from igc_dist.results import View
from igc_dist.store import Array, Phase, Store

CHUNK = 64 << 20
"""The approximate size of a chunk in bytes. For example, states of 250 MB are 4 chunks: 32 folds of 10 outputs of a 224
x 224 image with two sums."""


@dataclass(frozen=True)
class Source:
    """A store to fold.

    If given, `move(phase, fold, block)` returns the arrays of the state of a fold after it was moved.
    """

    view: View
    n_folds: Mapping[str, int]
    """The number of walked folds, by phase."""
    move: Callable[[str, int, int], Mapping[str, np.ndarray]] | None = None


def is_state(phase: str, name: str, view: View) -> bool:
    """Whether an array holds the states of the folds."""
    return phase != "predict" and name in ("scalars", *view.plan.shapes.input_names)


def phases(sources: Sequence[Source], n_cells: int) -> list[Phase]:
    """The layout of all sources, one after the other."""
    first, found = sources[0].view, []
    for name, phase in first.held.phases.items():
        arrays = {}
        for key, array in phase.arrays.items():
            each = [source.view.held.phases[name].arrays[key].shape[0] for source in sources]
            state = is_state(name, key, first)
            if state:
                each = [source.view.phases[name].grid[0] // source.view.plan.n_baseline_blocks for source in sources]
            arrays[key] = _array(array, sum(each), n_cells if state else None)
        found.append(Phase(name, (1, *phase.grid[1:]), arrays))
    return found


def _array(array: Array, length: int, n_cells: int | None) -> Array:
    """An array with `length` entries along its first dimension, many per chunk.

    `n_cells` is given if it holds the states of folds.
    """
    dims, shape, cuts = array.dims, (length, *array.shape[1:]), array.chunks[1:]
    if n_cells is not None:  # (fold, term, cell, output, *P)
        dims, shape, cuts = ("fold", *dims[1:]), (*shape[:2], n_cells, *shape[3:]), (cuts[0], n_cells, *cuts[2:])
    at_once = max(1, min(length, CHUNK // max(1, prod(cuts) * np.dtype(array.dtype).itemsize)))
    per = (ceil(length / at_once), *array.per[1:])
    return replace(array, dims=dims, shape=shape, chunks=(at_once, *cuts), per=per)


def write(out: Store, sources: Sequence[Source]) -> None:
    """Fold the shards of all sources into a store of the layout `phases`, a chunk at a time."""
    for name, phase in out.phases.items():
        for number in range(len(phase)):
            cell = phase.cell(number)
            for key, array in phase.arrays.items():
                take = _states if is_state(name, key, sources[0].view) else _rows
                begin = tuple(cut.start for cut in array.region(cell))
                for start in range(0, array.shape[0], array.chunks[0]):
                    stop = min(start + array.chunks[0], array.shape[0])
                    out.write(
                        name, number, key, take(sources, name, number, key, range(start, stop)), (start, *begin[1:])
                    )
            out.commit(name, number)


def _rows(sources: Sequence[Source], phase: str, block: int, name: str, wanted: range) -> np.ndarray:
    """The `wanted` entries of an array that runs through all sources."""
    found, first = [], 0
    for source in sources:
        held = source.view.held.phases[phase].arrays[name]
        n = held.shape[0]
        begin, end = max(wanted.start - first, 0), min(wanted.stop - first, n)
        if begin < end:
            cell = (0, block) if len(source.view.phases[phase].grid) == 2 else (0,)
            found.append(source.view.read(phase, name, (slice(begin, end), *held.region(cell)[1:])))
        first += n
    return np.concatenate(found)


def _states(sources: Sequence[Source], phase: str, block: int, name: str, wanted: range) -> np.ndarray:
    """The states of the `wanted` folds; NaN for folds that were left out."""
    found, fold = [], 0
    for source in sources:
        view = source.view
        n = view.phases[phase].grid[0] // view.plan.n_baseline_blocks
        for number in range(max(wanted.start - fold, 0), min(wanted.stop - fold, n)):
            if number >= source.n_folds[phase]:
                cuts = view.held.phases[phase].arrays[name].region((0, block))[1:]
                found.append(np.full([cut.stop - cut.start for cut in cuts], np.nan))
            elif source.move is None:
                found.append(view.fold_state(phase, number, block, name))
            else:
                found.append(source.move(phase, number, block)[name])
        fold += n
    return np.stack(found)
