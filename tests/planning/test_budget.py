"""Budgets: folds are added until it is enough; what is left out can be added later; where the noise comes from is
told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import igc_dist
from igc_dist import Budget
from igc_dist.baselines import Resampled
from igc_dist.planning import Limits, Plan, Work
from igc_dist.records import ConfigError, Shapes
from igc_dist.statistics import SCALAR_TERMS
from igc_dist.store import Store
from tests import models
from tests.ranks import arrays


def problem(n: int = 96) -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    model = models.mlp(nn.GELU)
    x = torch.randn(n, 3).double()
    with torch.no_grad():
        r = model(x)
    return model, (x, r + 0.3 * r.std() * torch.randn(n, 2).double())


SETTINGS: dict[str, Any] = {"design": "stratified", "n_draws": 2, "baseline": Resampled(2), "n_folds": 16, "seed": 3}


def attribute(budget: Budget | None = None, **settings: Any) -> Any:
    model, data = problem()
    return igc_dist.attribute(model, data, budget=budget, **{**SETTINGS, **settings})


def test_gradients_are_an_upper_bound(tmp_path: Path) -> None:
    """384 gradients are 96 samples x 2 draws x 2 outputs; of 200, 8 of 16 folds are walked: results are those of their
    samples alone."""
    tree = attribute(Budget(gradients=200), store=tmp_path / "a")
    assert tree.attrs["budget"]["folds"] == 8
    assert tree.attrs["budget"]["reason"] == "gradients"
    assert tree.attrs["cost"]["gradient_evaluations"] == 192
    assert tree["n"].values.tolist() == [48, 48]
    assert tree["convergence/n"].values[:, 0].tolist() == [6 * n for n in range(1, 9)]
    whole = attribute()
    states = whole["shards/attribute/x/sums"].values[:8], whole["shards/attribute/scalars"].values[:8]
    (a, ay), (w, y) = states[0].sum(0)[:2, 0], states[1].sum(0)[[0, 3], 0]
    covariance = (ay - a * (y / w)[:, None]) / w[:, None]
    np.testing.assert_allclose(tree["x/igc"] * (tree["target_std"] * tree["prediction_std"]), covariance, rtol=1e-12)
    assert Store.existing(tmp_path / "a").verify() == []


def test_stages() -> None:
    """The most folds whose gradients are within the budget, those of replicates and of a smaller last fold counted;
    looks in eighths."""

    def plan(n: int, size: int) -> Plan:
        shapes = Shapes(n, 1, ("x",), ((3,),), 4, 1000, 100, 10_000)
        return Plan(shapes, Work(outputs=(0,), n_baselines=1, points=2, n_terms=3), Limits(), 0, size, 1, 1, size, 1)

    for gradients, again, most in (
        (16, 0, 2),
        (21, 0, 2),
        (22, 0, 3),
        (24, 1, 2),
        (29, 1, 2),
        (30, 1, 3),
        (44, 9, 3),
        (37, 9, 2),
    ):
        assert Budget(gradients=gradients).stages(plan(11, 4), again) == [most]
    for gradients, again in ((15, 0), (23, 1)):
        with pytest.raises(ConfigError, match=f"two of 3 folds.*are {16 + 8 * again} gradients"):
            Budget(gradients=gradients).stages(plan(11, 4), again)
    assert Budget(seconds=9.0).stages(plan(64, 1)) == [8, 16, 24, 32, 40, 48, 56, 64]
    assert Budget(rel_se=0.1, gradients=40).stages(plan(64, 2)) == [4, 8, 10]
    assert Budget(gradients=200).stages(plan(9, 9)) == [1]


def test_replicates_are_of_the_budget() -> None:
    """And the share of the draws is what they make of the states, in turn in the place of their twins."""
    tree = attribute(Budget(gradients=200, replicates=2))
    assert tree.attrs["budget"]["used"] == {"attribute": 6, "replicate": 2}
    assert tree.attrs["cost"]["gradient_evaluations"] == 192
    first, again = (
        [tree[f"shards/{phase}/{name}"].values[:2, :, 0] for name in ("x/sums", "scalars")]
        for phase in ("attribute", "replicate")
    )

    def igc(maps: np.ndarray, scalars: np.ndarray) -> np.ndarray:
        (a, ay), s = maps.sum(0), dict(zip(SCALAR_TERMS, scalars.sum(0), strict=True))
        w, variance = s[""], {u: s[u + u] / s[""] - (s[u] / s[""]) ** 2 for u in "yr"}
        return (ay - a * (s["y"] / w)[:, None]) / (w * np.sqrt(variance["y"] * variance["r"]))[:, None]

    swapped = [
        [
            np.where((np.arange(2) == g).reshape(2, *(1,) * (one.ndim - 1)), two, one)
            for one, two in zip(first, again, strict=True)
        ]
        for g in (0, 1)
    ]
    moved = sum(((igc(*states) - igc(*first)) ** 2).sum(1) / 2 for states in swapped)
    np.testing.assert_allclose(tree["draw_share"], moved * 2 / 6 / (tree["x/igc_se"] ** 2).sum("feature"), rtol=1e-8)


def test_a_label_that_has_not_come_yet_is_waited_for() -> None:
    """Without an error the wish is not met; an output that is constant in all of the data is no reason to go on."""
    model, (x, y) = problem(24)
    settings: dict[str, Any] = {
        "n_steps": 1,
        "n_folds": 8,
        "budget": Budget(rel_se=1e9, replicates=0),
        "statistics": ["correlation", "ttest"],
    }
    rare = torch.zeros(24, dtype=torch.int64)
    rare[igc_dist.attribute(model, (x, y), samples=True, n_steps=1, n_folds=8)["samples/index"].values[-1]] = 1
    assert igc_dist.attribute(model, (x, rare), **settings).attrs["budget"]["reason"] == "all folds"
    y[:, 0] = 0.3
    tree = igc_dist.attribute(model, (x, y), **settings)
    assert tree.attrs["budget"]["folds"] == 4
    assert np.isnan(tree["rel_se"].values).tolist() == [True, False]
    assert (tree["known/weight"].values[:, 0] == 0).all()
    del settings["statistics"]
    alone = igc_dist.attribute(model, (x, y), **{**settings, "budget": Budget(gradients=30)}, statistics=["ttest"])
    assert "rel_se" not in alone  # of no statistic
    assert alone.attrs["budget"]["folds"] == 5


def test_a_larger_budget_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same budget again: nothing to do. None at all: only the folds that were left out are walked, to the same bits
    as at once."""
    path, done, commit = tmp_path / "a", [], Store.commit

    def counted(self: Store, phase: str, number: int) -> None:
        done.append((phase, number))
        commit(self, phase, number)

    monkeypatch.setattr(Store, "commit", counted)
    for budget, folds in (
        (Budget(gradients=200), 8),
        (Budget(gradients=200), 0),
        (Budget(gradients=300), 4),
        (None, 4),
    ):
        done.clear()
        tree = attribute(budget, store=path)
        assert [phase for phase, _ in done if phase == "attribute"] == ["attribute"] * folds
    assert arrays(tree) == arrays(attribute())


