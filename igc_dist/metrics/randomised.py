"""Randomisation of dataset-wise maps: how alike they are to those of a model that has lost its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from torch import nn

from igc_dist.arrays import real
from igc_dist.metrics.randomisation import Randomisation, weighted
from igc_dist.metrics.similarity import spearman, ssim
from igc_dist.records import ConfigError, DataError


def randomised_maps(
    module: nn.Module, explain: Callable[[], Any], order: str = "cascading", seed: int = 0
) -> xr.Dataset:
    """The similarity of dataset-wise maps (J, *P) with those of the same model with random weights, layer by layer.

    ``explain()`` makes the maps of `module` as it is now, for example ``lambda: attribute(module, data)["x/igc"]``; it
    is called once for the model, and once for each of its layers with weights, the last first. `order`, `seed`: as in
    `Randomisation`; "cascading" keeps the layers above random too. The weights are restored.

    The Dataset has `spearman` (depth, output), the rank correlation over the features, and for images `ssim`, of values
    summed over channels; `depth` is the share of the layers. Near 0 is good: the map depends on what was learnt. An
    IGC map of random weights is small and by chance; its sign is as that of the correlation.

    Raises `ConfigError` for a model without weights, and `DataError` for maps that change their shape.
    """
    layers = [*reversed(weighted(module))]
    if not layers:
        raise ConfigError(f"{type(module).__name__} has no layer with weights: there is nothing to make random")
    metric = Randomisation(order=order, seed=seed)
    first = real(explain(), "the result of explain").double().cpu()
    found: dict[str, list[np.ndarray]] = {"spearman": [], "ssim": []}
    for depth in range(len(layers)):
        start = 0 if order == "cascading" else depth
        with metric.random(layers[start : depth + 1], range(start, depth + 1)):
            other = real(explain(), "the result of explain").double().cpu()
        if other.shape != first.shape:
            raise DataError(f"explain returned maps of shapes {tuple(first.shape)} and {tuple(other.shape)}")
        a, b = (z.sum(1) if z.ndim == 4 else z for z in (first, other))
        found["spearman"].append(spearman(a.flatten(1), b.flatten(1)).numpy())
        if a.ndim == 3:
            found["ssim"].append(np.array([ssim(p, q) for p, q in zip(a.numpy(), b.numpy(), strict=True)]))
    arrays = {name: (("depth", "output"), np.stack(rows)) for name, rows in found.items() if rows}
    return xr.Dataset(arrays, coords={"depth": np.arange(1, len(layers) + 1) / len(layers)}, attrs={"order": order})
