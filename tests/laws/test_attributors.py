"""Laws of every attributor: its slow literal twin, 0 on the baseline, completeness where claimed, and no trace of
batching."""

from __future__ import annotations

from inspect import isabstract
from typing import Any

import numpy as np
import pytest
import torch

import igc_dist
from igc_dist.attributors import (
    AdaptiveIG,
    Attributor,
    BaselineShapley,
    Forward,
    Gradients,
    GradientXInput,
    Identity,
    PathIntegral,
)
from igc_dist.attributors.adaptive import KINDS
from igc_dist.model import Model
from igc_dist.paths import rule
from igc_dist.records import ConfigError
from igc_dist.seeds import Address, generator
from tests import models
from tests.attributors import members
from tests.oracles import attributions as oracle

Arrays = tuple[np.ndarray, ...]
RULES = [rule("midpoint", 4), rule("trapezoid", 3), rule("gauss_legendre", 5), rule("left", 2)]
SEED = 11


def indices(n: int) -> np.ndarray:
    """Global indices of n samples, in no order."""
    return (np.arange(n, dtype=np.int64) * 7 + 5) % 101


def orders(attributor: BaselineShapley, n: int, n_baselines: int, components: int) -> list:
    """The permutations at the addresses of each sample and baseline: draw number baseline * n_iter + iteration."""
    draws = lambda b: range(b * attributor.n_iter, (b + 1) * attributor.n_iter)  # noqa: E731
    drawn = lambda index, draw: generator(SEED, index, "attributors.shapley", draw).permutation(components).tolist()  # noqa: E731
    return [[[drawn(index, draw) for draw in draws(b)] for b in range(n_baselines)] for index in indices(n).tolist()]


def twin(attributor: Attributor, model: torch.nn.Module, x: Arrays, starts: list[list[Arrays]]) -> Arrays:
    """The oracle of an attributor."""
    if isinstance(attributor, PathIntegral):
        nodes, weights = attributor.quadrature.nodes.tolist(), attributor.quadrature.weights.tolist()
        return oracle.integrated_gradients(model, x, starts, [0, 1], nodes, weights)
    if isinstance(attributor, BaselineShapley):
        components = sum(int(np.prod(xi.shape[1:])) for xi in x)
        return oracle.baseline_shapley(
            model, x, starts, [0, 1], orders(attributor, len(x[0]), len(starts[0]), components)
        )
    if isinstance(attributor, AdaptiveIG):
        nested, n_start = KINDS[attributor.kind]
        weights = nested.fine.nodes.tolist(), nested.fine.weights.tolist(), nested.coarse.tolist()
        bounds = attributor.tol, attributor.atol
        return oracle.adaptive(model, x, starts, [0, 1], weights, n_start, bounds, attributor.max_evaluations)[0]
    if isinstance(attributor, Identity):
        return oracle.identity(x, [0, 1])
    return {Gradients: oracle.gradients, GradientXInput: oracle.gradients_x_input}[type(attributor)](model, x, [0, 1])


ADAPTIVE = [AdaptiveIG(kind="smooth", tol=2e-2), AdaptiveIG(kind="piecewise", tol=3e-2)]
SHAPLEY = [BaselineShapley(n) for n in (1, 2, 8)]
FAMILY: list[Attributor] = [
    Gradients(),
    GradientXInput(),
    Identity(),
    *(PathIntegral(q) for q in RULES),
    *ADAPTIVE,
    *SHAPLEY,
]


def called(attributor: Attributor) -> str:
    settings = {
        PathIntegral: lambda a: a.quadrature.name,
        BaselineShapley: lambda a: f"{a.n_iter}",
        AdaptiveIG: lambda a: a.kind,
    }
    return "-".join(
        [attributor.name, *(setting(attributor) for kind, setting in settings.items() if type(attributor) is kind)]
    )


every = pytest.mark.parametrize("attributor", FAMILY, ids=called)


