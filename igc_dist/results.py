"""From the states of all shards to results: exchange, fixed-tree merge, jackknife, running values over folds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from igc_dist.attributors import Attributor
from igc_dist.distributed import World
from igc_dist.plan import Plan
from igc_dist.statistics import Agreement, Centre, State, Statistic, tree_sum
from igc_dist.statistics.jackknife import leave_one_out, standard_error
from igc_dist.statistics.state import SCALAR_TERMS
from igc_dist.store import Array, Phase, Store

WITH_ERROR = ("correlation", "_sum", "baseline_term")
"""Per-output results that get a standard error."""


def feature_dims(n_dims: int) -> tuple[str, ...]:
    """Names of the dimensions of an input."""
    return {1: ("feature",), 2: ("height", "width"), 3: ("channel", "height", "width")}.get(
        n_dims, tuple(f"dim_{i}" for i in range(n_dims))
    )


def phases(plan: Plan, terms: tuple[str, ...], float_type: str, *, sums: bool, skip: bool) -> list[Phase]:
    """The layout of the shard arrays of a run."""
    n, outputs, shapes = plan.shapes.n_samples, len(plan.work.outputs), plan.shapes
    folds, batches = plan.n_folds, plan.fold_size // plan.samples_per_batch
    predict, attribute = "shards/predict", "shards/attribute"

    def table(path: str, dtype: str) -> Array:
        return Array(path, (n, outputs), (plan.fold_size, outputs), dtype, ("row", "output"), (0, None), (1, 1))

    first = {
        "prediction": table(f"{predict}/prediction", float_type),
        "target": table(f"{predict}/target", "float64"),
        "bad": Array(f"{predict}/bad", (n,), (plan.fold_size,), "uint8", ("row",), (0,), (1,)),
        "count": Array(f"{predict}/count", (folds,), (1,), "int64", ("fold",), (0,), (1,)),
        "means": Array(
            f"{predict}/means", (folds, 2, outputs), (1, 2, outputs), "float64", ("fold", "table", "output"), (0, None, None), (1, 1, 1)
        ),
    }
    if sums:
        for name, shape in zip(shapes.input_names, shapes.features, strict=True):
            none = (None,) * len(shape)
            dims = ("fold", *feature_dims(len(shape)))
            first[f"{name}_sum"] = Array(
                f"{predict}/{name}_sum", (folds, *shape), (1, *shape), "float64", dims, (0, *none), (1,) * len(dims)
            )
    block = plan.output_block
    second = {
        "scalars": Array(
            f"{attribute}/scalars",
            (plan.n_parts, len(SCALAR_TERMS), outputs),
            (1, len(SCALAR_TERMS), block),
            "float64",
            ("part", "scalar_term", "output"),
            (0, None, 1),
            (1, 1, 1),
        )
    }
    for name, shape in zip(shapes.input_names, shapes.features, strict=True):
        dims, ones, none = feature_dims(len(shape)), (1,) * len(shape), (None,) * len(shape)
        second[name] = Array(
            f"{attribute}/{name}/sums", (plan.n_parts, len(terms), outputs, *shape), (1, len(terms), block, *shape), "float64",
            ("part", "term", "output", *dims), (0, None, 1, *none), (1, 1, 1, *ones),
        )  # fmt: skip
        if plan.work.samples:
            rows = plan.samples_per_batch
            second[f"{name}/attribution"] = Array(
                f"samples/{name}/attribution",
                (n, outputs, *shape),
                (rows, block, *shape),
                float_type,
                ("sample", "output", *dims),
                (0, 1, *none),
                (batches, 1, *ones),
            )
    if plan.work.samples:
        for name in ("prediction_baseline", "delta"):
            second[name] = Array(
                f"samples/{name}", (n, outputs), (plan.samples_per_batch, block), "float64", ("sample", "output"), (0, 1), (batches, 1)
            )
    if skip:
        second["skipped"] = Array(
            f"{attribute}/skipped", (n, plan.n_output_blocks), (plan.fold_size, 1), "uint8", ("row", "output_block"), (0, 1), (1, 1)
        )
    return [Phase("predict", (folds,), first), Phase("attribute", (plan.n_parts, plan.n_output_blocks), second)]


def packed(state: State, terms: Sequence[str], names: Sequence[str]) -> dict[str, np.ndarray]:
    """A shard's state as the arrays that the store keeps: a leading axis for the part, then terms."""
    arrays = {name: np.stack([sums[term] for term in terms])[None] for name, sums in zip(names, state.features, strict=True)}
    return {"scalars": np.stack([state.scalars[term] for term in SCALAR_TERMS])[None], **arrays}


