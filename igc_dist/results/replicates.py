"""The maps of a store without each fold of samples, for errors of what is made of whole maps."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from igc_dist.distributed import World
from igc_dist.results.exchange import Exchange, dealt
from igc_dist.results.recomputed import View, found_in, passed_in, remembered
from igc_dist.statistics import leave_one_out, tree_sum
from igc_dist.store import Store, attributes, consistent


class Replicates(NamedTuple):
    """A map, ``whole`` (J, *P), and the same ``without`` each fold, (G, J, *P), where ``weight`` (G, J) is its size."""

    whole: Float64[np.ndarray, "J *P"]
    without: Float64[np.ndarray, "G J *P"]
    weight: Float64[np.ndarray, "G J"]


AXES = (0, 1, 1)
"""Of the outputs in the fields of `Replicates`."""


def replicates(path: str | Path) -> dict[str, Replicates]:
    """The maps of the first input of a complete store, by their names, made again from the states of its folds.

    Raises `StoreError` for a store without a recipe.
    """
    store, about = Store.existing(path), attributes(path)
    found: dict[str, list[Replicates]] = {}
    with consistent(path):
        job = remembered(store, about)
        view = View(store, job.plan, bool(job.document.get("folded")))
        exchange = Exchange(World(), view, job.plan, found_in(view, job).centre, job.terms)
        walked, cells = passed_in(view, about).walked["attribute"], job.recipe.cells
        for cuts in dealt(exchange.world, job.plan):
            slots = exchange.states("attribute", walked, cuts)
            assert slots is not None  # there is one rank
            whole, without, folds = (slots.state(change) for change in (tree_sum, leave_one_out, lambda array: array))
            weight = folds.union(cells.n_groups).scalars[""]
            for statistic in job.recipe.statistics:
                one, left = (
                    statistic.finalize(state.union(cells.n_groups, groups=statistic.n_groups > 1)).features[0]
                    for state in (whole, without)
                )
                for name, value in one.items():
                    label = job.recipe.attributor.label(name)
                    found.setdefault(label, []).append(Replicates(value, left[name], weight))
    return {
        name: Replicates(
            *(np.concatenate(parts, axis) for parts, axis in zip(zip(*cuts, strict=True), AXES, strict=True))
        )
        for name, cuts in found.items()
    }
