"""Recovery of a true mask: closed forms, and intervals from the states of a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import igc_dist
from igc_dist import results
from igc_dist.metrics import recovery
from igc_dist.metrics.recovery import agreement
from igc_dist.records import ConfigError

DRAWS = np.random.default_rng(0)


def test_agreement_equals_numpy_and_scikit_learn() -> None:
    mask = np.zeros((2, 30))
    mask[0, :7], mask[1, 20:] = 1.0, [-1.0, -0.5, 0.05, 0.02, 1.0, 0.3, 0.2, 0.0, 0.11, 0.4]
    maps = DRAWS.integers(-4, 5, (3, 2, 30)) / 2  # with ties
    found = agreement(maps, mask)
    for g, j in np.ndindex(3, 2):
        assert found["correlation"][g, j] == pytest.approx(np.corrcoef(maps[g, j], mask[j])[0, 1])
        inside = np.abs(mask[j]) > 0.1
        assert found["auc"][g, j] == pytest.approx(roc_auc_score(inside, np.abs(maps[g, j])))
    assert agreement(3 * mask, mask)["correlation"] == pytest.approx(1)
    assert agreement(-mask, mask)["correlation"] == pytest.approx(-1)
    assert agreement(3 * mask, mask)["auc"] == pytest.approx(1)
    assert np.isnan([*agreement(np.ones((2, 30)), mask).values()]).all()


def test_maps_without_a_fold_are_those_of_a_run_without_it(tmp_path: Path) -> None:
    """All statistics, and the standard error of the mean of two features is that of the jackknife."""
    draws = np.random.default_rng(1)
    x, w = draws.normal(size=(20, 4)), np.array([[1.0, 2, 3, -1], [0, 1, 0, 2]])
    data = (x, x @ w.T + draws.normal(size=(20, 2)))
    keys = {"baseline": 0.0, "quadrature": "midpoint", "n_steps": 1, "precision": "64-true"}
    statistics = ["correlation", "moments", "ttest"]
    model = torch.nn.Linear(4, 2).double()
    model.weight.data = torch.as_tensor(w)
    tree = igc_dist.attribute(model, data, n_folds=4, statistics=statistics, store=tmp_path / "a", **keys)
    found = results.replicates(tmp_path / "a")
    assert {"igc", "ig_mean", "ig_std"} <= {*found}
    assert any(name.endswith("ttest_t") for name in found)
    np.testing.assert_array_equal(found["igc"].whole, tree["x/igc"].values)
    assert found["igc"].weight.tolist() == [[5, 5]] * 4
    h = 4.0
    pseudo = h * found["igc"].whole - (h - 1) * found["igc"].without
    se = np.sqrt(((pseudo - pseudo.mean(0)) ** 2 / (h - 1)).mean(0))
    np.testing.assert_allclose(tree["x/igc_se"].values, se, rtol=1e-9)


def test_an_interval_is_that_of_the_jackknife() -> None:
    mask = DRAWS.normal(size=(1, 2, 3))
    without = mask + 0.1 * DRAWS.normal(size=(5, 1, 2, 3))
    whole = without.mean(0)
    found = recovery(mask, whole, without, np.full((5, 1), 10.0))
    value = np.corrcoef(mask.ravel(), whole.ravel())[0, 1]
    others = np.array([np.corrcoef(mask.ravel(), one.ravel())[0, 1] for one in without])
    se = np.sqrt(4 / 5 * ((others - others.mean()) ** 2).sum())
    assert found["correlation"] == pytest.approx(value)
    assert found["correlation_se"] == pytest.approx(se, rel=1e-6)
    assert found["correlation_ci_high"] == pytest.approx(value + 2.7764451 * se, rel=1e-6)
    with pytest.raises(ConfigError, match="the true mask has shape"):
        recovery(mask[:, :1], whole, without, np.ones((5, 1)))
