"""What can be asked of a result, as ``tree.igc.ask``."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from igc_dist.results.between import between_slices
from igc_dist.results.clusters import Grouping, strategies
from igc_dist.results.differences import Level
from igc_dist.results.extremes import spurious
from igc_dist.results.influential import influence
from igc_dist.results.two import between_data, between_models


class Questions:
    """Questions to a result of `attribute` or `open`, as ``tree.igc.ask``.

    All are answered from the states of its folds, or from the attributions of its samples where they were kept.
    `outputs` are names or numbers, None for all; `of` is the name of a map with standard errors, None for the first
    one; `level` that of intervals and bands, `fdr` the false discovery rate of what counts as significant.
    """

    def __init__(self, tree: xr.DataTree) -> None:
        self._tree = tree

    def slices(
        self,
        slices: Sequence[str] | None = None,
        outputs: Sequence[str | int] | None = None,
        of: str | None = None,
        *,
        level: float = 0.95,
        fdr: float = 0.05,
    ) -> xr.DataTree:
        """How the maps of slices differ from that of the first: see `igc_dist.results.between_slices`."""
        return between_slices(self._tree, slices, outputs, of, Level(level, fdr))

    def models(
        self,
        other: xr.DataTree,
        outputs: Sequence[str | int] | None = None,
        of: str | None = None,
        *,
        level: float = 0.95,
        fdr: float = 0.05,
    ) -> xr.DataTree:
        """How the map of another model on the same data differs: see `igc_dist.results.between_models`."""
        return between_models(self._tree, other, outputs, of, Level(level, fdr))

    def drift(
        self,
        other: xr.DataTree,
        outputs: Sequence[str | int] | None = None,
        of: str | None = None,
        *,
        level: float = 0.95,
        fdr: float = 0.05,
    ) -> xr.DataTree:
        """How the map of the same model on other data differs: see `igc_dist.results.between_data`."""
        return between_data(self._tree, other, outputs, of, Level(level, fdr))

    def spurious(
        self,
        slices: Sequence[str] | None = None,
        outputs: Sequence[str | int] | None = None,
        of: str | None = None,
        *,
        level: float = 0.95,
        fdr: float = 0.05,
    ) -> xr.DataTree:
        """Features that count in one slice, and not, or the other way, in another: see `igc_dist.results.spurious`."""
        return spurious(self._tree, slices, outputs, of, Level(level, fdr))

    def influence(
        self,
        outputs: Sequence[str | int] | None = None,
        feature: Sequence[int] | None = None,
        input: str | None = None,
        most: int = 10,
    ) -> xr.Dataset:
        """The samples that carry the IGC of each output most, for and against: see `igc_dist.results.influence`."""
        return influence(self._tree, outputs, feature, input, most)

    def strategies(
        self, outputs: Sequence[str | int] | None = None, everyone: bool = False, how: Grouping | None = None
    ) -> xr.DataTree:
        """Clusters of samples by how they carry an output: see `igc_dist.results.strategies`."""
        return strategies(self._tree, outputs, everyone, how or Grouping())
