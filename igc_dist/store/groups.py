"""Data in a Zarr group: the rows of its arrays are samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zarr

from igc_dist.data import StoredArrays
from igc_dist.records import DataError

HOLDS = ("zarr.json", ".zgroup")
"""What a folder holds that is a Zarr group, of format 3 or 2."""


class ZarrArrays(StoredArrays):
    """Samples are rows of the arrays `x` and `y` of the Zarr group `root`, whose chunks are read when they are needed.

    All else is as in `StoredArrays`. Raises `DataError`.
    """

    kinds = "give a Zarr group of numbers"

    def opened(self, root: Path) -> tuple[dict[str, Any], list[str]]:
        held = sorted(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())
        if not {*HOLDS} & {*held}:
            raise DataError(f"data: {root} is no Zarr group: {self.kinds} (data.root)")
        return dict(zarr.open_group(root, mode="r").arrays()), held
