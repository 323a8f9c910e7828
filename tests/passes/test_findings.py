"""What pass 1 knows of each sample, and the baselines that are stratified by it."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import igc_dist
from igc_dist.baselines import Resampled, Surroundings
from igc_dist.data import ensure
from igc_dist.passes import Findings
from igc_dist.records import ConfigError
from igc_dist.statistics import Centre
from tests import models


def classifier(n: int = 50) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return models.mlp(nn.GELU), torch.randn(n, 3).double(), torch.arange(n) % 2


def test_weights_give_igc() -> None:
    """``IGC = sum_n w_n IG_n`` with the weights in the store, sample weights and a missing target included; importance
    adds up to 1."""
    model, x, y = classifier()
    target = torch.nn.functional.one_hot(y).double()
    target[3, 0] = torch.nan
    weights = np.linspace(0.5, 2, 50)
    tree = igc_dist.attribute(model, (x, target), samples=True, n_steps=3, n_folds=7, weights=weights)
    known, ig = tree["known"], tree["samples/x/attribution"].values
    assert known["weight"].dims == ("sample", "output")
    np.testing.assert_allclose(np.einsum("nj,nji->ji", known["weight"].values, ig), tree["x/igc"].values, rtol=1e-9)
    assert known["weight"].values[3, 0] == 0
    np.testing.assert_array_equal(known["index"], np.arange(50))
    np.testing.assert_allclose(
        known["importance"], np.abs(known["weight"]).sum("output") / np.abs(known["weight"]).sum()
    )


def test_importance_is_that_of_the_terms() -> None:
    """``(y - mean y) / (std y std r)`` and ``(r - mean r) / std r^2`` side by side; 0 for what is missing, or
    constant."""
    rng = np.random.default_rng(0)
    y, r, (mean, centre) = rng.standard_normal((5, 2)), rng.standard_normal((5, 2)), rng.standard_normal((2, 3))
    y[3, 0] = np.nan
    y_std, r_std = np.array([9.0, 2.0, 0.0]), np.array([9.0, 0.5, 3.0])
    found = Findings(Centre(mean, centre, centre), np.ones(3), y_std, r_std, np.arange(5))
    wanted = np.stack([y[:, 0] - mean[1], 0 * r[:, 0], (r[:, 0] - centre[1]) / 0.25, (r[:, 1] - centre[2]) / 9], 1)
    wanted[3, 0] = 0
    np.testing.assert_allclose(found.importance_weights(y, r, slice(1, 3), ("a", "ay", "ar")), wanted)
    np.testing.assert_allclose(found.importance_weights(y, r, slice(1, 3), ("a", "ar")), wanted[:, 2:])
    assert not found.importance_weights(y, r, slice(1, 3), ("a",)).any()


def test_correctness_and_confidence() -> None:
    """The largest output against the label, and the softmax at the label; of a model that gives probabilities,
    these."""
    model, x, y = classifier()
    with torch.no_grad():
        f = model(x)
    tree = igc_dist.attribute(
        model, (x, y), n_steps=1, target=igc_dist.Targets(outputs=(1,))
    )  # from all outputs, not the selected
    np.testing.assert_array_equal(tree["known/correct"], (f.argmax(1) == y).double())
    np.testing.assert_allclose(tree["known/confidence"], f.softmax(1)[torch.arange(50), y], rtol=1e-12)
    again = igc_dist.attribute(nn.Sequential(model, nn.Softmax(1)), (x, y), n_steps=1)
    np.testing.assert_allclose(again["known/confidence"], tree["known/confidence"], rtol=1e-12)
    assert {"correct", "confidence"}.isdisjoint(igc_dist.attribute(model, (x, f), n_steps=1)["known"].data_vars)


def test_strata_follow_the_predictions() -> None:
    """32 equal parts of the samples in the order of the prediction; -1 for a sample that is not fit for use."""
    model, x, _ = classifier(65)
    with torch.no_grad():
        r = model(x)[:, :1]
    x[9] = torch.nan
    tree = igc_dist.attribute(
        nn.Sequential(model, models.Function(lambda f: f[:, :1])), (x, r), n_steps=1, on_nonfinite="skip"
    )
    stratum = tree["known/stratum"].values
    order = [n for n in np.argsort(r[:, 0].numpy()) if n != 9]
    assert stratum[order].tolist() == [n // 2 for n in range(64)]
    assert stratum[9] == -1
    assert tree["known/weight"].values[9] == 0


def test_the_order_of_several_outputs() -> None:
    """By the output that stands out, then by how much, each in units of its deviation."""
    x, y = torch.randn(64, 3).double() * torch.tensor([1.0, 5.0, 1.0]), torch.randn(64, 3).double()
    tree = igc_dist.attribute(nn.Identity(), (x, y), n_steps=1)
    z = ((x - x.mean(0)) / x.std(0, correction=0)).numpy()
    order = sorted(range(64), key=lambda n: (z[n].argmax(), z[n].max()))
    assert tree["known/stratum"].values[order].tolist() == [n // 2 for n in range(64)]


def surroundings(n: int) -> Surroundings:
    ranked = np.random.default_rng(2).permutation(n)
    return Surroundings(
        ensure((torch.arange(n, dtype=torch.float64)[:, None], torch.zeros(n, 1))), np.arange(n), 5, None, ranked
    )


def test_one_baseline_of_each_stratum() -> None:
    """Each sample has one from each of k equal parts of the ranking, and over samples every row is as likely as any
    other."""
    around = surroundings(40)
    batch = around.source.fetch(range(40))
    drawn = Resampled(8, stratify=True).draw(batch, range(8), around)[0][..., 0].numpy().astype(int)  # 8 40
    place = np.argsort(around.ranked)[drawn]
    np.testing.assert_array_equal(np.sort(place // 5, axis=0), np.tile(np.arange(8)[:, None], (1, 40)))
    assert np.bincount(drawn.ravel(), minlength=40).min() >= 1
    assert len(np.unique(place[0] // 5)) > 4
    uneven = Resampled(7, stratify=True).draw(batch, range(7), around)[0]
    assert uneven.shape == (7, 40, 1)


def test_stratified_baselines_balance_the_prediction() -> None:
    """The baseline term, chance alone, is several times smaller; IGC is another estimate of the same."""
    model, x, y = classifier(200)
    data = x, torch.nn.functional.one_hot(y).double() + torch.randn(200, 2).double()
    terms: dict[bool, list[Any]] = {False: [], True: []}
    for seed in range(3):
        for stratify, found in terms.items():
            tree = igc_dist.attribute(
                model, data, n_steps=1, baseline=Resampled(8, stratify=stratify), seed=seed, n_folds=1
            )
            found.append(tree["baseline_term"].values)
    size: Any = {stratify: np.sqrt(np.mean(np.square(found))) for stratify, found in terms.items()}
    assert size[True] < 0.5 * size[False]


def test_a_class_with_fewer_positives_than_folds_is_doubted(caplog: pytest.LogCaptureFixture) -> None:
    """With what follows and what to do; a sample that is left out is none. Targets of three values have none."""
    model, x, _ = classifier()
    y = torch.zeros(50, 2)
    y[[3, 9, 30], 0] = 1
    y[::2, 1] = 1
    counts = y.clone()
    counts[0, 0] = 2
    with caplog.at_level(logging.WARNING):
        for settings in ({"n_folds": 3}, {"n_folds": 8, "data": counts}):
            igc_dist.attribute(model, (x, settings.pop("data", y)), n_steps=2, **settings)
        assert "positive" not in caplog.text
        igc_dist.attribute(model, (x, y), n_steps=2, n_folds=8)
        assert "1 of 2 outputs have fewer positive samples than there are folds (8); output 0 has 3, so" in caplog.text
        assert "at least 5 folds hold none" in caplog.text
        x[9] = torch.nan
        igc_dist.attribute(model, (x, y), n_steps=2, n_folds=3, on_nonfinite="skip")
    assert "output 0 has 2, so at least 1 folds hold none" in caplog.text


def test_no_strata_of_other_data() -> None:
    with pytest.raises(ConfigError, match="its predictions are not known"):
        Resampled(3, data=(torch.zeros(9, 3), torch.zeros(9)), stratify=True)


def test_the_control_variate() -> None:
    """Of a linear model the noise of the baselines all but goes; refused where nothing is known of the mean
    baseline."""
    torch.manual_seed(0)
    model, x = nn.Linear(4, 2).double(), torch.randn(300, 4).double()
    with torch.no_grad():
        r = model(x)
    y = r + torch.randn(300, 2).double()
    both = {"statistics": ["correlation", "controlled_correlation"], "n_steps": 1}
    tree = igc_dist.attribute(model, (x, y), baseline=Resampled(2), **both)
    scale = (y.std(0, correction=0) * r.std(0, correction=0)).numpy()[:, None]
    exact = model.weight.detach().numpy() * ((y - y.mean(0)).T @ (x - x.mean(0)) / 300).numpy() / scale
    plain, controlled = (np.abs(tree[f"x/{name}"].values - exact).max() for name in ("igc", "igc_controlled"))
    assert controlled < 0.25 * plain
    np.testing.assert_allclose(tree["igc_controlled_sum"], tree["x/igc_controlled"].sum("feature"))
    assert (tree["x/igc_controlled_se"] > 0).all()
    for settings, words in (
        ({"baseline": 0.0}, "baselines that are drawn for each"),
        ({"design": "pairs"}, "baselines that are drawn for each"),
        ({"baseline": Resampled(4), "baseline_block": 2}, "'controlled_correlation' is not linear"),
    ):
        with pytest.raises(ConfigError, match=words):
            igc_dist.attribute(model, (x, y), **both, **settings)
