"""Dataset-wise maps of a model that loses its weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import igc_dist
from igc_dist import seeds
from igc_dist.metrics import randomised_maps
from igc_dist.records import ConfigError

DRAWS = np.random.default_rng(0)
X = DRAWS.normal(size=(40, 1, 4, 5)) + 1
NET = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(20, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2)).double()
Y = NET(torch.as_tensor(X)).detach().numpy() + 0.1 * DRAWS.normal(size=(40, 2))


def igc() -> np.ndarray:
    found = igc_dist.attribute(NET, (X, Y), baseline=0.0, quadrature="midpoint", n_steps=2, n_folds=2)
    return np.asarray(found["x/igc"].values)


@pytest.mark.parametrize("order", ["cascading", "independent"])
def test_similarity_falls_as_layers_lose_their_weights(order: str) -> None:
    """The maps are those of a model with the same random weights; afterwards the weights are what they were."""
    before = [p.detach().clone() for p in NET.parameters()]
    whole = igc()
    found = randomised_maps(NET, igc, order)
    assert found["spearman"].shape == found["ssim"].shape == (2, 2)
    assert found["depth"].values.tolist() == [0.5, 1]
    assert all(torch.equal(p, old) for p, old in zip(NET.parameters(), before, strict=True))
    for number, layer in ((0, NET[3]), (1, NET[1])):
        draws = seeds.generator(0, number, "randomisation")
        for p in layer.parameters():
            drawn = draws.standard_normal(tuple(p.shape)) * p.data.std(correction=0).item() + p.data.mean().item()
            p.data = torch.as_tensor(drawn)
        twin = igc()
        for k in range(2):
            expected = spearmanr(whole[k].ravel(), twin[k].ravel()).statistic
            assert found["spearman"][number, k].item() == pytest.approx(expected, abs=1e-9)
        if order == "independent":
            for p, old in zip(NET.parameters(), before, strict=True):
                p.data = old.clone()
    for p, old in zip(NET.parameters(), before, strict=True):
        p.data = old.clone()


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match="Flatten has no layer with weights"):
        randomised_maps(torch.nn.Flatten(), igc)
