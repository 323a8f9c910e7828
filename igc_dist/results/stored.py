"""What a store keeps of its samples and outputs beside its statistics: enough for questions about samples.

A page asks them, so torch is not imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from igc_dist.records import ConfigError, StoreError, place_of, printable
from igc_dist.results.joined import Joined, plan_of
from igc_dist.store import SCHEMA


@dataclass(frozen=True)
class Stored:
    """A tree of `attribute` or `open` whose group /shards keeps the states of its folds.

    Raises `StoreError` for a tree without them, and `ConfigError` where each sample has outputs of its own.
    """

    tree: xr.DataTree
    plan: Joined = field(init=False)

    def __post_init__(self) -> None:
        if self.about.get("recipe") is None:
            raise StoreError(f"this result cannot be asked: {without(self.about)}")
        if "shards" not in self.tree.children:
            raise StoreError("this result cannot be asked: it has no group /shards with the states of its folds")
        plan = plan_of(self.about["recipe"])
        if plan.work.each:
            raise ConfigError(
                "each sample is explained for outputs of its own here, so outputs have no samples in common: run again "
                "with target=one_hot or chosen target.outputs"
            )
        object.__setattr__(self, "plan", plan)

    @cached_property
    def about(self) -> dict[str, Any]:
        """The root attributes."""
        return {str(name): value for name, value in self.tree.attrs.items()}

    @cached_property
    def names(self) -> np.ndarray:
        """Coordinate of the dimension `output`."""
        names = np.asarray(self.tree["output"].values)
        return names.astype(object) if names.dtype.kind in "OTU" else names

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.plan.shapes.input_names)


def chosen(stored: Stored, outputs: Sequence[str | int] | None) -> list[int]:
    """Places of outputs, by names or numbers. Raises `ConfigError` for one that is not there."""
    names = [printable(name) for name in stored.names.tolist()]
    if outputs is not None and not len(outputs):
        raise ConfigError("no outputs were chosen: give at least one, or None for all")
    return [*range(len(names))] if outputs is None else [place_of(output, names) for output in outputs]


def without(about: Mapping[str, Any]) -> str:
    """The reason why a store has no recipe."""
    old = about.get("written", SCHEMA) < SCHEMA
    why = f"schema {about['written']} had none" if old else "a statistic is not of this package"
    return f"it has no recipe to make its results by ({why})"
