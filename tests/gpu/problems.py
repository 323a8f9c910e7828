"""Small models and data for the tests of a card, and how their results are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.utils.data import Subset

import igc_dist
from igc_dist.demo import Digits, digits_cnn


def maps(device: torch.device | str, n: int = 48, **settings: Any) -> xr.DataTree:
    """IGC of some digits, where the model is."""
    chosen = {"n_steps": 3, "baseline": 2, "n_folds": 4, **settings}
    return igc_dist.attribute(digits_cnn().to(device), Subset(Digits(), range(n)), **chosen)


def values(tree: xr.DataTree, name: str = "x/igc") -> np.ndarray:
    """The maps of a result."""
    return np.asarray(tree[name].values)


def arrays(tree: xr.DataTree) -> dict[str, np.ndarray]:
    """Every floating-point array of a result, by its path."""
    found = {f"{node.path}/{name}": array.values for node in tree.subtree for name, array in node.data_vars.items()}
    return {name: values for name, values in found.items() if values.dtype.kind == "f"}


def relative(one: np.ndarray, two: np.ndarray) -> float:
    """Root mean square of the difference, as a part of the second."""
    return float(np.sqrt(((one - two) ** 2).sum() / (two**2).sum()))


def assert_equal(ours: xr.DataTree, theirs: xr.DataTree) -> None:
    """Every array is the same but for rounding in float64. Errors and standard errors are differences of what is equal,
    so rounding alone."""
    found, expected = arrays(ours), arrays(theirs)
    assert found
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        if "error" in name or name.endswith("_se"):
            continue
        size = max(1.0, float(np.nanmax(np.abs(wanted), initial=0.0)))
        np.testing.assert_allclose(found[name], wanted, rtol=1e-6, atol=1e-9 * size, err_msg=name)


def convolutions() -> nn.Module:
    """Two convolutions on images (3, 64, 64), five outputs."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 4, 3, 2), nn.Flatten(1), nn.Linear(4 * 31 * 31, 5)
    ).eval()


class Words(nn.Module):
    """Embedded words beside numbers; four outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.layers = nn.Embedding(7, 5), nn.Sequential(nn.Linear(5 + 3, 8), nn.Tanh(), nn.Linear(8, 4))

    def embed(self, words: Tensor) -> Tensor:
        return self.table(words)

    def body(self, x: Tensor, embedded: Tensor) -> Tensor:
        return self.layers(torch.cat([x, torch.tanh(embedded).mean(1)], 1))

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        return self.body(x, self.table(words))