@dataclass(frozen=True)
class Slots:
    """States of all folds for some outputs, before they are merged: (G, T, J, *P) per array."""

    centre: Centre
    terms: tuple[str, ...]
    scalars: np.ndarray
    features: tuple[np.ndarray, ...]

    def state(self, change: Any) -> State:
        """The state of `change(slots)`, which may keep or drop the leading axis."""

        def split(array: np.ndarray, terms: Sequence[str]) -> dict[str, np.ndarray]:
            changed = change(array)
            axis = changed.ndim - (array.ndim - 1)  # where the terms are now
            return {term: np.take(changed, t, axis) for t, term in enumerate(terms)}

        return State(self.centre, split(self.scalars, SCALAR_TERMS), tuple(split(array, self.terms) for array in self.features))


def exchange(world: World, store: Store, plan: Plan, mine: Sequence[int], outputs: slice, centre: Centre, terms: tuple[str, ...]) -> Slots:
    """All-reduce the states of some outputs of one block: a slot per shard, zero but for the shards in `mine`, summed.

    Each slot has one contributor, so the sum is exact, and the same for any number of ranks and any claiming order.
    """
    block = outputs.start // plan.output_block
    parts = sorted(number % plan.n_parts for number in mine if number // plan.n_parts == block)

    def slots(name: str) -> np.ndarray:
        array = store.phases["attribute"].arrays[name]
        buffer = np.zeros((array.shape[0], array.shape[1], outputs.stop - outputs.start, *array.shape[3:]))
        for part in parts:
            buffer[part] = store.read("attribute", name, (slice(part, part + 1), slice(None), outputs))[0]
        total = world.sum(buffer)
        # blocks of baselines of one fold are one mean: merge them first
        cut = total.reshape(plan.n_folds, plan.n_baseline_blocks, *total.shape[1:])
        return tree_sum(np.moveaxis(cut, 1, 0))

    return Slots(centre.outputs(outputs), terms, slots("scalars"), tuple(slots(name) for name in plan.shapes.input_names))


@dataclass(frozen=True)
class Block:
    """Results of some outputs: `outputs[name]` (J,), `maps[input][name]` (J, *P), `running[name]` (G, J)."""

    outputs: dict[str, np.ndarray]
    maps: tuple[dict[str, np.ndarray], ...]
    running: dict[str, np.ndarray]


def results(slots: Slots, statistics: Sequence[Statistic], attributor: Attributor) -> Block:
    """Finalize the merged state, and each state without one fold for the standard errors, and those of the first folds."""
    whole, without, first = slots.state(tree_sum), slots.state(leave_one_out), slots.state(lambda array: np.cumsum(array, axis=0))
    weight = slots.state(lambda array: array).scalars[""]
    agreement = Agreement()
    outputs = dict(agreement.finalize(whole).outputs)
    outputs |= {
        f"{name}_se": standard_error(outputs[name], value, weight)
        for name, value in agreement.finalize(without).outputs.items()
        if name.endswith(WITH_ERROR)
    }
    maps: tuple[dict[str, np.ndarray], ...] = tuple({} for _ in slots.features)
    ran = agreement.finalize(first).outputs
    running = {name: ran[name] for name in ("n", "correlation", "baseline_term")}
    for number, statistic in enumerate(statistics):
        all_of, out_of, upto = (statistic.finalize(state) for state in (whole, without, first))
        for name, value in all_of.outputs.items() if attributor.complete else ():
            label = f"{attributor.label(name.removesuffix('_sum'))}_sum"
            outputs |= {label: value, f"{label}_se": standard_error(value, out_of.outputs[name], weight)}
            running[label] = upto.outputs[name]
        for into, named, others in zip(maps, all_of.features, out_of.features, strict=True):
            for name, value in named.items():
                label = attributor.label(name)
                into |= {label: value, f"{label}_se": standard_error(value, others[name], weight)}
        if number == 0:
            running["map_distance"] = _distance(upto.features, all_of.features)
    if attributor.complete and "correlation_sum" in (name for s in statistics for name in s.finalize(whole).outputs):
        total = outputs[f"{attributor.label('correlation')}_sum"]
        outputs["igc_error"] = total - outputs["correlation"]
        outputs["quadrature_error"] = outputs["igc_error"] + outputs["baseline_term"]
    return Block(outputs, maps, running)


def _distance(running: tuple[Mapping[str, np.ndarray], ...], final: tuple[Mapping[str, np.ndarray], ...]) -> np.ndarray:
    """Relative root mean square distance of each running map (the first of the statistic) from the final one, (G, J)."""
    name = next(iter(final[0]))
    square = lambda array: array.reshape(*array.shape[:2], -1).__pow__(2).sum(-1)  # noqa: E731
    far = sum(square(many[name] - one[name]) for many, one in zip(running, final, strict=True))
    size = sum(square(one[name][None]) for one in final)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(far / size)


def output_cuts(plan: Plan) -> Iterator[slice]:
    """Ranges of outputs finalised at a time: within one block, small enough for the memory budget."""
    for start in range(0, len(plan.work.outputs), plan.output_block):
        stop = min(start + plan.output_block, len(plan.work.outputs))
        for at in range(start, stop, plan.finalize_outputs):
            yield slice(at, min(at + plan.finalize_outputs, stop))