def attribute(
    attributor: Attributor,
    model: torch.nn.Module,
    x: Arrays,
    x0: Arrays,
    size: int = 64,
    blocks: int = 1,
    index: np.ndarray | None = None,
) -> Arrays:
    """The package's attributions; `x0[i]` is (B, n or 1, *P_i), taken in `blocks` blocks."""
    inputs = tuple(torch.from_numpy(value) for value in x)
    total: Any = 0
    for cut in np.array_split(np.arange(len(x0[0])), blocks) if attributor.baselines else [np.arange(1)]:
        baselines = tuple(torch.from_numpy(value[cut]) for value in x0) if attributor.baselines else ()
        share = 1 / len(x0[0]) if attributor.baselines else 1.0
        address = Address(
            SEED,
            indices(len(x[0])) if index is None else index,
            range(int(cut[0]), int(cut[-1]) + 1),
            len(x0[0]) if attributor.baselines else 1,
        )
        values = attributor.attribute(Model(model), inputs, baselines, [0, 1], share=share, size=size, address=address)
        total = (
            [v.numpy() for v in values]
            if isinstance(total, int)
            else [a + v.numpy() for a, v in zip(total, values, strict=True)]
        )
    return tuple(total)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def per_sample(x0: Arrays, n: int) -> list[list[Arrays]]:
    """(B, n or 1, *P) arrays as the oracle takes them."""
    return [
        [tuple(value[b, k if value.shape[1] > 1 else 0] for value in x0) for b in range(len(x0[0]))] for k in range(n)
    ]


def test_the_family_is_whole() -> None:
    """Every attributor of the package is in the list, and has a twin; or has a file in tests/attributors."""

    def below(kind: type) -> set[type]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    mine = {kind for kind in below(Attributor) if kind.__module__.startswith("igc_dist.") and not isabstract(kind)}
    elsewhere = members.named("KINDS")
    assert elsewhere <= mine
    assert {type(a) for a in FAMILY} == mine - elsewhere - {
        Forward
    }  # a way to sum any of the walks, see test_forward_mode.py


@every
@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_equals_the_literal_twin(attributor: Attributor, name: str, shared: bool) -> None:
    """To 1e-12 in float64, with two baselines, shared by the samples or each its own."""
    model, x, x0 = models.MODELS[name](), (random(4, 3),), (random(2, 1 if shared else 4, 3, seed=1),)
    found = attribute(attributor, model, x, x0)
    assert found[0].shape == (4, 2, 3)
    np.testing.assert_allclose(found[0], twin(attributor, model, x, per_sample(x0, 4))[0], rtol=1e-12, atol=1e-12)


@every
def test_equals_the_literal_twin_of_images_and_of_two_inputs(attributor: Attributor) -> None:
    """Features of any shape, and several inputs that act on each other."""
    for model, shapes in ((models.conv(), [(1, 6, 6)]), (models.TwoInputs(), [(3,), (2, 2)])):
        x, x0 = (
            tuple(random(2, *s, seed=i) for i, s in enumerate(shapes)),
            tuple(random(1, 2, *s, seed=9) for s in shapes),
        )
        for found, expected in zip(
            attribute(attributor, model, x, x0), twin(attributor, model, x, per_sample(x0, 2)), strict=True
        ):
            np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("attributor", [a for a in FAMILY if a.baselines], ids=called)
@pytest.mark.parametrize("name", models.MODELS)
def test_nothing_on_the_baseline(attributor: Attributor, name: str) -> None:
    """x = x0 has no path: 0; exactly, but for predictions of equal rows of one batch, which may differ in their
    rounding."""
    x = random(3, 3)
    found = attribute(attributor, models.MODELS[name](), (x,), (x[None],))[0]
    np.testing.assert_allclose(found, 0, rtol=0, atol=0 if attributor.gradients else 1e-15)


@pytest.mark.parametrize("name", models.MODELS)
def test_completeness(name: str) -> None:
    """An attributor that claims it: the sum over features is f(x) - f(x0), to rounding where the rule is exact, else
    nearly."""
    assert {a.complete for a in FAMILY} == {True, False}
    model, x, x0 = models.MODELS[name](), random(4, 3), random(1, 1, 3, seed=1)
    with torch.no_grad():
        rise = (model(torch.from_numpy(x)) - model(torch.from_numpy(x0[0]))).numpy()
    steps = 400 if name == "relu" else 32
    for kind in ("midpoint", "gauss_legendre", "trapezoid"):
        total = attribute(PathIntegral(rule(kind, steps)), model, (x,), (x0,))[0].sum(-1)
        exact = name in ("linear", "quadratic") or (name == "gelu" and kind == "gauss_legendre")
        np.testing.assert_allclose(total, rise, rtol=0, atol=1e-12 if exact else 5e-3)
    for attributor in SHAPLEY:  # whatever the model and the number of permutations
        np.testing.assert_allclose(attribute(attributor, model, (x,), (x0,))[0].sum(-1), rise, rtol=0, atol=1e-14)


