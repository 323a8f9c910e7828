"""Insertion and deletion by a dataset-wise map: a literal twin in float64, and the closed form of a linear model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid

import igc_dist
from igc_dist import metrics
from igc_dist.metrics import Removal, score_maps
from igc_dist.records import ConfigError, DataError

N, C, H, W, J = 23, 2, 2, 3, 2
DRAWS = np.random.default_rng(0)
X = DRAWS.normal(size=(N, C, H, W)) + 3
BASE = DRAWS.normal(size=(N, C, H, W))
Y = DRAWS.normal(size=(N, J)) + X[:, :, 0, :2].sum(1)
MAP = DRAWS.integers(-3, 4, size=(J, C, H, W)) / 2  # with ties
NET = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(C * H * W, 4), torch.nn.Tanh(), torch.nn.Linear(4, J))
NET = NET.double()
DATA = (torch.as_tensor(X), torch.as_tensor(Y))


def twin(kind: str, k: int, chosen: list[int], base: np.ndarray, steps: int) -> tuple[list[float], list[float]]:
    """One sample after the other, pixel by pixel; what is carried, and the correlation."""
    value = [sum(MAP[k, c, h, w] for c in range(C)) for h in range(H) for w in range(W)]
    order = sorted(range(H * W), key=lambda p: (-value[p], p))
    carried, correlation = [], []
    f = NET(torch.as_tensor(X[chosen]))[:, k].detach().numpy()
    y = Y[chosen, k]
    for t in range(steps + 1):
        r = []
        for n in chosen:
            image, other = (base[n].copy(), X[n]) if kind == "insertion" else (X[n].copy(), base[n])
            for p in order[: t * H * W // steps]:
                image[:, p // W, p % W] = other[:, p // W, p % W]
            r.append(NET(torch.as_tensor(image[None]))[0, k].item())
        carried.append(np.mean((r - np.mean(r)) * (y - y.mean())) / (y.std() * f.std()))
        correlation.append(np.corrcoef(r, y)[0, 1] if np.std(r) > 1e-9 else 0.0)
    return carried, correlation


@pytest.mark.parametrize("shared", [True, False])
def test_curves_equal_a_literal_twin(shared: bool) -> None:
    """With a baseline for all or for each sample; standard errors by leaving out each fold in turn."""
    base = BASE[:1].repeat(N, 0) if shared else BASE
    found = score_maps(NET, DATA, {"a": MAP}, baseline=BASE[0] if shared else BASE, removal=Removal(4, n_folds=3))
    for kind in ("insertion", "deletion"):
        for k in range(J):
            every = [*range(N)]
            carried, correlation = twin(kind, k, every, base, 4)
            np.testing.assert_allclose(found[f"{kind}_curve"].sel(order="a")[k], carried, atol=1e-12)
            np.testing.assert_allclose(found[f"{kind}_correlation_curve"].sel(order="a")[k], correlation, atol=1e-9)
            fraction = found["fraction"].values
            area = trapezoid(carried, fraction)
            assert found[kind].sel(order="a")[k].item() == pytest.approx(area, abs=1e-12)
            without = [
                trapezoid(twin(kind, k, [n for n in every if n % 3 != g], base, 4)[0], fraction) for g in range(3)
            ]
            h = N / np.array([8, 8, 7])
            pseudo = h * area - (h - 1) * without
            se = np.sqrt(((pseudo - pseudo.mean()) ** 2 / (h - 1)).mean())
            assert found[f"{kind}_se"].sel(order="a")[k].item() == pytest.approx(se, rel=1e-9)


def linear() -> tuple[torch.nn.Module, Any, Any]:
    """A linear model of one output whose features say different things of the target, and its IGC."""
    draws = np.random.default_rng(1)
    x = draws.normal(size=(300, 8))
    w = np.array([3.0, -2.0, 1.0, 0.5, 0.0, 0.2, -1.0, 2.0])
    y = x @ (w * [0, 1, 0, 0.5, 2, 1, -0.5, 1]) + draws.normal(size=300)
    model = torch.nn.Linear(8, 1).double()
    model.weight.data = torch.as_tensor(w)[None]
    data = torch.as_tensor(x), torch.as_tensor(y)[:, None]
    return (
        model,
        data,
        igc_dist.attribute(model, data, baseline=0.0, quadrature="midpoint", n_steps=1, precision="64-true"),
    )


def test_each_feature_of_a_linear_model_carries_its_igc() -> None:
    """So the curve is the running sum of the sorted map, and no order rises or falls faster than that of IGC."""
    model, data, tree = linear()
    igc = tree["x/igc"].values
    draws = np.random.default_rng(2)
    others = {f"other {n}": draws.permutation(igc.ravel())[None] for n in range(20)}
    found = score_maps(model, data, {"igc": tree["x/igc"], "inverted": -igc, **others}, removal=Removal(8, n_folds=8))
    running = np.append(0, np.cumsum(np.sort(igc.ravel())[::-1]))
    np.testing.assert_allclose(found["insertion_curve"].sel(order="igc")[0], running, atol=1e-12)
    np.testing.assert_allclose(found["deletion_curve"].sel(order="igc")[0], running[-1] - running, atol=1e-12)
    assert running[-1] == pytest.approx(tree["correlation"].item(), abs=1e-12)
    assert found["insertion"].values.argmax() == found["deletion"].values.argmin() == 0
    assert found["insertion"].values.argmin() == found["deletion"].values.argmax() == 1
    assert float(found["insertion_gain_ci_low"].sel(order="igc")[0]) > 0
    assert float(found["deletion_gain_ci_low"].sel(order="igc")[0]) > 0
    assert float(found["deletion_gain"].sel(order="random")[0]) == 0


def test_the_mean_size_of_ig_is_no_order_of_correlation() -> None:
    """A feature that the model uses much but that says nothing of the target is first by mean |IG| and late by IGC."""
    model, data, tree = linear()
    ig = igc_dist.attribute(model, data, method="ig", baseline=0.0, quadrature="midpoint", n_steps=1)
    size = np.abs(ig["samples/x/attribution"]).mean("sample")
    found = score_maps(model, data, {"igc": tree["x/igc"], "size": size}, removal=Removal(8, n_folds=8))
    for kind, sign in (("insertion", 1), ("deletion", -1)):
        assert sign * float(found[kind].sel(order="igc")[0] - found[kind].sel(order="size")[0]) > 0.05


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_size_of_a_forward_pass_changes_nothing(batch_size: int) -> None:
    maps = {"a": MAP, "b": -MAP}
    a, b = (
        score_maps(NET, DATA, maps, baseline=BASE, removal=Removal(4, n_folds=3), batch_size=size)
        for size in (5, batch_size)
    )
    for name in a:
        np.testing.assert_allclose(a[name].values, b[name].values, rtol=1e-9, atol=1e-12)


def test_a_missing_target_leaves_a_sample_out_for_its_output() -> None:
    y = Y.copy()
    y[[3, 8], 1] = np.nan
    found = score_maps(NET, (DATA[0], torch.as_tensor(y)), {"a": MAP}, baseline=BASE, removal=Removal(4, n_folds=3))
    kept = [n for n in range(N) if n not in (3, 8)]
    np.testing.assert_allclose(found["insertion_curve"][0, 1], twin("insertion", 1, kept, BASE, 4)[0], atol=1e-12)
    np.testing.assert_allclose(
        found["insertion_curve"][0, 0], twin("insertion", 0, [*range(N)], BASE, 4)[0], atol=1e-12
    )
    assert found["n"].values.tolist() == [N, N - 2]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match=r"maps\['a'\] has shape \(2, 3\)"):
        score_maps(NET, DATA, {"a": np.zeros((2, 3))})
    with pytest.raises(DataError, match="has no order"):
        score_maps(NET, DATA, {"a": MAP * np.nan})
    with pytest.raises(ConfigError, match="any name but 'random'"):
        score_maps(NET, DATA, {"random": MAP})
    with pytest.raises(ConfigError, match="n_folds=24: give from 2 to the 23 samples"):
        score_maps(NET, DATA, {"a": MAP}, removal=Removal(n_folds=24))
    assert metrics.score_maps is score_maps
