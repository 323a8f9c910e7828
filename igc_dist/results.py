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
from igc_dist.statistics.base import Finalized
from igc_dist.statistics.jackknife import leave_one_out, standard_error
from igc_dist.statistics.state import SCALAR_TERMS
from igc_dist.store import Store

WITH_ERROR = ("correlation", "_sum", "baseline_term")
"""Per-output results that get a standard error."""


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
            return {term: changed[(slice(None),) * axis + (t,)] for t, term in enumerate(terms)}  # views

        return State(self.centre, split(self.scalars, SCALAR_TERMS), tuple(split(array, self.terms) for array in self.features))

    def first(self) -> Iterator[State]:
        """The states of the first fold, of the first two, and so on to all."""
        total = self.state(lambda array: array[0])
        yield total
        for fold in range(1, len(self.scalars)):
            total = total + self.state(lambda array, fold=fold: array[fold])
            yield total


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
            mine_of = store.read_own("attribute", block * plan.n_parts + part, name)
            buffer[part] = mine_of[0][:, outputs.start - block * plan.output_block : outputs.stop - block * plan.output_block]
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


def results(slots: Slots, statistics: Sequence[Statistic], attributor: Attributor, complete: bool) -> Block:
    """Finalize the merged state, and each state without one fold for the standard errors, and those of the first folds.

    Sums over features are among the results if they mean something: if the features are `complete`.
    """
    whole = slots.state(tree_sum)
    weight = slots.state(lambda array: array).scalars[""]
    agreement, found = Agreement(), [statistic.finalize(whole) for statistic in statistics]
    outputs = dict(agreement.finalize(whole).outputs)
    running = _running(slots, statistics, attributor, found, complete)
    without = slots.state(leave_one_out)
    outputs |= {
        f"{name}_se": standard_error(outputs[name], value, weight)
        for name, value in agreement.finalize(without).outputs.items()
        if name.endswith(WITH_ERROR)
    }
    maps: tuple[dict[str, np.ndarray], ...] = tuple({} for _ in slots.features)
    for statistic, all_of in zip(statistics, found, strict=True):
        out_of = statistic.finalize(without)
        for name, value in all_of.outputs.items() if complete else ():
            label = _sum_label(attributor, name)
            outputs |= {label: value, f"{label}_se": standard_error(value, out_of.outputs[name], weight)}
        for into, named, others in zip(maps, all_of.features, out_of.features, strict=True):
            for name, value in named.items():
                label = attributor.label(name)
                into |= {label: value, f"{label}_se": standard_error(value, others[name], weight)}
    if complete and any("correlation_sum" in all_of.outputs for all_of in found):
        total = outputs[_sum_label(attributor, "correlation_sum")]
        outputs["igc_error"] = total - outputs["correlation"]
        outputs["quadrature_error"] = outputs["igc_error"] + outputs["baseline_term"]
    return Block(outputs, maps, running)


def _sum_label(attributor: Attributor, name: str) -> str:
    return f"{attributor.label(name.removesuffix('_sum'))}_sum"


def _running(
    slots: Slots, statistics: Sequence[Statistic], attributor: Attributor, found: Sequence[Finalized], complete: bool
) -> dict[str, np.ndarray]:
    """How the results of each output went as folds were added: one fold at a time, so that only one state is held."""
    rows: dict[str, list[np.ndarray]] = {}
    for state in slots.first():
        ran = Agreement().finalize(state).outputs
        row = {name: ran[name] for name in ("n", "correlation", "baseline_term")}
        for number, statistic in enumerate(statistics):
            upto = statistic.finalize(state)
            row |= {_sum_label(attributor, name): value for name, value in upto.outputs.items() if complete}
            if number == 0:
                row["map_distance"] = _distance(upto.features, found[0].features)
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
    return {name: np.stack(values) for name, values in rows.items()}


def _distance(running: tuple[Mapping[str, np.ndarray], ...], final: tuple[Mapping[str, np.ndarray], ...]) -> np.ndarray:
    """Relative root mean square distance of a running map (the first of the statistic) from the final one, (J,)."""
    name = next(iter(final[0]))
    square = lambda array: array.reshape(len(array), -1).__pow__(2).sum(-1)  # noqa: E731
    far = sum(square(some[name] - one[name]) for some, one in zip(running, final, strict=True))
    size = sum(square(one[name]) for one in final)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(far / size)


def output_cuts(plan: Plan) -> Iterator[slice]:
    """Ranges of outputs finalised at a time: within one block, small enough for the memory budget."""
    for start in range(0, len(plan.work.outputs), plan.output_block):
        stop = min(start + plan.output_block, len(plan.work.outputs))
        for at in range(start, stop, plan.finalize_outputs):
            yield slice(at, min(at + plan.finalize_outputs, stop))
