"""Metrics that ask the model about perturbed samples: literal twins and closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from igc_dist import seeds
from igc_dist.metrics import AverageDrop, Infidelity, MuFidelity, Road, SensitivityN, score
from igc_dist.metrics.road import imputed
from igc_dist.records import ConfigError

N, J, C, H, W = 3, 2, 2, 4, 5
DRAWS = np.random.default_rng(0)
X, BASE = DRAWS.normal(size=(N, C, H, W)), DRAWS.normal(size=(N, C, H, W))
MAPS = DRAWS.normal(size=(N, J, C, H, W))
NET = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(C * H * W, 4), torch.nn.Tanh(), torch.nn.Linear(4, J))
NET = NET.double()
DATA = (torch.as_tensor(X), torch.zeros(N))


def f(x: np.ndarray) -> np.ndarray:
    return NET(torch.as_tensor(x[None]))[0].detach().numpy()


class Sum(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize("metric", ["mufidelity", "sensitivity_n"])
def test_sums_of_a_linear_model_are_its_changes_case_87(metric: str) -> None:
    for sign in (1, -1):
        found = score(Sum(), DATA, sign * X, [metric])
        np.testing.assert_allclose(found[metric], sign, atol=1e-6)
    assert score(Sum(), DATA, 0 * X, [metric])[metric].isnull().all()


def literal_drops(n: int, j: int, subsets: np.ndarray) -> tuple[list[float], list[float]]:
    changes, sums = [], []
    for subset in subsets:
        removed = subset.reshape(H, W)
        changes.append(f(X[n])[j] - f(np.where(removed, BASE[n], X[n]))[j])
        sums.append(sum(MAPS[n, j, c, h, w] for c in range(C) for h in range(H) for w in range(W) if removed[h, w]))
    return changes, sums


def test_mufidelity_equals_its_literal_twin() -> None:
    metric = MuFidelity(grid=3, subsets=20, fraction=0.3, start="baseline", seed=5)
    found = [score(NET, DATA, MAPS, [metric], baseline=BASE, batch_size=size)["mufidelity"] for size in (1, 7, 64)]
    cell = np.array([[3 * (3 * h // H) + 3 * w // W for w in range(W)] for h in range(H)]).ravel()
    for n, j in np.ndindex(N, J):
        draws = seeds.generator(5, n, "mufidelity").random((20, 9))
        chosen = [np.argsort(row)[:3] for row in draws]  # 0.3 of 9 patches
        twin = literal_drops(n, j, np.array([[c in some for c in cell] for some in chosen]))
        for some in found:
            np.testing.assert_allclose(some[n, j], stats.spearmanr(*twin).statistic, rtol=1e-9)


def test_sensitivity_n_equals_its_literal_twin() -> None:
    metric = SensitivityN(points=3, subsets=15, start="baseline")
    found = score(NET, DATA, MAPS, [metric], baseline=BASE, batch_size=7)
    assert found["sensitivity_n_fraction"].values.tolist() == [1 / 20, 4 / 20, 16 / 20]
    for n, j in np.ndindex(N, J):
        twins = []
        for size in (1, 4, 16):
            draws = seeds.generator(0, n, "sensitivity_n", size).random((15, H * W))
            subsets = np.array([[i in np.argsort(row)[:size] for i in range(H * W)] for row in draws])
            twins.append(stats.pearsonr(*literal_drops(n, j, subsets)).statistic)
        np.testing.assert_allclose(found["sensitivity_n_curve"][n, j], twins, rtol=1e-9)
        np.testing.assert_allclose(found["sensitivity_n"][n, j], np.mean(twins), rtol=1e-9)


@pytest.mark.parametrize(
    "settings", [{}, {"perturbation": "baseline"}, {"multiply_by_inputs": False}, {"scaled": True, "of": "probability"}]
)
def test_infidelity_equals_its_literal_twin(settings: dict[str, Any]) -> None:
    base = BASE.copy()
    base[:, 0, 0, 0] = X[:, 0, 0, 0]  # no step: the map itself is taken
    metric = Infidelity(draws=4, **settings)
    found = [score(NET, DATA, MAPS, [metric], baseline=base, batch_size=size)["infidelity"] for size in (1, 7)]

    def p(x: np.ndarray, j: int) -> float:
        return float((np.exp(f(x)) / np.exp(f(x)).sum() if metric.of == "probability" else f(x))[j])

    for n, j in np.ndindex(N, J):
        step = X[n] - base[n]
        g = MAPS[n, j] / np.where(step == 0, 1, step) if metric.multiply_by_inputs else MAPS[n, j]
        sums, changes = [], []
        for draw in range(4):
            i = 0.1 * seeds.generator(0, n, "infidelity", draw).standard_normal((C, H, W))
            i = i + step if metric.perturbation == "baseline" else i
            sums.append((i * g).sum())
            changes.append(p(X[n], j) - p(X[n] - i, j))
        sums, changes = np.array(sums), np.array(changes)
        factor = np.mean(sums * changes) / np.mean(sums**2) if metric.scaled else 1
        for some in found:
            np.testing.assert_allclose(some[n, j], np.mean((factor * sums - changes) ** 2), rtol=1e-9)


def test_the_map_of_a_linear_model_has_no_infidelity() -> None:
    found = score(Sum(), DATA, X - BASE, ["infidelity"], baseline=BASE)
    np.testing.assert_allclose(found["infidelity"], 0, atol=1e-20)


@pytest.mark.parametrize("start", ["black", "mean", "baseline"])
def test_average_drop_is_the_hand_formula_for_any_batch_case_91(start: str) -> None:
    """``mean(max(base - after, 0) / (base + 1e-8))``, after: of the sample times its map between 0 and 1."""
    maps = MAPS.copy()
    maps[0, 0] = np.linspace(0, 1, H * W).reshape(H, W) + np.array([1, -1])[:, None, None]  # whose channels sum to that
    metric = AverageDrop(start=start)
    x0 = {"black": 0 * X, "mean": 0 * X + X.mean(0), "baseline": BASE}[start]
    twin, increase = np.zeros((N, J)), np.zeros((N, J))
    for n, j in np.ndindex(N, J):
        a = maps[n, j].sum(0)
        mask = (a - a.min()) / (a.max() - a.min())
        base, after = (np.exp(f(x))[j] / np.exp(f(x)).sum() for x in (X[n], x0[n] + mask * (X[n] - x0[n])))
        twin[n, j], increase[n, j] = max(base - after, 0) / (base + 1e-8), after > base
    assert 0 < increase.sum() < N * J
    for size in (1, 2, 7, 64):
        found = score(NET, DATA, maps, [metric], baseline=BASE, batch_size=size)
        np.testing.assert_allclose(found["average_drop"], twin, rtol=1e-9)
        np.testing.assert_array_equal(found["average_drop_increase"], increase)
        np.testing.assert_allclose(found["average_drop_mean"], twin.mean(0), rtol=1e-9)
    assert score(NET, DATA, 0 * maps + 1, [metric], baseline=BASE)["average_drop"].isnull().all()


def test_removed_pixels_are_the_means_of_their_neighbours() -> None:
    removed = np.array([[0, 1, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1]], bool)
    found = imputed(X[0], removed)
    np.testing.assert_array_equal(found[:, ~removed], X[0][:, ~removed])
    for h, w in np.argwhere(removed):
        total = weight = 0
        for a in range(max(0, h - 1), min(H, h + 2)):
            for b in range(max(0, w - 1), min(W, w + 2)):
                if (a, b) != (h, w):
                    share = 1 / 6 if h == a or w == b else 1 / 12
                    total, weight = total + share * found[:, a, b], weight + share
        np.testing.assert_allclose(found[:, h, w], total / weight, atol=1e-12)


@pytest.mark.parametrize("first", ["most", "least"])
def test_road_removes_the_pixels_that_it_names(first: str) -> None:
    metric = Road(shares=(0.1, 0.5), first=first, of="logit")
    found = [score(NET, DATA, MAPS, [metric], batch_size=size) for size in (1, 7)]
    for n, j in np.ndindex(N, J):
        values = MAPS[n, j].sum(0).ravel() * (1 if first == "most" else -1)
        curve = []
        for count, share in ((2, 0.1), (10, 0.5)):
            removed = np.zeros(H * W, bool)
            removed[np.argsort(-values, kind="stable")[:count]] = True
            removed = removed.reshape(H, W)
            noise = seeds.generator(0, n, "road", round(1e6 * share)).standard_normal((C, H, W))
            curve.append(f(imputed(X[n], removed) + 0.01 * noise * removed)[j])
        for some in found:
            np.testing.assert_allclose(some["road_curve"][n, j], curve, rtol=1e-9)
            np.testing.assert_allclose(some["road"][n, j], np.mean(curve), rtol=1e-9)
    known = score(NET, DATA, MAPS, ["road"])["road_curve"]
    assert set(np.unique(known)) <= {0, 1}


TABLE = (torch.nn.Linear(4, 2), (torch.ones(2, 4), torch.zeros(2)), np.ones((2, 2, 4)))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: score(*TABLE, ["road"]), "road fills pixels"),
        (lambda: score(NET, DATA, MAPS, ["infidelity"]), "needs the baseline"),
        (lambda: Infidelity(noise=0.0), "noise=0.0"),
        (lambda: MuFidelity(fraction=1.0), "fraction=1.0"),
        (lambda: SensitivityN(start="white"), "start='white'"),
        (lambda: AverageDrop(start="white"), "start='white'"),
        (lambda: score(Sum(), DATA, X, ["average_drop"]), "needs a model with several outputs"),
        (lambda: Road(shares=(1.0,)), "shares="),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(made: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        made()
