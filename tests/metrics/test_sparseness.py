"""Sparseness: known answers, and a literal twin."""

from __future__ import annotations

import numpy as np
import torch

from igc_dist.metrics import score

NET = torch.nn.Linear(8, 1)


def of(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = score(NET, (torch.zeros(len(maps), 8), torch.zeros(len(maps))), maps, ["sparseness"])
    return found["sparseness"].values, found["sparseness_entropy"].values


def test_a_uniform_map_and_one_feature_case_90() -> None:
    """Signs do not count, nor does the scale; a map of zeros has no sparseness."""
    gini, entropy = of(np.stack([np.ones(8), -np.ones(8), np.eye(8)[3], 1e300 * np.ones(8), np.zeros(8)]))
    np.testing.assert_allclose(gini, [0, 0, 7 / 8, 0, np.nan], atol=1e-15)
    np.testing.assert_allclose(entropy, [np.log(8), np.log(8), 0, np.log(8), np.nan], atol=1e-15)


def test_sparseness_equals_its_literal_twin() -> None:
    """The Gini index is half of the mean difference of two features, over their mean."""
    maps = np.random.default_rng(0).normal(size=(5, 8))
    for a, gini, entropy in zip(np.abs(maps), *of(maps), strict=True):
        pairs = [abs(one - other) for one in a for other in a]
        np.testing.assert_allclose(gini, np.mean(pairs) / 2 / a.mean(), rtol=1e-12)
        np.testing.assert_allclose(entropy, -sum(q * np.log(q) for q in a / a.sum()), rtol=1e-12)