def test_closed_forms() -> None:
    """Linear: w (x - x0). Quadratic: (x - x0) * Q (x + x0) / 2. A ReLU unit: w (x - x0) times the part of the path
    where it fires."""
    x, x0, ig = random(5, 3), random(1, 1, 3, seed=1), PathIntegral(rule("midpoint", 1))
    start, model = x0[0], models.linear()
    W = model.weight.detach().numpy()
    np.testing.assert_allclose(attribute(ig, model, (x,), (x0,))[0], W * (x - start)[:, None], rtol=1e-12, atol=1e-14)
    model = models.Quadratic()
    expected = (x - start)[:, None] * np.einsum("kij,nj->nki", model.Q.detach().numpy(), x + start) / 2
    np.testing.assert_allclose(attribute(ig, model, (x,), (x0,))[0], expected, rtol=1e-12, atol=1e-14)
    w = np.array([1.0, -2, 0.5])
    unit = models.Function(lambda x: torch.relu(x @ torch.from_numpy(w))[:, None].expand(-1, 2))
    low, high = start @ w, x @ w
    fires = np.clip(
        np.where(high > low, 1 - np.clip(-low / (high - low), 0, 1), np.clip(low / (low - high), 0, 1)), 0, 1
    )
    fine = attribute(PathIntegral(rule("midpoint", 4000)), unit, (x,), (x0,), size=4000)[0][:, 0]
    np.testing.assert_allclose(fine, w * (x - start) * fires[:, None], atol=2e-3)


@every
@pytest.mark.parametrize("size", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 7)), 3, 64])
def test_batching_changes_nothing_but_rounding(attributor: Attributor, size: int) -> None:
    """Path points per forward pass, samples per batch and blocks of baselines only reorder the sum."""
    model, x, x0 = models.mlp(torch.nn.GELU), random(6, 3), random(3, 6, 3, seed=1)
    whole = attribute(attributor, model, (x,), (x0,))[0]
    np.testing.assert_allclose(attribute(attributor, model, (x,), (x0,), size=size)[0], whole, rtol=1e-12, atol=1e-14)
    alone = [{"x": (x[n : n + 1],), "x0": (x0[:, n : n + 1],), "index": indices(6)[n : n + 1]} for n in range(6)]
    rows = [attribute(attributor, model, **one, size=size)[0] for one in alone]
    np.testing.assert_allclose(np.concatenate(rows), whole, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        attribute(attributor, model, (x,), (x0,), size=size, blocks=2)[0], whole, rtol=1e-12, atol=1e-14
    )


def test_watch_sees_every_row() -> None:
    """Progress counts rows of forward passes: samples x baselines x nodes."""
    seen: list[int] = []
    x, x0 = torch.zeros(4, 3).double(), torch.zeros(2, 1, 3).double()
    PathIntegral(rule("midpoint", 5)).attribute(
        Model(models.linear()), (x,), (x0,), [0], share=0.5, size=3, watch=seen.append
    )
    assert sum(seen) == 4 * 2 * 5
    assert max(seen) == 3 * 4


