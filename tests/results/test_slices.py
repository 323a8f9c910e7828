"""Slices of a result compared: their differences are those of the samples, and their intervals hold the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import igc_dist
from igc_dist import seeds
from igc_dist.records import ConfigError, StoreError
from igc_dist.results import Level, Recipe, Slots, between_slices
from igc_dist.results.differences import band, reach
from igc_dist.results.folds import estimates
from igc_dist.results.recipe import Labels
from igc_dist.statistics import SCALAR_TERMS, Cells, Centre, Correlation
from igc_dist.upkeep import compact
from tests.oracles import statistics as oracle

N = 48
SITE = np.array(["north", "south", "east"])[np.arange(N) % 3]


def problem() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    """A linear model, whose attributions are ``w x``, and noisy targets; in the south the first feature is reversed."""
    generator = torch.Generator().manual_seed(2)
    model = torch.nn.Linear(4, 2, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, 0.5, 1.0, -1.0], [-2.0, 1.0, 0.0, 0.5]]))
    x = torch.randn(N, 4, generator=generator, dtype=torch.float64)
    turned = torch.where(torch.from_numpy(SITE == "south")[:, None], x * torch.tensor([-1.0, 1, 1, 1]), x)
    y = model(turned).detach() + 0.3 * torch.randn(N, 2, generator=generator, dtype=torch.float64)
    return model, x, y


def run(**settings: Any) -> xr.DataTree:
    model, x, y = problem()
    wishes = {"slices": SITE, "n_steps": 1, "n_folds": 6, "precision": "64-true", "threads": 1}
    return igc_dist.attribute(model, (x, y), **wishes | settings)


def folds_of(n_folds: int) -> list[np.ndarray]:
    rows, size = seeds.generator(0, 0, "plan.folds").permutation(N), N // n_folds
    return [rows[at : at + size] for at in range(0, N, size)]


def test_differences_of_slices_are_those_of_their_samples() -> None:
    """Values by sums over samples; errors by leaving folds out of both slices, each with its own weights."""
    model, x, y = problem()
    a = (model.weight.detach()[None] * x[:, None]).numpy()
    r = model(x).detach().numpy()
    found = between_slices(run(), ["north", "south", "east"])
    assert found["pair"].values.tolist() == ["south - north", "east - north"]
    assert found["pair_second"].values.tolist() == ["south", "east"]
    assert found["x/difference"].dims == ("pair", "output", "feature")

    def terms(name: str) -> tuple[np.ndarray, np.ndarray]:
        def igc(rows: np.ndarray) -> np.ndarray:
            return oracle.igc(a[rows], y.numpy()[rows], r[rows])

        mine = np.flatnonzero(name == SITE)
        whole, d = igc(mine), []
        pseudo, h = [], []
        for fold in folds_of(6):
            left = np.setdiff1d(mine, fold)
            h.append(len(mine) / (len(mine) - len(left)))
            pseudo.append(h[-1] * whole - (h[-1] - 1) * igc(left))
        d = [(p - np.mean(pseudo, axis=0)) / np.sqrt(6 * (one - 1)) for p, one in zip(pseudo, h, strict=True)]
        return whole, np.stack(d)

    north, south = terms("north"), terms("south")
    np.testing.assert_allclose(found["x/difference"][0], south[0] - north[0], rtol=1e-9)
    np.testing.assert_allclose(found["x/first"][0], north[0], rtol=1e-9)
    np.testing.assert_allclose(found["x/difference_se"][0], np.sqrt(((south[1] - north[1]) ** 2).sum(0)), rtol=1e-7)
    # the sum of the map of a linear model is the correlation
    np.testing.assert_allclose(found["igc_sum"], found["correlation"], rtol=1e-9)
    np.testing.assert_allclose(found["igc_sum"], found["x/difference"].sum("feature"), rtol=1e-9)


def test_the_feature_that_was_reversed_is_found() -> None:
    """And no other one, but for the feature that has no weight, which is the same everywhere: 0."""
    found = run(n_folds=16).igc.ask.slices(["north", "south"])
    assert found["x/significant"].values[0].tolist() == [[True, False, False, False]] * 2
    assert (found["x/band_high"].values[0, :, 0] < -0.5).all()
    assert np.isnan(found["x/p"].values[0, 1, 2])
    assert (found["x/second"].values[0, :, 0] < -0.5).all()
    assert (found["x/first"].values[0, :, 0] > 0.4).all()


WISHES: list[dict[str, Any]] = [{}, {"baseline": 3, "baseline_block": 1}, {"statistics": ["correlation", "ttest"]}]


@pytest.mark.parametrize("settings", WISHES)
def test_states_of_the_tree_give_its_maps_to_the_bit(settings: dict[str, Any], tmp_path: Path) -> None:
    """From memory, from a store, from the store in few files; over blocks of baselines and groups of targets."""
    stored = run(**settings, store=tmp_path / "a")
    compact(tmp_path / "a", tmp_path / "b")
    for tree in (run(**settings), stored, igc_dist.open(tmp_path / "a"), igc_dist.open(tmp_path / "b")):
        found, maps = between_slices(tree), tree["slices/x/igc"].values
        np.testing.assert_array_equal(found["x/first"].values, maps[[0, 0]])
        np.testing.assert_array_equal(found["x/second"].values, maps[1:])
        np.testing.assert_allclose(between_slices(tree, outputs=[1])["x/second"].values, maps[1:, 1:], rtol=1e-9)


def test_a_budget_leaves_folds_out() -> None:
    found = run(n_folds=12, budget=igc_dist.Budget(gradients=N))
    assert found.attrs["budget"]["folds"] < 12
    np.testing.assert_array_equal(between_slices(found)["x/first"].values[0], found["slices/x/igc"].values[0])


def test_other_maps_can_be_asked() -> None:
    tree = run(statistics=["correlation", "moments"])
    for name in ("igc", "ig_mean", "ig_std"):
        found = tree.igc.ask.slices(of=name)
        np.testing.assert_array_equal(found["x/second"].values, tree[f"slices/x/{name}"].values[1:])
        assert (f"{name}_sum" in found) == (name == "igc")
    with pytest.raises(ConfigError, match=r"'igx' is no map with standard errors here: choose from ig_mean"):
        tree.igc.ask.slices(of="igx")


def test_what_cannot_be_asked_says_what_to_do() -> None:
    tree = run()
    with pytest.raises(ConfigError, match=r"there is no slice 'nord' of 3: near are north"):
        between_slices(tree, ["north", "nord"])
    with pytest.raises(ConfigError, match="give two or more, each once"):
        between_slices(tree, ["north", "north"])
    with pytest.raises(ConfigError, match=r"output 'nine' is none of the 2 of the store"):
        between_slices(tree, outputs=["nine"])
    with pytest.raises(ConfigError, match="give at least one"):
        between_slices(tree, outputs=[])
    with pytest.raises(ConfigError, match="has no slices: run with slices="):
        between_slices(run(slices=None))
    with pytest.raises(StoreError, match="no group /shards"):
        between_slices(tree.filter(lambda node: "shards" not in node.path))
    with pytest.raises(ConfigError, match="no map of this result has standard errors"):
        between_slices(run(statistics=["ttest"]))


WEIGHTS, NOISE = np.array([[1.0, 0.6, 0.3], [1.0, 0.2, 0.3]]), 1.5
"""Of the features, in each of two slices."""


def test_a_result_with_metrics_of_an_earlier_version_is_asked(tmp_path: Path) -> None:
    """What a metric spends was four entries in a row there."""
    net, x = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)), torch.rand(12, 3, 2, 2)
    settings: dict[str, Any] = {"slices": np.arange(12) % 2, "n_folds": 3, "n_steps": 2, "store": tmp_path / "a"}
    igc_dist.attribute(net, (x, torch.randn(12, 2)), metrics=["insertion"], baseline=0.0, **settings)
    tree = igc_dist.open(tmp_path / "a")
    expected = tree.igc.ask.slices()
    tree.attrs["recipe"]["plan"]["work"]["efforts"] = [["insertion", 21, 0, 0]]
    assert tree.igc.ask.slices().equals(expected)


def simulated(seed: int, n_folds: int, outputs: int, n: int = 60) -> Slots:
    """States of two slices: ``f = sum_i w_i (u_i + u_i**2 / 2)``, y = f + e; each output is a repetition."""
    rng = np.random.default_rng(seed)
    u = rng.standard_normal((2, n_folds, n, outputs, 3))
    a = WEIGHTS[:, None, None, None] * (u + u**2 / 2)
    r = a.sum(-1)
    y = r + NOISE * rng.standard_normal(r.shape)
    ones, none = np.ones_like(r), np.zeros_like(r)
    of = {"": ones, "n": ones, "d": none, "y": y, "r": r, "b": none}
    of |= {"yy": y * y, "rr": r * r, "bb": none, "yr": y * r, "yb": none, "rb": none}
    scalars = np.stack([of[term].sum(2) for term in SCALAR_TERMS])  # (T, C, G, J)
    sums = np.stack([a.sum(2), (a * y[..., None]).sum(2)])
    centre = Centre(*(np.zeros(outputs) for _ in range(3)))
    return Slots(centre, ("a", "ay"), np.moveaxis(scalars, 2, 0), (np.moveaxis(sums, 2, 0),))


def truth() -> np.ndarray:
    """IGC in each slice: ``3/2 w_i**2 / (std f * std y)``."""
    squares = 1.5 * WEIGHTS**2
    f = squares.sum(1, keepdims=True)
    return squares / np.sqrt(f * (f + NOISE**2))


@pytest.mark.slow
@pytest.mark.parametrize("n_folds", [8, 32])
@pytest.mark.parametrize("paired", [True, False])
def test_intervals_of_differences_hold_the_truth(n_folds: int, paired: bool) -> None:
    """93 to 97 % of the intervals of single differences, of sums, and of the bands of whole maps; 1,500 repetitions."""
    recipe = Recipe([Correlation()], Labels("", {}, True), Cells(n_slices=2), True)
    held: dict[str, list[np.ndarray]] = {}
    for seed in range(3):
        each = [
            estimates(simulated(100 * seed + of, n_folds, 500), recipe, ["x"], "correlation", slices=True)
            for of in range(1 if paired else 2)
        ]
        for name, right in (("x", truth()[1] - truth()[0]), ("correlation_sum", truth()[1].sum() - truth()[0].sum())):
            found = each[-1][name][1].minus(each[0][name][0], paired)
            held.setdefault(name, []).append(np.abs(found.value - right) <= reach(found, 0.95))
            if name == "x":
                half = band({"x": found}, Level())["x"]
                held.setdefault("band", []).append((np.abs(found.value - right) <= half).all(1))
    for name, shares in held.items():
        assert 0.93 <= np.mean(shares) <= 0.97, f"{name}: {np.mean(shares)}"
