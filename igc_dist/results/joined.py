"""The plan that a store records, as far as it needs no statistic: torch is not imported for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int64

from igc_dist import seeds
from igc_dist.planning import Limits, Plan, Work
from igc_dist.records import Effort, Price, Shapes, StoreError

CUTS = ("fold_size", "baseline_block", "output_block", "samples_per_batch", "points_per_batch")


@dataclass(frozen=True)
class Joined(Plan):
    """The plan of several data sets, one after the other. `pieces`: the samples and the fold size of each."""

    pieces: tuple[tuple[int, int], ...] = ()

    @cached_property
    def _starts(self) -> list[int]:
        """The row at which each fold begins, and the end of the last one."""
        starts, first = [0], 0
        for n, size in self.pieces:
            starts += [first + min(at + size, n) for at in range(0, n, size)]
            first += n
        return starts

    @property
    def n_folds(self) -> int:
        return len(self._starts) - 1

    def fold(self, number: int) -> range:
        """The rows of a fold, in fold order."""
        return range(self._starts[number], self._starts[number + 1])

    @cached_property
    def order(self) -> Int64[np.ndarray, " N"]:
        """The global index of each row in fold order. Each data set is permuted by itself, as in its own run."""
        orders, first = [], 0
        for n, _ in self.pieces:
            orders.append(first + seeds.generator(self.seed, 0, "plan.folds").permutation(n).astype(np.int64))
            first += n
        return np.concatenate(orders)


def _fields(kind: type, found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass from JSON, with lists as tuples."""

    def frozen(value: Any) -> Any:
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    return {f.name: frozen(found[f.name]) for f in fields(kind) if f.name in found}


@contextmanager
def read() -> Iterator[None]:
    """Raises `StoreError` where a document says what no run writes."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise StoreError(
            f"the recipe in the root document says what no run writes ({type(error).__name__}: {error})"[:300]
        ) from error


def plan_of(found: Mapping[str, Any]) -> Joined:
    """The plan in a recipe. Raises `StoreError` for one that no run writes."""
    with read():
        return _plan(found["plan"])


def _plan(plan: Mapping[str, Any]) -> Joined:
    work = _fields(Work, plan["work"])
    if work.get("price") is not None:
        work["price"] = Price(**_fields(Price, work["price"]))
    # before there were seconds and bytes in them, they were not in a group of their own
    efforts = ((label, own[0] if isinstance(own[0], tuple) else own) for label, *own in work.get("efforts", ()))
    work["efforts"] = tuple((label, Effort(*own)) for label, own in efforts)
    pieces = tuple((int(n), int(size)) for n, size in plan["pieces"])
    shapes, cuts = Shapes(**_fields(Shapes, plan["shapes"])), {name: plan[name] for name in CUTS}
    if not all(isinstance(cut, int) and cut > 0 for cut in (*cuts.values(), work["n_baselines"])):
        raise ValueError("its cuts are no numbers of at least 1")
    if not isinstance(plan["seed"], int) or not -(1 << 63) <= plan["seed"] < 1 << 63:
        raise ValueError("its seed is no number of 64 bits")
    if sum(n for n, _ in pieces) != shapes.n_samples or min(map(min, pieces)) < 1:
        raise ValueError("its numbers do not add up")
    return Joined(shapes, Work(**work), Limits(host_memory=plan["host_memory"]), plan["seed"], **cuts, pieces=pieces)