@every
@pytest.mark.parametrize("columns", [[0], [1, 0, 2], list(range(9))], ids=len)
def test_rows_of_forward_passes_are_those_announced(attributor: Attributor, columns: list[int]) -> None:
    """Samples x baselines x `points`, in passes of at most `size` points, however many outputs are asked for, in any
    order."""
    first, second = torch.from_numpy(random(3, 9)), torch.from_numpy(random(2, 9, seed=1))
    model = models.Function(lambda x1, x2: torch.tanh(x1 @ first) * torch.tanh(x2.flatten(1)[:, :2] @ second))
    again = models.Function(model.function)
    shapes: list[tuple[int, ...]] = [(3,), (2, 2)]
    x = tuple(torch.from_numpy(random(4, *shape)) for shape in shapes)
    x0 = tuple(torch.from_numpy(random(2, 1, *shape, seed=1)) for shape in shapes) if attributor.baselines else ()
    seen: list[int] = []
    address = Address(SEED, indices(4), range(len(x0[0]) if x0 else 1), len(x0[0]) if x0 else 1)
    found = attributor.attribute(Model(model), x, x0, columns, share=0.5, size=5, watch=seen.append, address=address)
    assert [v.shape for v in found] == [(4, len(columns), *shape) for shape in shapes]
    if isinstance(attributor, AdaptiveIG):  # the most that there can be
        assert model.rows == sum(seen) <= 4 * len(address.baselines) * attributor.points(shapes)
        assert max(seen) <= 5 * 4
    else:
        assert model.rows == sum(seen) == 4 * len(address.baselines) * attributor.points(shapes)
    if model.rows and not isinstance(attributor, AdaptiveIG):
        assert model.calls == len(seen) == -(-len(address.baselines) * attributor.points(shapes) // 5)
        assert max(seen) <= 5 * 4
    every_output = attributor.attribute(Model(again), x, x0, range(9), share=0.5, size=5, address=address)
    for some, whole in zip(found, every_output, strict=True):
        np.testing.assert_allclose(some, whole[:, columns], rtol=1e-12, atol=1e-14)


def test_names_of_results() -> None:
    """The literature's names where there are any."""
    assert [PathIntegral().label(name) for name in ("correlation", "autocorrelation", "mean", "std")] == [
        "igc",
        "igac",
        "ig_mean",
        "ig_std",
    ]
    assert Gradients().label("mean") == "gradient_mean"
    assert [BaselineShapley().label(name) for name in ("correlation", "mean")] == ["bsc", "bs_mean"]
    assert [Identity().label(name) for name in ("pearson", "ttest_p", "ttest_t", "mean")] == [
        "naive_correlation",
        "naive_ttest",
        "naive_ttest_t",
        "input_mean",
    ]


def test_shapley_of_a_linear_model_needs_one_permutation() -> None:
    """w (x - x0), whatever the order."""
    x, x0, model = random(5, 3), random(1, 1, 3, seed=1), models.linear()
    expected = model.weight.detach().numpy() * (x - x0[0])[:, None]
    for attributor in SHAPLEY:
        np.testing.assert_allclose(attribute(attributor, model, (x,), (x0,))[0], expected, rtol=1e-12, atol=1e-14)


def test_shapley_of_a_product() -> None:
    """f = x1 x2: (x_i - x0_i) (x_k + x0_k) / 2, the mean of both orders; met by every sample that has drawn both."""
    x, x0 = random(32, 2), random(1, 1, 2, seed=1)
    model = models.Function(lambda x: (x[:, 0] * x[:, 1])[:, None].expand(-1, 2))
    closed = ((x - x0[0]) * (x + x0[0])[:, ::-1] / 2)[:, None].repeat(2, 1)
    np.testing.assert_allclose(
        oracle.exact_shapley(model, (x,), per_sample((x0,), 32), [0, 1])[0], closed, rtol=1e-12, atol=1e-14
    )
    found = attribute(BaselineShapley(2), model, (x,), (x0,))[0]
    both = np.array([of_n[0][0] != of_n[0][1] for of_n in orders(BaselineShapley(2), 32, 1, 2)])
    assert 8 < both.sum() < 24
    np.testing.assert_allclose(found[both], closed[both], rtol=1e-12, atol=1e-14)
    assert (abs(found[~both] - closed[~both]) > 1e-9).all()


@pytest.mark.parametrize("name", models.MODELS)
def test_shapley_tends_to_the_mean_over_all_permutations(name: str) -> None:
    """Three components have six orders: the mean over draws is within its standard error. For quadratic models it is
    IG."""
    model, x, x0, n_iter = models.MODELS[name](), random(4, 3), random(1, 1, 3, seed=1), 400
    exact = oracle.exact_shapley(model, (x,), per_sample((x0,), 4), [0, 1])[0]
    if name in ("linear", "quadratic"):
        np.testing.assert_allclose(
            exact, attribute(PathIntegral(rule("midpoint", 1)), model, (x,), (x0,))[0], rtol=1e-12, atol=1e-13
        )
    one_each = [attribute(BaselineShapley(1), model, (x,), (x0,), index=indices(4) + 1000 * k)[0] for k in range(50)]
    error = np.std(one_each, axis=0) / np.sqrt(n_iter)
    assert (abs(attribute(BaselineShapley(n_iter), model, (x,), (x0,))[0] - exact) <= 4 * error + 1e-13).all()


def test_permutations_differ_between_samples_and_baselines() -> None:
    """Equal samples with equal baselines draw other orders; the index of the sample decides, not its place in the
    batch."""
    model, x, x0 = models.mlp(torch.nn.GELU), random(1, 3).repeat(12, 0), random(1, 1, 3, seed=1)
    one = attribute(BaselineShapley(1), model, (x,), (x0,))[0]
    assert len(np.unique(one.round(12), axis=0)) > 3
    turned = attribute(BaselineShapley(1), model, (x,), (x0,), index=indices(12)[::-1].copy())[0]
    np.testing.assert_allclose(turned, one[::-1], rtol=0, atol=1e-14)
    two = attribute(BaselineShapley(1), model, (x,), (x0.repeat(2, 0),))[0]
    assert (abs(two - one).max((1, 2)) > 1e-9).any()


def test_shapley_refuses() -> None:
    """No permutations, and no address to draw them from."""
    with pytest.raises(ConfigError, match=r"n_iter=0: give an integer of at least 1"):
        BaselineShapley(0)
    x = torch.zeros(1, 3).double()
    with pytest.raises(TypeError, match="needs the address of the batch"):
        BaselineShapley().attribute(Model(models.linear()), (x,), (x[None],), [0], share=1.0, size=3)


def test_shapley_in_float32() -> None:
    """Complete to the rounding of the predictions, in the type of the inputs."""
    model, x, x0 = (
        models.mlp(torch.nn.GELU).float(),
        random(4, 3).astype(np.float32),
        random(1, 1, 3, seed=1).astype(np.float32),
    )
    found = attribute(BaselineShapley(8), model, (x,), (x0,))[0]
    assert found.dtype == np.float32
    with torch.no_grad():
        rise = (model(torch.from_numpy(x)) - model(torch.from_numpy(x0[0]))).numpy()
    np.testing.assert_allclose(found.sum(-1), rise, rtol=0, atol=1e-6)


def test_identity_shares_memory_with_the_input_and_leaves_the_model_alone() -> None:
    """No copy per output, no forward pass; a place to stop all the same."""
    model, x, seen = models.Function(lambda x: x), torch.from_numpy(random(4, 3)), []
    (found,) = Identity().attribute(Model(model), (x,), (), [0, 1, 2], share=1.0, size=3, watch=seen.append)
    assert found.data_ptr() == x.data_ptr()
    assert (model.calls, seen) == (0, [0])


@pytest.mark.slow
def test_shapley_of_a_run_does_not_depend_on_its_cuts() -> None:
    """Permutations follow the sample and the number of the baseline through folds, micro-batches and blocks; another
    seed, others."""
    model, data = models.mlp(torch.nn.GELU), models.data(models.mlp(torch.nn.GELU))
    x0 = torch.from_numpy(random(4, 3, seed=1))

    def run(**settings: Any) -> np.ndarray:
        tree = igc_dist.attribute(model, data, method="bsc", baseline=x0, threads=1, **settings)
        blocks = 2 if "output_block" in settings else 1
        assert (tree.attrs["cost"]["forwards"], tree.attrs["cost"]["gradient_evaluations"]) == (
            12 * 4 * 8 * (3 + 1) * blocks,
            0,
        )
        return tree["x/bsc"].values

    whole = run()
    for cut in (
        {"micro_batch": 5, "n_folds": 3},
        {"baseline_block": 3, "output_block": 1},
        {"baseline_block": 1, "micro_batch": 2},
    ):
        np.testing.assert_allclose(run(**cut), whole, rtol=1e-10, atol=1e-12)
    assert abs(run(seed=1) - whole).max() > 1e-6


def test_a_run_without_forward_passes() -> None:
    """Statistics of the inputs themselves cost nothing but pass 1."""
    model, data = models.linear(), models.data(models.linear())
    tree = igc_dist.attribute(model, data, method="naive_correlation", statistics=["moments"], samples=True, threads=1)
    assert tree.attrs["cost"]["forwards"] == tree.attrs["cost"]["gradient_evaluations"] == 0
    np.testing.assert_allclose(tree["x/input_std"].values, np.std(data[0].numpy(), 0)[None].repeat(2, 0), rtol=1e-12)
    np.testing.assert_array_equal(tree["samples/x/attribution"].values, data[0].numpy()[:, None].repeat(2, 1))