def test_folds_are_added_until_the_error_is_small_enough() -> None:
    """The first look, after every fourth fold, at which the standard error of each map is below the wish; told is that
    of the end."""
    errors = [float(attribute(Budget(gradients=24 * folds, replicates=0))["rel_se"].max()) for folds in (4, 8, 12)]
    wish = 1.001 * min(errors[1:])  # not yet reached after the first four
    assert errors[0] > wish
    loose, tight, never = (attribute(Budget(rel_se=value, replicates=0)) for value in (10.0, wish, 1e-6))
    assert [tree.attrs["budget"]["folds"] for tree in (loose, tight, never)] == [4, 8 if errors[1] <= wish else 12, 16]
    assert [tree.attrs["budget"]["reason"] for tree in (loose, tight, never)] == ["rel_se", "rel_se", "all folds"]
    assert (tight["rel_se"] <= wish).all()
    for tree in (loose, tight, never):
        error = np.sqrt((tree["x/igc_se"] ** 2).sum("feature") / (tree["x/igc"] ** 2).sum("feature"))
        np.testing.assert_allclose(tree["rel_se"], error)
    np.testing.assert_array_equal(never["x/igc"], attribute()["x/igc"])
    assert "set budget.replicates=4" in never.attrs["budget"]["advice"]


