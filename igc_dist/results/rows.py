"""The tables of single samples in the results, written a chunk at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Int64, Shaped

from igc_dist.job import Job
from igc_dist.passes import Chunks, Findings, by_prediction, of_piece
from igc_dist.passes import tables as tables_of
from igc_dist.planning import Plan
from igc_dist.results.recipe import Recorded
from igc_dist.store import Array, Store


def write_samples(plan: Plan, store: Store) -> None:
    """Write targets and predictions beside the attributions of the samples, a chunk at a time."""
    at_once = plan.table_cost.chunk_rows
    for name in ("target", "prediction"):
        kind, (n, outputs) = store.phases["predict"].arrays[name].dtype, (plan.shapes.n_samples, len(plan.work.outputs))
        array = Array(f"samples/{name}", (n, outputs), (at_once, outputs), kind, ("sample", "output"))
        store.create_results([array])
        for start in range(0, n, at_once):
            store.put(array, store.read("predict", name, (slice(start, start + at_once),)), (start,))


def write_explained(job: Job | Recorded, plan: Plan, store: Store) -> None:
    """Write which outputs of the model each sample is explained for, and their names, a chunk at a time."""
    at_once, (n, outputs) = plan.table_cost.chunk_rows, (plan.shapes.n_samples, len(plan.work.outputs))
    number, name = (
        Array(f"samples/{one}", (n, outputs), (at_once, outputs), kind, ("sample", "output"))
        for one, kind in (("explained", "int64"), ("explained_name", "string"))
    )
    store.create_results([number, name])
    for start in range(0, n, at_once):
        which = store.read("predict", "explained", (slice(start, start + at_once),))
        store.put(number, which, (start,))
        store.put(name, explained_names(which, job.targets.classes, plan.shapes.n_outputs), (start,))


def write_known(job: Job | Recorded, plan: Plan, store: Store, found: Findings) -> None:
    """Write the facts that pass 1 found about each sample, a chunk at a time."""
    n, known = plan.shapes.n_samples, partial(of_piece, store)
    made: dict[str, Array] = {}
    at_once = plan.table_cost.chunk_rows

    def write(start: int, arrays: dict[str, np.ndarray]) -> None:
        for name, values in arrays.items():
            if plan.work.each and name in ("weight", "importance"):  # those of a correlation
                continue
            if name not in made:
                dims = ("sample", "output")[: values.ndim]
                shape, chunks = ((size, *values.shape[1:]) for size in (n, at_once))
                made[name] = Array(f"known/{name}", shape, chunks, str(values.dtype), dims)
                store.create_results([made[name]])
            store.put(made[name], values, (start,))

    chunks = Chunks(write, at_once, 0, n)
    ranked = by_prediction(plan, found, known)
    for _, arrays in tables_of(plan, found, job.weights, known, ranked, job.filter is not None):
        chunks.add(arrays)


def explained_names(
    explained: Int64[np.ndarray, "n J"], classes: Sequence[str] | None, n_outputs: int
) -> Shaped[np.ndarray, "n J"]:
    """The name of each of these outputs of the model: that of its class, or its number where classes have no names."""
    known = classes if classes is not None and len(classes) == n_outputs else range(n_outputs)
    return np.asarray([str(name) for name in known], dtype=object)[explained]
