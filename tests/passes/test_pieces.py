"""Pass 1 is cut finer than folds where the tables of a fold are large: results differ by the rounding of sums."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import igc_dist

N, J = 100, 4


def data() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, J), nn.Tanh()).eval(), (torch.rand(N, 5), torch.arange(N) % J)


def values(tree: xr.DataTree) -> dict[str, np.ndarray]:
    """All results; the bytes of the shards differ, as their chunks do."""
    kept = (node for node in tree.subtree if not node.path.startswith("/shards"))
    return {f"{node.path}/{name}": np.asarray(array) for node in kept for name, array in node.variables.items()}


@pytest.fixture
def small_tables(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A table may then have 12 elements: 3 rows. A fold of 20 rows has pieces of 2."""
    return lambda: monkeypatch.setattr("igc_dist.planning.plan.TABLE", 12)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"samples": True, "weights": np.linspace(0.1, 1, N), "n_steps": 2},
        {"design": "pairs", "n_draws": 2},
        {"n_others": 2, "n_steps": 2},
        {"baseline": igc_dist.baselines.Resampled(3, stratify=True), "n_steps": 1},
        {"method": "naive_ttest"},
    ],
)
def test_the_same_results_in_pieces(settings: dict[str, Any], small_tables: Callable[[], None], tmp_path: Path) -> None:
    module, given = data()
    whole = igc_dist.attribute(module, given, n_folds=5, micro_batch=6, **settings)
    small_tables()
    cut = igc_dist.attribute(module, given, n_folds=5, micro_batch=6, store=tmp_path / "store", **settings)
    assert cut["shards/predict/target"].encoding["chunks"][0] < 20
    one, two = values(whole), values(cut)
    assert one.keys() == two.keys()
    for name, array in one.items():
        np.testing.assert_allclose(array, two[name], rtol=1e-9, atol=1e-13, err_msg=name)
