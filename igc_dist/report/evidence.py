"""Samples behind the maps, within a budget: those that carry an output most, and clusters of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import xarray as xr

from igc_dist import results
from igc_dist.records import IgcError, printable
from igc_dist.report.contents import column, inputs, mapping_of
from igc_dist.report.selection import places_of

OUTPUTS, EACH = 6, 4
"""Outputs whose samples are shown, and samples of each for and against it."""
CELLS = 2**22
"""Samples times outputs: 32 MiB for each of a few arrays of targets, predictions and weights."""
CLUSTERED = 4
"""Outputs that are clustered: a second or two each."""
MOST, SAMPLES, EXAMPLES = 6, 500, 4
"""Clusters of an output, samples that are clustered, and examples of each."""
FEWEST = 30
"""The least number of samples to cluster."""
VALUES = 2**24
"""Attributions that are clustered together: 128 MiB."""
READ = 2**28
"""Attributions of all samples to an output, in whose chunks those lie: a GiB."""


@dataclass(frozen=True)
class Evidence:
    """Answers of `results.influence` and `results.strategies`, None where there is none. `left`: what is left out."""

    influence: xr.Dataset | None = None
    strategies: xr.DataTree | None = None
    left: list[str] = field(default_factory=list)

    @property
    def samples(self) -> list[int]:
        """The indices that are named, those that carry an output before the examples of clusters."""
        arrays = [] if self.influence is None else [self.influence["sample"]]
        arrays += [] if self.strategies is None else [self.strategies.to_dataset()["example"]]
        named = dict.fromkeys(int(each) for array in arrays for each in array.values.ravel())
        return [each for each in named if each >= 0]


def gather(tree: xr.DataTree, outputs: Sequence[str | int] | None = None, sort: str | None = None) -> Evidence:
    """What can be said of the first outputs that have a correlation (`selected`).

    At most 6 outputs, 4 samples for and against each. 4 of these outputs have clusters, of at most 500 samples. A
    result without the states of its folds, or with outputs of its own for each sample, has neither.
    """
    correlation = column(tree, "correlation")
    if correlation is None or not askable(tree):
        return Evidence()
    places = [int(place) for place in places_of(tree, outputs, sort) if np.isfinite(correlation[place])][:OUTPUTS]
    cells = tree["known"].sizes["sample"] * tree.sizes["output"]
    if not places:
        return Evidence()
    if cells > CELLS or not consistent(tree):
        return Evidence(left=[f"Samples that carry an output: of {cells:,} predictions, which `igc-dist ask` reads"])
    every = np.asarray(tree["output"])
    names = [printable(every[place]) for place in places]
    found = Evidence()
    try:
        found = replace(found, influence=results.influence(tree, names, most=EACH))
    except IgcError as error:
        found.left.append(f"Samples that carry an output: {error}")
    return replace(found, strategies=_clusters(tree, names[:CLUSTERED], found.left))


def askable(tree: xr.DataTree) -> bool:
    """Whether there is what questions are answered from."""
    groups, recipe = tree.children, tree.attrs.get("recipe")
    return (
        isinstance(recipe, dict)
        and {"shards", "known"} <= {*groups}
        and "weight" in groups["known"].data_vars
        and not mapping_of(tree, "recipe").get("plan", {}).get("work", {}).get("each")
    )


def consistent(tree: xr.DataTree) -> bool:
    """Whether the recipe has as many samples as the store: a plan is made of it."""
    pieces = mapping_of(tree, "recipe")["plan"]["pieces"]
    return sum(int(n) for n, _ in pieces) == tree["known"].sizes["sample"]


def _clusters(tree: xr.DataTree, names: Sequence[str], left: list[str]) -> xr.DataTree | None:
    """Clusters of the outputs that have enough samples for them; None if there are none. `left` gets the reasons."""
    groups = tree["samples"].children if "samples" in tree.children else {}
    arrays = [groups[name]["attribution"] for name in inputs(tree) if name in groups]
    if not arrays:
        return None
    size = sum(int(np.prod(array.shape[2:], dtype=np.int64)) for array in arrays)
    most, read = min(SAMPLES, VALUES // max(size, 1)), size * arrays[0].sizes["sample"]
    if most < FEWEST or read > READ:
        left.append(f"Clusters of samples: of {read:,} attributions to an output, which `igc-dist ask` reads")
        return None
    how, found = results.Grouping(most=MOST, samples=most, examples=EXAMPLES), []
    for name in names:
        try:
            found.append(results.strategies(tree, [name], how=how))
        except IgcError as error:
            left.append(f"Clusters of samples: {error}")
    return _joined(found) if found else None


def _joined(found: Sequence[xr.DataTree]) -> xr.DataTree:
    """Answers of one output each as one."""
    groups = {path: [each[path].to_dataset() for each in found] for path in ("/", *found[0].children)}
    tree = xr.DataTree.from_dict({path: xr.concat(parts, "output") for path, parts in groups.items()})
    tree.attrs = found[0].attrs
    return tree
