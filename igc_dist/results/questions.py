"""What can be asked of a result, as ``tree.igc.ask``."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from igc_dist.results.between import between_slices
from igc_dist.results.differences import Level


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
