"""The exchange at the end of a pass: each rank gets the states that it finalizes, from all shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import prod
from typing import Any

import numpy as np

from igc_dist.distributed import World
from igc_dist.planning import Plan
from igc_dist.records import StoreError
from igc_dist.statistics import SCALAR_TERMS, Centre, State, tree_sum
from igc_dist.store import Phase, Store

AT_ONCE = 32 << 20
"""Bytes of states that are sent in one message, unless one array has more."""


SOME = 1 << 20
"""Bytes of states that are added up at once as folds are added, unless one state has more."""


@dataclass(frozen=True)
class Slots:
    """States of all folds for some outputs, before they are merged: (G, T, C, J, *P) per array."""

    centre: Centre
    terms: tuple[str, ...]
    scalars: np.ndarray
    features: tuple[np.ndarray, ...]

    def state(self, change: Any) -> State:
        """The state of the arrays after `change`, which may keep or drop the leading axis."""

        def split(array: np.ndarray, terms: Sequence[str]) -> dict[str, np.ndarray]:
            changed = change(array)
            axis = changed.ndim - (array.ndim - 1)  # the axis of the terms after the change
            return {term: changed[(slice(None),) * axis + (t,)] for t, term in enumerate(terms)}  # views

        return State(
            self.centre, split(self.scalars, SCALAR_TERMS), tuple(split(array, self.terms) for array in self.features)
        )

    def upto(self, n_folds: int) -> Slots:
        """The states of the first folds."""
        return replace(self, scalars=self.scalars[:n_folds], features=tuple(array[:n_folds] for array in self.features))

    def swapped(self, fold: int, others: Slots) -> Slots:
        """A copy with the state of one fold replaced by that of `others`."""

        def swap(mine: np.ndarray, its: np.ndarray) -> np.ndarray:
            mine = mine.copy()
            mine[fold] = its[fold]
            return mine

        return replace(
            self, scalars=swap(self.scalars, others.scalars), features=tuple(map(swap, self.features, others.features))
        )

    def first(self) -> Iterator[State]:
        """Yield the states of the first fold, of the first two folds, and so on up to all, with an axis of folds.

        Each is for as many folds as take `SOME` bytes, at least one. Folds are added one after the other.
        """
        arrays = (self.scalars, *self.features)
        step = max(1, SOME * len(self.scalars) // sum(array.nbytes for array in arrays))
        sums: tuple[np.ndarray, ...] = ()
        for start in range(0, len(self.scalars), step):
            more = [array[start : start + step] for array in arrays]
            if sums:  # go on from the last state
                more = [np.concatenate([total[-1:], array]) for total, array in zip(sums, more, strict=True)]
            sums = tuple(np.add.accumulate(array)[min(start, 1) :] for array in more)
            yield replace(self, scalars=sums[0], features=sums[1:]).state(lambda array: array)


@dataclass(frozen=True)
class Walked:
    """The first folds of a phase, done by all ranks together. `mine`: the shards that this rank contributes."""

    n_folds: int
    mine: Sequence[int]


@dataclass(frozen=True)
class Exchange:
    """Exchanges states between the ranks. States are about a `centre` and have the feature sums `terms`."""

    world: World
    store: Store
    plan: Plan
    centre: Centre
    terms: tuple[str, ...]

    def states(self, phase: str, walked: Walked, cuts: Sequence[slice]) -> Slots | None:
        """Send the states of some outputs to the ranks that finalize them: ``cuts[r]`` to rank r (see `dealt`).

        Each shard has one slot, filled by the one rank that contributes it. So the numbers are the same for any number
        of ranks and any claiming order. Each state travels once; an all-reduce would send all states to all ranks.
        Returns None on a rank without a cut.
        """
        world, family = self.world, self.store.phases[phase]
        n_parts, n_slots = family.grid[0], walked.n_folds * self.plan.n_baseline_blocks
        blocks = [cut.start // self.plan.output_block for cut in cuts]
        held = [
            sorted(n % n_parts for n in walked.mine if n // n_parts == block and n % n_parts < n_slots)
            for block in blocks
        ]
        everyone = world.gather(held)
        mine = world.rank if world.rank < len(cuts) else None
        order = [] if mine is None else [part for their in everyone for part in their[mine]]
        if mine is not None and sorted(order) != [*range(n_slots)]:
            raise StoreError(
                f"store {self.store.path}: {len({*order})} of {n_slots} states of {phase} came, {len(order)} in all: "
                "run again to resume"
            )

        def slots(names: Sequence[str]) -> list[np.ndarray]:
            widths = [sum(map(prod, self._shapes(family, names, cut))) for cut in cuts]
            sizes = [len(parts) * width for parts, width in zip(held, widths, strict=True)]
            sizes += [0] * (world.size - len(cuts))
            theirs = [0 if mine is None else len(their[mine]) * widths[mine] for their in everyone]
            taken = world.deal(self._hand(phase, names, cuts, held), sizes, theirs)
            if mine is None:
                return []
            found, start = [], 0
            taken = taken.reshape(len(order), widths[mine])
            for shape in self._shapes(family, names, cuts[mine]):
                total = np.empty((n_slots, *shape))
                total[order] = taken[:, start : start + prod(shape)].reshape(len(order), *shape)
                start += prod(shape)
                # blocks of baselines of one fold belong to one mean: merge them first
                cut = total.reshape(walked.n_folds, self.plan.n_baseline_blocks, *total.shape[1:])
                found.append(tree_sum(np.moveaxis(cut, 1, 0)))
            return found

        total = [values for names in self._together(family, n_slots) for values in slots(names)]
        if mine is None:
            return None
        return Slots(self.centre.outputs(cuts[mine]), self.terms, total[0], tuple(total[1:]))

    def _together(self, family: Phase, n_slots: int) -> Iterator[list[str]]:
        """The arrays of states in lists of at most `AT_ONCE` bytes, or of one array: small ones share a message, and
        the record that a shard wrote of them is decoded once."""
        names: list[str] = []
        size = 0
        for name in ("scalars", *self.plan.shapes.input_names):
            more = n_slots * family.arrays[name].chunk_bytes
            if names and size + more > AT_ONCE:
                yield names
                names, size = [], 0
            names, size = [*names, name], size + more
        yield names

    def _shapes(self, family: Phase, names: Sequence[str], cut: slice) -> list[tuple[int, ...]]:
        """The shapes of the sums of a shard for some outputs."""
        arrays = (family.arrays[name].shape for name in names)
        return [(*shape[1:3], cut.stop - cut.start, *shape[4:]) for shape in arrays]

    def _hand(
        self, phase: str, names: Sequence[str], cuts: Sequence[slice], held: Sequence[Sequence[int]]
    ) -> np.ndarray:
        """The sums of this rank's parts of each cut, one after the other, as a flat array; those of a part together."""
        family, block_size = self.store.phases[phase], self.plan.output_block
        shapes = [self._shapes(family, names, cut) for cut in cuts]
        tables = [(len(parts), sum(map(prod, shape))) for parts, shape in zip(held, shapes, strict=True)]
        hand, ends = np.empty(sum(map(prod, tables))), np.cumsum([prod(table) for table in tables])
        pieces = [hand[end - prod(table) : end].reshape(table) for end, table in zip(ends, tables, strict=True)]
        blocks = [cut.start // block_size for cut in cuts]
        for block in sorted({*blocks}):  # a chunk is read once for all its cuts
            of = [r for r, its in enumerate(blocks) if its == block]
            for place, part in enumerate(held[of[0]]):
                starts = dict.fromkeys(of, 0)
                for at, name in enumerate(names):
                    values = self.store.read_own(phase, block * family.grid[0] + part, name)[0]
                    for r in of:
                        first, size = cuts[r].start - block * block_size, prod(shapes[r][at])
                        cut = values[:, :, first : first + cuts[r].stop - cuts[r].start]
                        pieces[r][place, starts[r] : starts[r] + size] = cut.ravel()
                        starts[r] += size
        return hand

    def audited(self, mine: Sequence[int]) -> np.ndarray:
        """All-reduce the sums of an audit over all shards, (terms, J). Each shard has one slot, as in `states`."""
        array = self.store.phases["attribute"].arrays["audit"]
        buffer = np.zeros(array.shape)
        for number in mine:
            shard = self.plan.shard(number)
            sums = self.store.read_own("attribute", number, "audit")[0]
            buffer[number % self.plan.n_parts, :, shard.outputs.start : shard.outputs.stop] = sums
        return tree_sum(self.world.sum(buffer))


def output_cuts(plan: Plan) -> Iterator[slice]:
    """Ranges of outputs that are finalized together. Each is within one block and fits the memory budget."""
    for start in range(0, len(plan.work.outputs), plan.finalize_outputs):
        yield slice(start, min(start + plan.finalize_outputs, len(plan.work.outputs)))


def dealt(world: World, plan: Plan) -> Iterator[list[slice]]:
    """Lists of ranges of outputs that are finalized at the same time; rank r takes the r-th range."""
    cuts = output_cuts(plan)
    while some := list(islice(cuts, world.size)):
        yield some


def gathered(world: World, found: Mapping[int, Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """The tables `found` by all ranks, each by the first output of its cut, in the order of the outputs."""
    whole: dict[int, dict[str, np.ndarray]] = {}
    for one in world.gather_arrays({f"{start}/{name}": its[name] for start, its in found.items() for name in its}):
        for key, values in one.items():
            start, _, name = key.partition("/")
            whole.setdefault(int(start), {})[name] = values
    return [whole[start] for start in sorted(whole)]


def share_objects(world: World, store: Store, objects: Mapping[str, bytes]) -> None:
    """In memory: every rank adds the `objects` of all ranks to its store."""
    if world.size > 1:
        for arrays in world.gather_arrays({key: np.frombuffer(value, np.uint8) for key, value in objects.items()}):
            store.absorb({key: array.tobytes() for key, array in arrays.items()})
