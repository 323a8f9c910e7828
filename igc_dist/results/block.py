"""Results from the states of some outputs, with jackknife standard errors, and their course over the folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from igc_dist.results.exchange import Slots
from igc_dist.statistics import (
    Agreement,
    Cells,
    Correlation,
    Finalized,
    State,
    Statistic,
    leave_one_out,
    parted,
    standard_error,
    tree_sum,
)

WITH_ERROR = ("correlation", "_sum", "baseline_term")
"""Per-output results that get a standard error."""


@runtime_checkable
class Labelled(Protocol):
    """An attributor, or the record of one in a store: it says what results are called."""

    @property
    def complete(self) -> bool: ...

    def label(self, result: str) -> str: ...


@dataclass(frozen=True)
class Recipe:
    """Which results to compute from the states. `complete`: sums over features are meaningful, so they are results."""

    statistics: Sequence[Statistic]
    attributor: Labelled
    cells: Cells
    complete: bool
    residuals: bool = True
    """Whether there are attributions of single samples, whose sums may be compared with the predictions."""


@dataclass(frozen=True)
class Block:
    """Results of some outputs.

    `outputs[name]` (J,), `maps[input][name]` (J, *P), `running[name]` (G, J). With slices, also `slice_outputs[name]`
    (S, J) and `slice_maps[input][name]` (S, J, *P).
    """

    outputs: dict[str, np.ndarray]
    maps: tuple[dict[str, np.ndarray], ...]
    running: dict[str, np.ndarray]
    slice_outputs: dict[str, np.ndarray]
    slice_maps: tuple[dict[str, np.ndarray], ...]


def block_of(slots: Slots, recipe: Recipe) -> Block:
    """Finalize the merged state.

    The state is also finalized without each fold, for the standard errors, and for the first folds, for the running
    values.
    """
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
    """Results with their standard errors: arrays (J,) and (J, *P), or with an axis of slices before the outputs."""
    cells, attributor = recipe.cells, recipe.attributor
    weight = folds.union(cells.n_groups, slices=slices).scalars[""]

    def error(value: np.ndarray, others: np.ndarray) -> np.ndarray:
        return standard_error(value, others, weight)

    agreement = Agreement()
    outputs, out_of = (
        dict(agreement.finalize(state.union(cells.n_groups, slices=slices)).outputs) for state in (whole, without)
    )
    outputs |= {
        f"{name}_se": error(outputs[name], value) for name, value in out_of.items() if name.endswith(WITH_ERROR)
    }
    if not (attributor.complete and recipe.residuals):
        del outputs["completeness_error"]  # completeness is not claimed
    maps: tuple[dict[str, np.ndarray], ...] = tuple({} for _ in whole.features)
    for statistic in recipe.statistics:
        united = (
            state.union(cells.n_groups, slices=slices, groups=statistic.n_groups > 1) for state in (whole, without)
        )
        found, left = (statistic.finalize(state) for state in united)
        for name, value in found.outputs.items():
            if not name.endswith("_sum"):
                outputs[name] = value
            elif recipe.complete:
                label = _sum_label(attributor, name)
                outputs |= {label: value, f"{label}_se": error(value, left.outputs[name])}
        for into, named, others in zip(maps, found.features, left.features, strict=True):
            for name, value in named.items():
                label = _label(attributor, name)
                into[label] = value
                if statistic.jackknifed:
                    into[f"{label}_se"] = error(value, others[name])
    return outputs, maps


def _label(attributor: Labelled, name: str) -> str:
    """The name in the store of a map; an area is no result of an attributor, and a result for each unit of it is."""
    result, per, unit = name.partition("_per_")
    return name if name == "area" else f"{attributor.label(result)}{per}{unit}"


def _sum_label(attributor: Labelled, name: str) -> str:
    return f"{attributor.label(name.removesuffix('_sum'))}_sum"


def _running(slots: Slots, whole: State, recipe: Recipe) -> dict[str, np.ndarray]:
    """Results of each output as folds are added, for as many folds at once as `Slots.first` yields."""
    rows: dict[str, list[np.ndarray]] = {}

    def finalized(state: State) -> tuple[dict[str, np.ndarray], list[Finalized]]:
        parts = recipe.cells.n_groups
        found = [
            statistic.finalize(state.union(parts, groups=statistic.n_groups > 1)) for statistic in recipe.statistics
        ]
        return Agreement().finalize(state.union(parts)).outputs, found

    _, last = finalized(whole)
    for state in slots.first():  # (G', J, *P): of many small folds at once, as each call in Python costs 1 ms
        ran, found = finalized(state)
        row = {name: ran[name] for name in ("n", "correlation", "baseline_term")}
        for upto in found:
            sums = {name: value for name, value in upto.outputs.items() if name.endswith("_sum") and recipe.complete}
            row |= {_sum_label(recipe.attributor, name): value for name, value in sums.items()}
        if found:
            row["map_distance"] = _distance(found[0].features, last[0].features)
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
    return {name: np.concatenate(values) for name, values in rows.items()}


def _distance(running: tuple[Mapping[str, np.ndarray], ...], final: tuple[Mapping[str, np.ndarray], ...]) -> np.ndarray:
    """Relative root mean square distance of running maps (of the first statistic) from the final one, (G', J)."""
    name = next(iter(final[0]))
    square = lambda array, lead: array.reshape(*array.shape[:lead], -1).__pow__(2).sum(-1)  # noqa: E731
    far = sum(square(some[name] - one[name], 2) for some, one in zip(running, final, strict=True))
    size = sum(square(one[name], 1) for one in final)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(far / size)
