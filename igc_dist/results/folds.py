"""The states of the folds of a result, and what follows from them: values, and what each fold adds to their errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float64

from igc_dist.passes import centre_of
from igc_dist.records import ConfigError, near_names
from igc_dist.results.block import Recipe
from igc_dist.results.exchange import Slots
from igc_dist.results.recipe import Recorded, recorded
from igc_dist.results.stored import Stored
from igc_dist.statistics import Agreement, Centre, State, deviations, leave_one_out, tree_sum


@dataclass(frozen=True)
class Estimate:
    """Numbers from samples, with what each fold adds to their standard error (`igc_dist.statistics.deviations`).

    `freedom`: degrees of freedom of the standard error, that of Student's t of an interval; like `value`.
    """

    value: Float64[np.ndarray, "*rest"]
    deviations: Float64[np.ndarray, "G *rest"]
    freedom: Float64[np.ndarray, "*rest"]

    @property
    def se(self) -> Float64[np.ndarray, "*rest"]:
        return np.sqrt((self.deviations**2).sum(0))

    def __getitem__(self, at: Any) -> Estimate:
        """A part of it, by an index of the first axis of `value`."""
        return Estimate(self.value[at], self.deviations[:, at], self.freedom[at])

    def minus(self, other: Estimate, paired: bool) -> Estimate:
        """The difference from another estimate.

        `paired`: both are over the same folds. Then what both have in common cancels, and the freedom is the smaller
        one. Otherwise the variances add up, and the freedom is that of Welch and Satterthwaite.
        """
        value = self.value - other.value
        if paired:
            return Estimate(value, self.deviations - other.deviations, np.asarray(np.fmin(self.freedom, other.freedom)))
        one, two = self.se**2, other.se**2
        with np.errstate(invalid="ignore", divide="ignore"):
            welch = (one + two) ** 2 / (one**2 / self.freedom + two**2 / other.freedom)
        freedom = np.where(one + two > 0, welch, np.fmin(self.freedom, other.freedom))
        return Estimate(value, np.concatenate([self.deviations, -other.deviations]), freedom)


@dataclass(frozen=True)
class Folds(Stored):
    """The states of the folds in a tree of `attribute` or `open`, with what finalizes them."""

    @cached_property
    def job(self) -> Recorded:
        return recorded(self.about["recipe"], self.about, self.names)

    def map_name(self, of: str | None) -> str:
        """The name of a map with standard errors: `of`, or that of the first statistic.

        Raises `ConfigError` for another name, and where there is none.
        """
        group = self.tree[self.inputs[0]].data_vars
        known = sorted(str(name) for name in group if f"{name}_se" in group)
        if not known:
            raise ConfigError("no map of this result has standard errors: run again with method=igc, or another one")
        if of is not None and of not in known:
            raise ConfigError(f"{of!r} is no map with standard errors here: choose from {', '.join(known)}")
        first = self.job.recipe.attributor.label(self.job.statistics[0].name)
        return of or (first if first in known else known[0])

    def slices(self, names: Sequence[str] | None = None) -> dict[str, int]:
        """The numbers of slices by their labels, all of them if there are no `names`.

        Raises `ConfigError` for names that are no slices, with near ones, and for fewer than two slices.
        """
        sliced = self.job.slices
        known = {} if sliced is None else {str(label): number for number, label in enumerate(sliced.labels.tolist())}
        if len(known) < 2:
            raise ConfigError(
                f"this result has {'no slices' if not known else 'one slice'}: run with slices=, a label for each "
                "sample (data.slices=COLUMN), of two kinds or more"
            )
        chosen = list(known) if names is None else list(names)
        for name in chosen:
            if name not in known:
                found = near_names(name, list(known)) or list(known)[:5]
                raise ConfigError(f"there is no slice {name!r} of {len(known)}: near are {', '.join(found)}")
        if len({*chosen}) < max(2, len(chosen)):
            raise ConfigError(f"slices {', '.join(chosen)}: give two or more, each once")
        return {name: known[name] for name in chosen}

    def cuts(self, outputs: Sequence[int]) -> Iterator[list[int]]:
        """The places of `outputs`, for as many at once as the plan finalizes together."""
        step = max(1, self.plan.finalize_outputs)
        for start in range(0, len(outputs), step):
            yield list(outputs[start : start + step])

    def estimates(self, outputs: Sequence[int], of: str, *, slices: bool) -> dict[str, Estimate]:
        """Estimates for some outputs: "correlation" and "igc_sum" (J,), and of each input its map (J, *P), by its name.

        `of`: the name of a map, here igc. With `slices` each has a first axis of slices. The sum is there where the
        sum over features has a meaning.
        """
        return estimates(self._slots(outputs, self.inputs), self.job.recipe, self.inputs, of, slices=slices)

    def correlations(self, outputs: Sequence[int]) -> Estimate:
        """Those of some outputs, (J,), from the sums that have no features."""
        whole, left, folds = _states(self._slots(outputs, ()), self.job.recipe, slices=False)
        mine, its = (Agreement().finalize(state).outputs["correlation"] for state in (whole, left))
        return _estimate(mine, its, folds.scalars[""])

    def _slots(self, outputs: Sequence[int], inputs: Sequence[str]) -> Slots:
        """The states of the folds that were walked, (G, T, C, J, *P), added over blocks of baselines as in a run."""
        plan, walked = self.plan, self.tree["shards/attribute"]
        used = int(self.tree.attrs["budget"]["used"]["attribute"])
        blocks = 1 if self.job.document.get("folded") else plan.n_baseline_blocks

        def read(name: str) -> np.ndarray:
            array = walked[name]
            n_folds = used // plan.n_baseline_blocks
            rows = {array.dims[0]: slice(n_folds * blocks), "output": list(outputs)}
            values = np.asarray(array.isel(rows).values, dtype=np.float64)
            return tree_sum(np.moveaxis(values.reshape(n_folds, blocks, *values.shape[1:]), 1, 0))

        return Slots(
            self._centre.outputs(np.asarray(outputs)),
            self.job.terms,
            read("scalars"),
            tuple(read(f"{name}/sums") for name in inputs),
        )

    @cached_property
    def _centre(self) -> Centre:
        centre = centre_of(np.asarray(self.tree["shards/predict/means"].values))
        group = self.tree["shards/centre"] if "centre" in self.tree["shards"].children else None
        if group is None:
            return centre
        return replace(centre, a=tuple(np.asarray(group[name].values) for name in self.inputs))


def estimates(slots: Slots, recipe: Recipe, inputs: Sequence[str], of: str, *, slices: bool) -> dict[str, Estimate]:
    """The same from the states of the folds, by a recipe and the names of the inputs."""
    groups = recipe.cells.n_groups
    states = [slots.state(change) for change in (tree_sum, leave_one_out, lambda array: array)]
    whole, left, folds = (state.union(groups, slices=slices) for state in states)
    weight = folds.scalars[""]
    mine, its = (Agreement().finalize(state).outputs["correlation"] for state in (whole, left))
    found = {"correlation": _estimate(mine, its, weight)}
    for statistic in recipe.statistics:
        one, others = (
            statistic.finalize(state.union(groups, slices=slices, groups=statistic.n_groups > 1))
            for state in states[:2]
        )
        result = next((name for name in one.features[0] if recipe.attributor.label(name) == of), None)
        if result is None:
            continue
        if recipe.complete and f"{result}_sum" in one.outputs:
            found[f"{of}_sum"] = _estimate(one.outputs[f"{result}_sum"], others.outputs[f"{result}_sum"], weight)
        for name, here, there in zip(inputs, one.features, others.features, strict=True):
            found[name] = _estimate(here[result], there[result], weight)
    return found


def _states(slots: Slots, recipe: Recipe, *, slices: bool) -> list[State]:
    """The states of all samples, of all but those of each fold, and of each fold."""
    states = [slots.state(change) for change in (tree_sum, leave_one_out, lambda array: array)]
    return [state.union(recipe.cells.n_groups, slices=slices) for state in states]


def _estimate(value: np.ndarray, without: np.ndarray, weight: np.ndarray) -> Estimate:
    folds = (weight > 0).sum(0).astype(np.float64)
    freedom = np.where(folds > 1, folds - 1, np.nan)
    freedom = freedom.reshape(*freedom.shape, *(1,) * (value.ndim - freedom.ndim))
    return Estimate(value, deviations(value, without, weight), np.broadcast_to(freedom, value.shape))
