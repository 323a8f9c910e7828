"""Every preset, from Python: against its literal twin and its closed form, on a linear and on a quadratic model."""

from __future__ import annotations

from functools import cache
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ttest_ind
from torch import nn

import igc_dist
from igc_dist import baselines, config, seeds
from igc_dist.paths import rule
from igc_dist.statistics import STATISTICS
from tests import models
from tests.attributors import members
from tests.oracles import attributions as oracle
from tests.oracles import statistics

N, SEED, ITERATIONS = 11, 5, 8
OUTPUTS = [0, 1]
PRESETS = tuple(sorted({path.stem for path in (config.folder() / "method").glob("*.yaml")} - members.named("PRESETS")))
MODELS = ("linear", "quadratic")
STARTS: dict[str, Any] = {
    "two shared": torch.tensor([[0.3, -0.2, 0.5], [-0.1, 0.4, 0.2]], dtype=torch.float64),
    "resampled": baselines.Resampled(3),
}


@cache
def problem(name: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    model = models.MODELS[name]()
    x, y = models.data(model, N)
    return model, x, y


def starts(x: np.ndarray, kind: str) -> np.ndarray:
    """(N, B, P): the baselines of each sample, drawn at the documented address."""
    if kind == "two shared":
        return np.tile(STARTS[kind].numpy(), (N, 1, 1))
    return np.array(
        [x[seeds.generator(SEED, n, "baselines.resampled").choice(np.arange(N), 3, replace=False)] for n in range(N)]
    )


def orders(n_baselines: int) -> np.ndarray:
    """(N, B, n_iter, P): the permutations of each sample and baseline, drawn at the documented address."""
    draws = [range(b * ITERATIONS, (b + 1) * ITERATIONS) for b in range(n_baselines)]
    return np.array(
        [
            [[seeds.generator(SEED, n, "attributors.shapley", d).permutation(3) for d in of_b] for of_b in draws]
            for n in range(N)
        ]
    )


# -- literal twins -----------------------------------------------------------------------------------------------------


def literal(preset: str, model: nn.Module, x: np.ndarray, y: np.ndarray, x0: np.ndarray) -> dict[str, np.ndarray]:
    """The results of a preset, one row, node, component and sum at a time."""
    listed = [[(row,) for row in of_n] for of_n in x0]
    kind = config.preset(preset).attributor["_target_"].rsplit(".", 1)[1]
    nodes = rule("midpoint", 2)
    (a,) = {
        "Gradients": lambda: oracle.gradients(model, (x,), OUTPUTS),
        "GradientXInput": lambda: oracle.gradients_x_input(model, (x,), OUTPUTS),
        # on these two models 15 nodes of Gauss and Kronrod are exact
        "AdaptiveIG": lambda: oracle.integrated_gradients(
            model, (x,), listed, OUTPUTS, nodes.nodes.tolist(), nodes.weights.tolist()
        ),
        "PathIntegral": lambda: oracle.integrated_gradients(
            model, (x,), listed, OUTPUTS, nodes.nodes.tolist(), nodes.weights.tolist()
        ),
        "BaselineShapley": lambda: oracle.baseline_shapley(model, (x,), listed, OUTPUTS, orders(x0.shape[1]).tolist()),
        "Identity": lambda: oracle.identity((x,), OUTPUTS),
    }[kind]()
    return folded(preset, a, y, oracle.predictions(model, (x,), OUTPUTS))


def folded(preset: str, a: np.ndarray, y: np.ndarray, r: np.ndarray) -> dict[str, np.ndarray]:
    """What a preset makes of attributions, by loops."""
    low, high = (y <= np.quantile(y, 0.1, axis=0)), (y >= np.quantile(y, 0.9, axis=0))
    found = {
        "igc": lambda: {"x/igc": statistics.igc(a, y, r)},
        "bsc": lambda: {"x/bsc": statistics.igc(a, y, r)},
        "igac": lambda: {"x/igac": statistics.igac(a, r)},
        "ig_mean_std": lambda: {"x/ig_mean": statistics.attribution_mean(a), "x/ig_std": statistics.attribution_std(a)},
        "naive_correlation": lambda: {"x/naive_correlation": statistics.pearson(a, y)},
        "naive_ttest": lambda: dict(
            zip(("x/naive_ttest_t", "x/naive_ttest"), statistics.t_test(a, low, high), strict=True)
        ),
    }
    return found.get(preset, lambda: {"samples/x/attribution": a})()


# -- closed forms ------------------------------------------------------------------------------------------------------


def closed(preset: str, model: nn.Module, x: np.ndarray, y: np.ndarray, x0: np.ndarray) -> dict[str, np.ndarray]:
    """The results of a preset by formulas of the weights and the data, without a call of the model."""
    delta = x[:, None] - x0  # n b p
    if isinstance(model, nn.Linear):
        w, r = model.weight.detach().numpy(), x @ model.weight.detach().numpy().T + model.bias.detach().numpy()
        gradient = np.broadcast_to(w, (N, *w.shape))
        ig = bs = w * delta.mean(1)[:, None]
    else:
        q = model.Q.detach().numpy()
        r = 0.5 * np.einsum("ni,jik,nk->nj", x, q, x)
        gradient = np.einsum("jik,nk->nji", q, x)
        ig = np.einsum("nbi,jik,nbk->nji", delta, q, (x[:, None] + x0) / 2) / x0.shape[1]
        bs = shapley_of_quadratic(q, x, x0)
    cov = lambda u, v: np.einsum("nji,nj->ji", u - u.mean(0), v - v.mean(0)) / N  # noqa: E731
    a = bs if preset in ("bsc", "baseline_shapley") else ig
    low, high = (y <= np.quantile(y, 0.1, axis=0)).T, (y >= np.quantile(y, 0.9, axis=0)).T
    forms = {
        "gradients": lambda: {"samples/x/attribution": gradient},
        "gradient_x_input": lambda: {"samples/x/attribution": x[:, None] * gradient},
        "ig": lambda: {"samples/x/attribution": ig},
        "ig_adaptive": lambda: {"samples/x/attribution": ig},
        "baseline_shapley": lambda: {"samples/x/attribution": bs},
        "igac": lambda: {"x/igac": cov(a, r) / r.var(0)[:, None]},
        "ig_mean_std": lambda: {"x/ig_mean": a.mean(0), "x/ig_std": a.std(0)},
        "naive_correlation": lambda: {"x/naive_correlation": np.corrcoef(y.T, x.T)[:2, 2:]},
        "naive_ttest": lambda: {
            "x/naive_ttest": np.array([ttest_ind(x[a], x[b]).pvalue for a, b in zip(low, high, strict=True)])
        },
    }
    return forms.get(preset, lambda: {f"x/{preset}": cov(a, y) / (y.std(0) * r.std(0))[:, None]})()


def shapley_of_quadratic(q: np.ndarray, x: np.ndarray, x0: np.ndarray) -> np.ndarray:
    """(N, J, P): ``Delta_i (Q_ii (x_i + x0_i) / 2 + sum_k Q_ik z_k)``, z_k = x_k if k is switched before i, else
    x0_k."""
    before = orders(x0.shape[1]).argsort(-1)  # the place of each component: n b t p
    earlier = before[..., None, :] < before[..., :, None]  # n b t i k
    itself = np.eye(3, dtype=bool)
    between = np.where(earlier, x[:, None, None, None], x0[:, :, None, None])
    z = np.where(itself, ((x[:, None] + x0) / 2)[:, :, None, None], between)
    return np.einsum("nbi,jik,nbtik->nji", x[:, None] - x0, q, z) / (x0.shape[1] * ITERATIONS)


@pytest.mark.parametrize("kind", STARTS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("preset", PRESETS)
def test_equals_its_literal_twin_and_its_closed_form(preset: str, name: str, kind: str) -> None:
    """With shared and with resampled baselines; also the agreement, and sums over features where the preset has
    them."""
    model, x, y = problem(name)
    tree = igc_dist.attribute(model, (x, y), method=preset, baseline=STARTS[kind], n_steps=2, n_folds=3, seed=SEED)
    x_PN, y_JN = x.numpy(), y.numpy()
    x0 = starts(x_PN, kind)
    for twin in (literal, closed):
        for path, values in twin(preset, model, x_PN, y_JN, x0).items():
            np.testing.assert_allclose(
                tree[path].values, values, rtol=1e-9, atol=1e-12, err_msg=f"{twin.__name__} {path}"
            )
    r = oracle.predictions(model, (x_PN,), OUTPUTS)
    np.testing.assert_allclose(tree["correlation"], statistics.correlations(y_JN, r), rtol=1e-12)
    assert ("samples" in tree.children) == config.preset(preset).samples
    if preset in ("igc", "bsc"):
        rho0 = statistics.rho0(
            y_JN, r, oracle.baseline_predictions(model, [[(row,) for row in of_n] for of_n in x0], OUTPUTS)
        )
        np.testing.assert_allclose(tree[f"{preset}_sum"], tree["correlation"] - rho0, rtol=0, atol=1e-12)


def test_shapley_over_every_permutation_is_ig_of_a_quadratic(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean over all 3! orders, with baselines of each sample's own: exactly IG, as no interaction is of more than
    two components."""
    model, x, y = problem("quadratic")
    every = list(permutations(range(3)))

    class Drawn:
        def __init__(self, draw: int) -> None:
            self.draw = draw

        def permutation(self, n: int) -> np.ndarray:
            return np.array(every[self.draw % len(every)])

    settings: dict[str, Any] = {"baseline": baselines.Resampled(3), "n_folds": 3, "seed": SEED, "samples": True}
    ig = igc_dist.attribute(model, (x, y), method="igc", n_steps=2, **settings)
    monkeypatch.setattr(seeds.Address, "generator", lambda self, n, purpose, draw=0: Drawn(draw))
    six = igc_dist.attributors.BaselineShapley(n_iter=6)
    bs = igc_dist.attribute(model, (x, y), method="bsc", attributor=six, **settings)
    np.testing.assert_allclose(bs["samples/x/attribution"], ig["samples/x/attribution"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(bs["x/bsc"], ig["x/igc"], rtol=0, atol=1e-12)
    (exact,) = oracle.exact_shapley(
        model, (x.numpy(),), [[(row,) for row in of_n] for of_n in starts(x.numpy(), "resampled")], OUTPUTS
    )
    np.testing.assert_allclose(bs["samples/x/attribution"], exact, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_shapley_is_ig_of_a_quadratic_in_expectation() -> None:
    """Over drawn permutations the difference is noise: its mean over 11 samples and 2,000 draws is within 4.5 standard
    errors of 0."""
    model, x, y = problem("quadratic")
    settings: dict[str, Any] = {"n_folds": 1, "baseline": STARTS["two shared"], "samples": True}
    ig = igc_dist.attribute(model, (x, y), method="ig", n_steps=2, **settings)["samples/x/attribution"].values
    many = igc_dist.attributors.BaselineShapley(n_iter=1000)
    bs = igc_dist.attribute(model, (x, y), method="baseline_shapley", attributor=many, **settings)[
        "samples/x/attribution"
    ].values
    q, delta = model.Q.detach().numpy(), x.numpy()[:, None] - starts(x.numpy(), "two shared")
    # each pair (i, k) is in either order with probability 1/2, so a draw has variance of at most (Delta_i sum_k |Q_ik
    # Delta_k| / 2)**2
    bound = np.einsum("nbi,jik,nbk->njbi", abs(delta), abs(q) * ~np.eye(3, dtype=bool), abs(delta)) / 2
    error = np.sqrt((bound**2).sum(2) / 4 / 1000)
    assert (abs(bs - ig) <= 4.5 * error).all()
    assert (abs(bs - ig) > 0).any()


@pytest.mark.parametrize("preset", ["naive_correlation", "naive_ttest"])
def test_naive_presets_of_a_target_that_is_the_model(preset: str) -> None:
    """y = W x + c: the correlation is ``(S w)_i / sqrt(S_ii w'S w)``. y = x'Q x / 2 over x and -x: no feature has any,
    t = 0, p = 1."""
    model, x, _ = problem("linear")
    with torch.no_grad():
        y = model(x)
    tree = igc_dist.attribute(model, (x, y), method=preset, n_folds=3)
    if preset == "naive_correlation":
        w, s = model.weight.detach().numpy(), np.cov(x.numpy().T)
        form = w @ s / np.sqrt(np.einsum("ji,ik,jk->j", w, s, w)[:, None] * np.diag(s))
        np.testing.assert_allclose(tree["x/naive_correlation"], form, rtol=1e-12)
    else:
        assert (tree["x/naive_ttest"].values < 1).all()
    model, x, _ = problem("quadratic")
    x = torch.cat((x, -x))
    with torch.no_grad():
        y = model(x)
    even = igc_dist.attribute(model, (x, y), method=preset, n_folds=3)
    np.testing.assert_allclose(
        even[f"x/{preset}"], np.full((2, 3), 0.0 if preset == "naive_correlation" else 1.0), atol=1e-12
    )


def test_any_attributor_with_any_statistic() -> None:
    """By override, all statistics from one pass: each equals its twin on the attributions of the samples."""
    model, x, y = problem("quadratic")
    r, y_JN = oracle.predictions(model, (x.numpy(),), OUTPUTS), y.numpy()
    low, high = (y_JN <= np.quantile(y_JN, 0.1, axis=0)), (y_JN >= np.quantile(y_JN, 0.9, axis=0))
    for preset in ("gradients", "gradient_x_input", "ig", "baseline_shapley", "naive_correlation"):
        several = [
            name for name in STATISTICS if name not in ("controlled_correlation", "area")
        ]  # which are for baselines of each sample, and for masks
        tree = igc_dist.attribute(model, (x, y), method=preset, statistics=several, samples=True, n_folds=3, n_steps=2)
        a = tree["samples/x/attribution"].values
        attributor = config.build_attributor(config.preset(preset).attributor, None)
        t, p = statistics.t_test(a, low, high)
        twins = {
            "correlation": statistics.igc(a, y_JN, r), "autocorrelation": statistics.igac(a, r),
            "pearson": statistics.pearson(a, y_JN),
            "mean": statistics.attribution_mean(a), "std": statistics.attribution_std(a), "ttest_t": t, "ttest_p": p,
        }  # fmt: skip
        for name, values in twins.items():
            found = tree[f"x/{attributor.label(name)}"].values
            np.testing.assert_allclose(found, values, rtol=1e-8, atol=1e-11, err_msg=f"{preset} {name}")
