"""From the states of all shards to results: exchange, fixed-tree merge, jackknife, running values over folds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import prod
from typing import Any, Protocol, runtime_checkable

import numpy as np

from igc_dist.distributed import World
from igc_dist.plan import Plan
from igc_dist.records import StoreError
from igc_dist.statistics import Agreement, Cells, Centre, Correlation, State, Statistic, parted, tree_sum
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
    """States of all folds for some outputs, before they are merged: (G, T, C, J, *P) per array."""

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

    def upto(self, n_folds: int) -> Slots:
        """The states of the first folds."""
        return replace(self, scalars=self.scalars[:n_folds], features=tuple(array[:n_folds] for array in self.features))

    def swapped(self, fold: int, others: Slots) -> Slots:
        """With the state of one fold replaced by that of `others`."""

        def swap(mine: np.ndarray, its: np.ndarray) -> np.ndarray:
            mine = mine.copy()
            mine[fold] = its[fold]
            return mine

        return replace(self, scalars=swap(self.scalars, others.scalars), features=tuple(map(swap, self.features, others.features)))

    def first(self) -> Iterator[State]:
        """The states of the first fold, of the first two, and so on to all."""
        total = self.state(lambda array: array[0])
        yield total
        for fold in range(1, len(self.scalars)):
            total = total + self.state(lambda array, fold=fold: array[fold])
            yield total


@dataclass(frozen=True)
class Walked:
    """The first folds of a phase, done by all ranks together; `mine` are the numbers of the shards that this rank contributes."""

    n_folds: int
    mine: Sequence[int]


def exchange(
    world: World, store: Store, plan: Plan, phase: str, walked: Walked, cuts: Sequence[slice], centre: Centre, terms: tuple[str, ...]
) -> Slots | None:
    """Hand the states of some outputs to the rank that finalizes them: those of ``cuts[r]`` to rank r, as `dealt` gives them.

    A slot per shard, filled by the one rank that contributes it: the same numbers for any number of ranks and any claiming
    order, and each state travels once, where an all-reduce would carry all states to all ranks. None for a rank without a cut.
    """
    family = store.phases[phase]
    n_parts, n_slots = family.grid[0], walked.n_folds * plan.n_baseline_blocks
    blocks = [cut.start // plan.output_block for cut in cuts]
    held = [sorted(n % n_parts for n in walked.mine if n // n_parts == block and n % n_parts < n_slots) for block in blocks]
    everyone = world.gather(held)
    mine = world.rank if world.rank < len(cuts) else None
    order = [] if mine is None else [part for their in everyone for part in their[mine]]
    if mine is not None and sorted(order) != [*range(n_slots)]:
        raise StoreError(
            f"store {store.path}: {len({*order})} of {n_slots} states of {phase} came, {len(order)} in all: run again to resume"
        )

    def slots(name: str) -> np.ndarray | None:
        array = family.arrays[name]
        shapes = [(*array.shape[1:3], cut.stop - cut.start, *array.shape[4:]) for cut in cuts]
        sizes = [len(parts) * prod(shape) for parts, shape in zip(held, shapes, strict=True)] + [0] * (world.size - len(cuts))
        hand = np.empty(sum(sizes))
        ends = np.cumsum(sizes)
        cut_up = zip(ends, sizes, held, shapes, strict=False)
        pieces = [hand[end - size : end].reshape(len(parts), *shape) for end, size, parts, shape in cut_up]
        for block in sorted({*blocks}):  # a chunk is read once for all its cuts
            of = [r for r, its in enumerate(blocks) if its == block]
            for place, part in enumerate(held[of[0]]):
                values, first = store.read_own(phase, block * n_parts + part, name)[0], block * plan.output_block
                for r in of:
                    pieces[r][place] = values[:, :, cuts[r].start - first : cuts[r].stop - first]
        theirs = [0 if mine is None else len(their[mine]) * prod(shapes[mine]) for their in everyone]
        taken = world.deal(hand, sizes, theirs)
        del hand, pieces
        if mine is None:
            return None
        total = np.empty((n_slots, *shapes[mine]))
        total[order] = taken.reshape(len(order), *shapes[mine])
        # blocks of baselines of one fold are one mean: merge them first
        cut = total.reshape(walked.n_folds, plan.n_baseline_blocks, *total.shape[1:])
        return tree_sum(np.moveaxis(cut, 1, 0))

    scalars, *features = (slots(name) for name in ("scalars", *plan.shapes.input_names))
    if mine is None or scalars is None:
        return None
    return Slots(centre.outputs(cuts[mine]), terms, scalars, tuple(values for values in features if values is not None))


def audited(world: World, store: Store, plan: Plan, mine: Sequence[int]) -> np.ndarray:
    """All-reduce the sums of an audit over all shards, (terms, J): a slot per shard, as in `exchange`."""
    array = store.phases["attribute"].arrays["audit"]
    buffer = np.zeros(array.shape)
    for number in mine:
        shard = plan.shard(number)
        buffer[number % plan.n_parts, :, shard.outputs.start : shard.outputs.stop] = store.read_own("attribute", number, "audit")[0]
    return tree_sum(world.sum(buffer))


@runtime_checkable
class Labelled(Protocol):
    """What results are called: an attributor, or what a store remembers of one."""

    @property
    def complete(self) -> bool: ...

    def label(self, result: str) -> str: ...


@dataclass(frozen=True)
class Recipe:
    """What to make of the states. `complete`: the sums over features mean something, so they are among the results."""

    statistics: Sequence[Statistic]
    attributor: Labelled
    cells: Cells
    complete: bool
    residuals: bool = True
    """Whether there are attributions of samples, whose sums may be compared with predictions one by one."""


@dataclass(frozen=True)
class Block:
    """Results of some outputs: `outputs[name]` (J,), `maps[input][name]` (J, *P), `running[name]` (G, J); and of each slice, if
    the data set has slices: `slice_outputs[name]` (S, J), `slice_maps[input][name]` (S, J, *P)."""

    outputs: dict[str, np.ndarray]
    maps: tuple[dict[str, np.ndarray], ...]
    running: dict[str, np.ndarray]
    slice_outputs: dict[str, np.ndarray]
    slice_maps: tuple[dict[str, np.ndarray], ...]


def results(slots: Slots, recipe: Recipe) -> Block:
    """Finalize the merged state, and each state without one fold for the standard errors, and those of the first folds."""
    whole, without, folds = slots.state(tree_sum), slots.state(leave_one_out), slots.state(lambda array: array)
    outputs, maps = _finalized(whole, without, folds, recipe, slices=False)
    attributor, cells, statistics = recipe.attributor, recipe.cells, recipe.statistics
    if recipe.complete and any(statistic.name == "correlation" for statistic in statistics):
        total = outputs[_sum_label(attributor, "correlation_sum")]
        outputs["igc_error"] = total - outputs["correlation"]
        outputs["quadrature_error"] = outputs["igc_error"] + outputs["baseline_term"]
    running = _running(slots, whole, recipe)
    if cells.n_slices == 1:
        return Block(outputs, maps, running, {}, ())
    slice_outputs, slice_maps = _finalized(whole, without, folds, recipe, slices=True)
    every, each = whole.union(cells.n_groups), whole.union(cells.n_groups, slices=True)
    for statistic in statistics:
        if isinstance(statistic, Correlation):
            label = attributor.label(statistic.name)
            shares, within, between = parted(statistic, each, every)
            slice_outputs[f"{label}_share"] = shares
            for by_slice, by_output, inside, beta in zip(slice_maps, maps, within, between, strict=True):
                by_slice[f"{label}_within"], by_output[f"{label}_between"] = inside, beta
    return Block(outputs, maps, running, slice_outputs, slice_maps)


def _finalized(
    whole: State, without: State, folds: State, recipe: Recipe, *, slices: bool
) -> tuple[dict[str, np.ndarray], tuple[dict[str, np.ndarray], ...]]:
    """Results with their standard errors, (J,) and (J, *P) arrays, or with an axis of slices before the outputs."""
    cells, attributor = recipe.cells, recipe.attributor
    weight = folds.union(cells.n_groups, slices=slices).scalars[""]

    def error(value: np.ndarray, others: np.ndarray) -> np.ndarray:
        return standard_error(value, others, weight)

    agreement = Agreement()
    outputs, out_of = (dict(agreement.finalize(state.union(cells.n_groups, slices=slices)).outputs) for state in (whole, without))
    outputs |= {f"{name}_se": error(outputs[name], value) for name, value in out_of.items() if name.endswith(WITH_ERROR)}
    if not (attributor.complete and recipe.residuals):
        del outputs["completeness_error"]  # it claims none
    maps: tuple[dict[str, np.ndarray], ...] = tuple({} for _ in whole.features)
    for statistic in recipe.statistics:
        united = (state.union(cells.n_groups, slices=slices, groups=statistic.n_groups > 1) for state in (whole, without))
        found, left = (statistic.finalize(state) for state in united)
        for name, value in found.outputs.items():
            if not name.endswith("_sum"):
                outputs[name] = value
            elif recipe.complete:
                label = _sum_label(attributor, name)
                outputs |= {label: value, f"{label}_se": error(value, left.outputs[name])}
        for into, named, others in zip(maps, found.features, left.features, strict=True):
            for name, value in named.items():
                label = attributor.label(name)
                into[label] = value
                if statistic.jackknifed:
                    into[f"{label}_se"] = error(value, others[name])
    return outputs, maps


def _sum_label(attributor: Labelled, name: str) -> str:
    return f"{attributor.label(name.removesuffix('_sum'))}_sum"


def _running(slots: Slots, whole: State, recipe: Recipe) -> dict[str, np.ndarray]:
    """How the results of each output went as folds were added: one fold at a time, so that only one state is held."""
    rows: dict[str, list[np.ndarray]] = {}

    def finalized(state: State) -> tuple[dict[str, np.ndarray], list[Finalized]]:
        parts = recipe.cells.n_groups
        found = [statistic.finalize(state.union(parts, groups=statistic.n_groups > 1)) for statistic in recipe.statistics]
        return Agreement().finalize(state.union(parts)).outputs, found

    _, last = finalized(whole)
    for state in slots.first():
        ran, found = finalized(state)
        row = {name: ran[name] for name in ("n", "correlation", "baseline_term")}
        for upto in found:
            sums = {name: value for name, value in upto.outputs.items() if name.endswith("_sum") and recipe.complete}
            row |= {_sum_label(recipe.attributor, name): value for name, value in sums.items()}
        if found:
            row["map_distance"] = _distance(found[0].features, last[0].features)
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
    for start in range(0, len(plan.work.outputs), plan.finalize_outputs):
        yield slice(start, min(start + plan.finalize_outputs, len(plan.work.outputs)))


def dealt(world: World, plan: Plan) -> Iterator[list[slice]]:
    """Ranges of outputs that are finalised at the same time, the r-th of them by rank r."""
    cuts = output_cuts(plan)
    while some := list(islice(cuts, world.size)):
        yield some


def gathered(world: World, found: Mapping[int, Any]) -> list[Any]:
    """What all ranks found for their cuts, by the first output of each: in the order of the outputs."""
    whole = {start: value for one in world.gather(dict(found)) for start, value in one.items()}
    return [whole[start] for start in sorted(whole)]
