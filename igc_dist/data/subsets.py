"""Parts of data sets: what the whole one has, for the rows of the part."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.utils.data import Subset

from igc_dist.arrays import entries


def whole(dataset: Any) -> Any:
    """The data set of which this is a part."""
    return whole(dataset.dataset) if isinstance(dataset, Subset) else dataset


def attribute(dataset: Any, name: str) -> Any:
    """An attribute or a named column of a data set; for a `Subset`, only its rows."""
    if isinstance(dataset, Subset):
        values = attribute(dataset.dataset, name)
        if values is None:
            return None
        found, missing = entries(values, name)
        rows = np.asarray(dataset.indices)
        return found[rows] if missing is None else np.ma.array(found[rows], mask=missing[rows])
    if name in getattr(dataset, "column_names", ()):
        return dataset[name]
    return getattr(dataset, name, None)
