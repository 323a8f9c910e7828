"""Arrays in files: NumPy's `npz`, or a folder of `npy`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from igc_dist.data.manifest import manifest
from igc_dist.data.pairs import Pair
from igc_dist.records import DataError, near


class StoredArrays(Pair):
    """Samples are rows of the arrays `x` and `y` at `root`; several names of `x` give a model of several inputs.

    `root`: an `npz` file, which is read into memory, or a folder of `npy` files, which are mapped. Arrays of one value
    for each sample are columns: ``data.slices=place``. Files with pickled objects are refused. Raises `DataError`.
    """

    kinds = "give an .npz file or a folder of .npy files, of numbers"
    """What `root` may be, in messages."""

    def __init__(self, root: str | Path, x: str | Sequence[str] = "x", y: str = "y") -> None:
        self.root = Path(os.path.expanduser(root))
        try:
            arrays, held = self.opened(self.root)
            several = [x] if isinstance(x, str) else [*x]
            for name in (*several, y):
                if name not in arrays:
                    there = ", ".join(map(repr, arrays)) or "none"
                    raise DataError(f"data: {self.root} has no array {name!r}{near(name, [*arrays])}: it has {there}")
            inputs = tuple(arrays[name] for name in several)
            super().__init__(inputs[0] if isinstance(x, str) else inputs, arrays[y])
            self.beside = {
                name: np.asarray(array[:])
                for name, array in arrays.items()
                if name not in (*several, y) and array.shape == (len(self),)
            }
        except DataError:
            raise
        except (OSError, ValueError) as error:
            raise DataError(f"data: {self.root} cannot be read ({error}): {self.kinds}") from error
        self.digest = manifest(self.root if self.root.is_dir() else self.root.parent, held).digest

    @property
    def column_names(self) -> list[str]:
        """The arrays beside x and y that have one value for each sample."""
        return [*self.beside]

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the samples are made of, as JSON, for the spec of a run."""
        return {"files": self.digest}

    def __getitem__(self, index: int | str) -> Any:
        """A sample, or the column of a name."""
        return self.beside[index] if isinstance(index, str) else super().__getitem__(index)

    def opened(self, root: Path) -> tuple[dict[str, Any], list[str]]:
        """The arrays by name, and the files that hold them: below `root`, or beside it if it is a file."""
        if root.is_file():
            with np.load(root, allow_pickle=False) as found:
                if not isinstance(found, np.lib.npyio.NpzFile):
                    raise DataError(f"data: {root} is no .npz file: {self.kinds}")
                return {name: found[name] for name in found.files}, [root.name]
        if not root.is_dir():
            raise DataError(f"data: {root} is not there: {self.kinds} (data.root)")
        held = sorted(file.name for file in root.glob("*.npy"))
        if not held:
            raise DataError(f"data: {root} has no .npy file: {self.kinds}; a Zarr group is data=zarr")
        return {name[:-4]: np.load(root / name, mmap_mode="r", allow_pickle=False) for name in held}, held