def test_seconds_end_at_the_first_look() -> None:
    tree = attribute(Budget(seconds=1e-9))
    assert tree.attrs["budget"]["folds"] == 4
    assert tree.attrs["budget"]["reason"] == "seconds"
    assert attribute(Budget(seconds=1e9)).attrs["budget"]["reason"] == "all folds"


@pytest.mark.slow
def test_where_the_noise_comes_from() -> None:
    """Samples that are all the same but for their draws, or draws that are all the same but for the samples: shares
    near 1 and 0."""
    model, (x, y) = problem()
    few = x[:12].repeat(20, 1), y[:12].repeat(20, 1)
    settings: dict[str, Any] = {"design": "random", "n_steps": 1, "baseline": Resampled(1), "n_folds": 8}
    budget = Budget(replicates=8)
    draws = igc_dist.attribute(model, few, budget=budget, **settings)
    assert draws["draw_share"].mean() > 0.15  # the samples still scatter over folds
    fine = igc_dist.attribute(
        model, few, budget=budget, **{**settings, "design": "grid", "n_steps": 2, "baseline": Resampled(160)}
    )
    assert (fine["draw_share"] < 0.02).all()
    assert "add samples: all of the data set were used" in fine.attrs["budget"]["advice"]
    none = igc_dist.attribute(model, (x, y), budget=budget, n_steps=2)  # nothing is drawn
    assert "draw_share" not in none
    assert "replicate" not in none["shards"].children


def test_the_share_is_that_of_many_seeds() -> None:
    """The variance by draws, as told by one run, is that of the map over 10 seeds, within a factor of 2.5."""
    model, data = problem()
    settings: dict[str, Any] = {
        "design": "random",
        "n_steps": 1,
        "baseline": Resampled(1),
        "n_folds": 8,
        "micro_batch": 96,
    }
    told = igc_dist.attribute(model, data, budget=Budget(replicates=8), **settings)
    variance = (told["draw_share"] * (told["x/igc_se"] ** 2).sum("feature")).values
    assert (variance > 0).all()
    maps = [
        igc_dist.attribute(model, data, seed=seed, **{**settings, "n_folds": 1})["x/igc"].values for seed in range(10)
    ]
    seen = np.var(maps, axis=0, ddof=1).sum(1)
    assert (variance / seen < 2.5).all()
    assert (variance / seen > 0.4).all()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"budget": {"gradients": 0}}, "budget.gradients=0: give a number above 0"),
    ({"budget": {"rel_se": -1.0}}, "budget.rel_se=-1.0"),
    ({"budget": {"replicates": -1}}, "budget.replicates=-1"),
    ({"budget": {"gradients": 40}}, "two of 16 folds.*are 48 gradients"),
    (
        {"budget": {"seconds": 9.0}, "samples": True, "design": "grid", "n_draws": None},
        "with a budget, which leaves folds out",
    ),
    ({"budget": {"rel_se": 0.1}, "statistics": [], "samples": False}, "need a statistic with a standard error"),
]


@pytest.mark.parametrize(("settings", "words"), REFUSED)
def test_what_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        attribute(Budget(**settings["budget"]), **{name: value for name, value in settings.items() if name != "budget"})
