"""Label permutation: a literal twin, and that features which say nothing are not found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import igc_dist
from igc_dist import seeds
from igc_dist.metrics import label_permutation
from igc_dist.records import ConfigError, DataError

N, J = 60, 2
DRAWS = np.random.default_rng(0)
X = DRAWS.normal(size=(N, 2, 3)) + 5
MODEL = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, J)).double()
Y = np.stack([X[:, 0, 0] + 0.3 * DRAWS.normal(size=N), DRAWS.normal(size=N)], 1)
MODEL[1].weight.data = torch.tensor([[1.0, 0.5, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]).double()


def test_equals_its_literal_twin_and_the_run() -> None:
    keys = {"baseline": 0.0, "quadrature": "midpoint", "n_steps": 1, "precision": "64-true"}
    ig = igc_dist.attribute(MODEL, (X, Y), method="ig", **keys)["samples"]
    igc = igc_dist.attribute(MODEL, (X, Y), **keys)["x/igc"].values
    a, f = ig["x/attribution"], ig["prediction"].values
    found = label_permutation(a, ig["target"], ig["prediction"], n=50)
    np.testing.assert_allclose(found["igc"].values, igc, atol=1e-7)
    others = []
    for draw in range(50):
        y = Y[seeds.generator(0, 0, "metrics.permutation", draw).permutation(N)]
        others.append([[[np.mean(a.values[:, k, i, j] * (y[:, k] - y[:, k].mean())) / y[:, k].std() / f[:, k].std()
                         for j in range(3)] for i in range(2)] for k in range(J)])  # fmt: skip
    size = np.abs(np.array(others))
    np.testing.assert_allclose(found["p"], (1 + (size >= np.abs(igc) - 1e-12).sum(0)) / 51)
    largest = size.max((2, 3))[:, :, None, None]
    np.testing.assert_allclose(found["p_family"], (1 + (largest >= np.abs(igc) - 1e-12).sum(0)) / 51)
    twin = np.corrcoef(np.array(others)[3, 1].ravel(), igc[1].ravel())[0, 1]
    assert found["similarity"][3, 1].item() == pytest.approx(twin, abs=1e-5)
    assert found["p_family"].dims == ("output", *a.dims[2:])
    assert found["p_family"].values[0, 0, 0] == pytest.approx(1 / 51)  # the only feature that y is made of
    assert (found["p_family"].values[0, 1] == 1).all()  # their weights are 0
    assert (found["p_family"].values[1] > 0.05).all()  # this y is noise
    assert np.abs(found["similarity"].mean("permutation")).max() < 0.4


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="give \\(N, J, \\*P\\) and twice \\(N, J\\)"):
        label_permutation(X, Y[:9], Y[:9])
    with pytest.raises(DataError, match="has NaN or infinity"):
        label_permutation(X, np.nan * Y, Y)
    with pytest.raises(ConfigError, match="n=0 permutations"):
        label_permutation(X, Y, Y, n=0)
