"""Differences between two results: of two models on the same data, or of one model on two data sets (drift)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float64

from igc_dist.records import ConfigError, printable
from igc_dist.results.between import Asked, Pair, Parts
from igc_dist.results.differences import Level, reach
from igc_dist.results.folds import Estimate, Folds
from igc_dist.results.stored import chosen
from igc_dist.store import differences

APART = ("plan.", "samples", "replicates", "slices", "device", "seed")
"""Keys of a spec that may differ without another meaning of the numbers."""


def between_models(
    tree: xr.DataTree,
    other: xr.DataTree,
    outputs: Sequence[str | int] | None = None,
    of: str | None = None,
    how: Level = Level(),  # noqa: B008 - it is frozen
) -> xr.DataTree:
    """How the map of another model differs from that of this one, on the same data.

    Both are results of `attribute` or `open`. Outputs that both have are compared by their names. The tree is that of
    `between_slices`, with one pair: ``x/difference`` is that of `other` less that of `tree`. Where both were run with
    the same folds (the same seed and number of folds), the differences are paired: what all models find hard or easy in
    a fold cancels. Otherwise variances add up, which makes intervals wider than they need be;
    ``attrs["pairing"]`` says which. ``attrs["also"]`` lists what else differs between the two.

    Raises `ConfigError` for results of other data, of one model, without a common output, or of other features.
    """
    one, two = Folds(tree), Folds(other)
    if not _same(one, two, "data"):
        raise ConfigError("models: the two results are of other data; for one model on two data sets ask drift")
    if _same(one, two, "model"):
        raise ConfigError("models: both results are of one model, with the same weights and settings")
    paired = _same_folds(one, two)
    said = "paired, over the same folds" if paired else (
        "not paired, as the folds are others: the same seed and n_folds make intervals narrower"
    )  # fmt: skip
    return _between(one, two, outputs, of, how, {"question": "models", "paired": paired, "pairing": said})


def between_data(
    tree: xr.DataTree,
    other: xr.DataTree,
    outputs: Sequence[str | int] | None = None,
    of: str | None = None,
    how: Level = Level(),  # noqa: B008 - it is frozen
) -> xr.DataTree:
    """How the map of a model on other data differs from that on these: drift.

    As `between_models`; the samples are others, so their variances add up, with the degrees of freedom of Welch and
    Satterthwaite. Raises `ConfigError` for results of other models, of the same data, without a common output, or of
    other features.
    """
    one, two = Folds(tree), Folds(other)
    if not _same(one, two, "model"):
        raise ConfigError("drift: the two results are of other models; for two models on the same data ask models")
    if _same(one, two, "data"):
        raise ConfigError("drift: both results are of the same data; to compare parts of them, give slices to the run")
    said = "not paired, as the samples are others"
    return _between(one, two, outputs, of, how, {"question": "drift", "paired": False, "pairing": said})


CELLS = 2**24
"""Numbers in the states of an input of two results, whose sums are compared: 128 MiB of each."""


def paired_numbers(
    tree: xr.DataTree, other: xr.DataTree, places: Sequence[int], theirs: Sequence[int], *, sums: bool
) -> tuple[Float64[np.ndarray, " J"], Float64[np.ndarray, " J"]] | None:
    """Differences of correlations over the same folds, `other` less `tree`, and half of their 95 % intervals.

    `places`, `theirs`: positions of outputs. With `sums` those of the sums of the maps. What all runs find hard or easy
    in a fold cancels. None for other data or other folds, and for sums that are not there, or of more than 2^24 numbers
    in the states. Raises `StoreError` for results without the states of their folds.
    """
    both = Folds(tree), Folds(other)
    if not _same(*both, "data") or not _same_folds(*both):
        return None
    found: list[Estimate] = []
    for folds, some in zip(both, (places, theirs), strict=True):
        if not sums:
            found.append(folds.correlations(some))
            continue
        states, name = folds.tree["shards/attribute"], folds.map_name(None)
        if sum(states[f"{group}/sums"].size for group in folds.inputs) > CELLS:
            return None
        parts = folds.estimates(some, name, slices=False)
        if f"{name}_sum" not in parts:
            return None
        found.append(parts[f"{name}_sum"])
    gap = found[1].minus(found[0], paired=True)
    return gap.value, reach(gap, 0.95)


def _between(
    one: Folds, two: Folds, outputs: Sequence[str | int] | None, of: str | None, how: Level, about: Mapping[str, Any]
) -> xr.DataTree:
    name = one.map_name(of)
    if two.map_name(name) != name or one.inputs != two.inputs or _shapes(one) != _shapes(two):
        raise ConfigError(
            f"the features are others: {_said(one)} here, {_said(two)} there: run both with the same inputs and reduce"
        )
    names, theirs = ([printable(each) for each in folds.names.tolist()] for folds in (one, two))
    common = [at for at, output in enumerate(names) if output in theirs]
    places = common if outputs is None else chosen(one, outputs)
    if missing := [names[at] for at in places if at not in common]:
        raise ConfigError(f"output {missing[0]!r} is in one of the results only")
    if not places:
        raise ConfigError(f"the results have no output in common: {names[:3]} here, {theirs[:3]} there")

    def cut(some: Sequence[int]) -> list[tuple[Parts, Parts]]:
        there = [theirs.index(names[at]) for at in some]
        return [(one.estimates(some, name, slices=False), two.estimates(there, name, slices=False))]

    pair = Pair("other - this", "this", "other")
    also = differences(_rest(one), _rest(two))
    return Asked(one, places, cut, about["paired"]).answer([pair], how, {**about, "map": name, "also": also})


def _shapes(folds: Folds) -> list[tuple[int, ...]]:
    return [tuple(features) for features in folds.plan.shapes.features]


def _said(folds: Folds) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in zip(folds.inputs, _shapes(folds), strict=True))


def _same(one: Folds, two: Folds, key: str) -> bool:
    return bool(one.tree.attrs["spec"][key] == two.tree.attrs["spec"][key])


def _same_folds(one: Folds, two: Folds) -> bool:
    """Whether the same samples count in the same folds, with the same weights."""
    a, b = one.job.plan, two.job.plan
    used = [folds.tree.attrs["budget"]["folds"] for folds in (one, two)]
    counted = [{key: folds.tree.attrs["spec"].get(key) for key in ("weights", "filter")} for folds in (one, two)]
    return (
        a.n_folds == b.n_folds
        and used[0] == used[1]
        and all(a.fold(number) == b.fold(number) for number in range(a.n_folds))
        and np.array_equal(a.order, b.order)
        and not differences(counted[0], counted[1])
    )


def _rest(folds: Folds) -> dict[str, Any]:
    """What a spec says beside data and model, and what has no meaning for the numbers."""
    spec = {str(key): value for key, value in folds.tree.attrs["spec"].items() if key not in ("data", "model")}
    return {key: value for key, value in spec.items() if not f"{key}.".startswith(APART)}
