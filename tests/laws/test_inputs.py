"""Laws of inputs: categories equal a literal one-hot model, embeddings equal IG on precomputed ones, and what cannot be
is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, one_hot

import igc_dist
from igc_dist import baselines, inputs
from igc_dist.attributors import Attributor, Gradients, GradientXInput, PathIntegral, Task
from igc_dist.model import Model
from igc_dist.paths import rule
from igc_dist.records import ConfigError, DataError, ModelError
from tests import models
from tests.oracles import attributions as oracle

G = torch.Generator().manual_seed(0)
X = torch.randn(4, 3, dtype=torch.float64, generator=G)
RULE = rule("gauss_legendre", 3)
IG = PathIntegral(RULE)


def ids(*shape: int, n: int = 5, seed: int = 0) -> Tensor:
    return torch.randint(n, shape, generator=torch.Generator().manual_seed(seed))


def columns(seed: int, *lead: int) -> Tensor:
    """(*lead, 2): 5 categories in the first column, 4 in the second."""
    return torch.stack((ids(*lead, seed=seed), ids(*lead, n=4, seed=seed + 1)), -1)


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], Callable[[int, int, int], tuple[Tensor, ...]]]] = {
    # the module, numbers of categories, and its raw inputs (b, n, *P) from a seed
    "columns": (
        models.Lookup,
        (5,),
        lambda seed, b, n: (torch.randn(b, n, 3, dtype=torch.float64), columns(seed, b, n)),
    ),
    "shared": (models.Shared, (5, 5), lambda seed, b, n: (ids(b, n, seed=seed), ids(b, n, seed=seed + 1))),
    "sequence": (models.Sequence, (6,), lambda seed, b, n: (ids(b, n, 4, n=6, seed=seed),)),
}


class Relaxed(nn.Module):
    """A module in the space of one-hot codes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *x: Tensor) -> Tensor:
        return self.module.relaxed(*x)


def coded(raw: tuple[Tensor, ...], numbers: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Raw inputs with one-hot codes in place of the categories."""
    m = len(numbers)
    return *(x.numpy() for x in raw[:-m]), *(
        one_hot(x, c).double().numpy() for x, c in zip(raw[-m:], numbers, strict=True)
    )


def starts(x0: tuple[np.ndarray, ...], n: int) -> list[list[tuple[np.ndarray, ...]]]:
    return [[tuple(v[b, k % v.shape[1]] for v in x0) for b in range(len(x0[0]))] for k in range(n)]


def found(
    kind: inputs.Inputs, attributor: Attributor, raw: tuple[Tensor, ...], x0: tuple[Tensor, ...], size: int = 5
) -> list[np.ndarray]:
    with kind.model.borrowed("cpu"):
        taken = kind.take(raw, "cpu")
        kind.prove(taken)
        start = kind.take(x0, "cpu", "baseline of input") if attributor.baselines else ()
        return [
            v.numpy() for v in kind.attribute(attributor, Task(kind.model, taken, start, [0, 1], 1 / len(x0[0]), size))
        ]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_categories_equal_a_literal_one_hot_walk(name: str, shared: bool) -> None:
    """IG to categories is IG of the one-hot relaxation, to 1e-12, with three baselines; complete; 0 where x = x0."""
    make, numbers, draw = CASES[name]
    module, raw, x0 = make(), tuple(x[0] for x in draw(3, 1, 4)), draw(9, 3, 1 if shared else 4)
    values = found(inputs.ensure(Model(module), categories=numbers if len(numbers) > 1 else numbers[0]), IG, raw, x0)
    expected = oracle.integrated_gradients(
        Relaxed(module),
        coded(raw, numbers),
        starts(coded(x0, numbers), 4),
        [0, 1],
        RULE.nodes.tolist(),
        RULE.weights.tolist(),
    )
    for one, two in zip(values, expected, strict=True):
        assert one.shape == two.shape
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-12)
        assert np.abs(two).max() > 1e-3
    fine = found(inputs.ensure(Model(module), categories=numbers), PathIntegral(rule("gauss_legendre", 40)), raw, x0)
    with torch.no_grad():
        rise = module(*raw) - torch.stack(
            [module(*(x[b].expand_as(r) for x, r in zip(x0, raw, strict=True))) for b in range(3)]
        ).mean(0)
    np.testing.assert_allclose(sum(v.reshape(4, 2, -1).sum(2) for v in fine), rise, atol=1e-10)
    still = tuple(x[None] for x in raw)
    assert all(not v.any() for v in found(inputs.ensure(Model(module), categories=numbers), IG, raw, still))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("attributor", [Gradients(), GradientXInput()], ids=lambda a: a.name)
def test_gradients_in_one_hot_space(name: str, attributor: Attributor) -> None:
    """``d f / d onehot_c = <W_c, g>`` for all categories, and times the code for gradient x input."""
    make, numbers, draw = CASES[name]
    module, raw = make(), tuple(x[0] for x in draw(3, 1, 4))
    twin = oracle.gradients if isinstance(attributor, Gradients) else oracle.gradients_x_input
    values = found(inputs.ensure(Model(module), categories=numbers), attributor, raw, tuple(x[None] for x in raw))
    for one, two in zip(values, twin(Relaxed(module), coded(raw, numbers), [0, 1]), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-12)


def test_the_sum_over_categories_is_that_over_the_embedding() -> None:
    """``sum_c A_c = <W_x - W_x0, e>``, the embedding's IG summed over its dimension."""
    module = models.Sequence()
    module.embed_all = lambda i: module.token(torch.cat((torch.full_like(i[:, :1], 5), i), 1))
    raw, x0 = (ids(4, 4, n=6),), (ids(2, 4, 4, n=6, seed=1),)
    (values,) = found(inputs.ensure(Model(module), categories=6), IG, raw, x0)
    (rows,) = found(inputs.ensure(Model(module, forward="body"), embedding="embed_all"), IG, raw, x0)
    np.testing.assert_allclose(values.sum(-1), rows.sum(-1)[:, :, 1:], rtol=1e-12, atol=1e-14)


def test_embedding_equals_ig_on_precomputed_embeddings() -> None:
    """To the bit, with keyword arguments; baselines are raw, and embedded too (acceptance 66); also as a tuple (67)."""
    module = models.Sequence()
    raw, x0 = (ids(4, 4, n=6),), (ids(2, 1, 4, n=6, seed=1),)
    kind = inputs.ensure(Model(module, forward="body"), embedding="embed", embedding_kwargs={"scale": 2.0})
    made = tuple(2 * module.token(i).detach() for i in (*raw, *x0))
    expected = IG.attribute(Model(module, forward="body"), made[:1], made[1:], [0, 1], share=0.5, size=5)
    (values,) = found(kind, IG, raw, x0)
    assert np.array_equal(values, expected[0].detach().numpy())
    assert np.array_equal(kind.predict(kind.take(raw, "cpu")).numpy(), module.body(made[0]).detach().numpy())

    pair = models.Lookup()
    pair.pieces = lambda i: (pair.one(i[:, 0]), pair.two(i[:, 1]))
    raw, x0 = (X, columns(2, 4)), (torch.zeros(2, 1, 3, dtype=torch.float64), columns(4, 2, 1))
    values = found(inputs.ensure(Model(pair, forward="body"), embedding="pieces"), IG, raw, x0)
    points = raw[0], *(e.detach() for e in pair.pieces(raw[1]))
    start = x0[0], *(e.detach()[:, None] for e in pair.pieces(x0[1][:, 0]))
    for one, two in zip(
        values, IG.attribute(Model(pair, forward="body"), points, start, [0, 1], share=0.5, size=5), strict=True
    ):
        assert np.array_equal(one, two.detach().numpy())


def test_categories_of_float_and_narrow_types() -> None:
    """uint8, int32 and whole floats (declared) count as categories; bits do not depend on the type, nor on the batch
    but by rounding."""
    raw, x0 = ids(4, 4, n=6), ids(1, 1, 4, n=6, seed=1)
    results = [
        found(inputs.ensure(Model(models.Sequence()), categories=6, n_categorical=1), IG, (raw.to(t),), (x0.to(t),))[0]
        for t in (torch.int64, torch.uint8, torch.int32, torch.float32)
    ]
    assert all(np.array_equal(results[0], other) for other in results)
    (one_by_one,) = found(inputs.ensure(Model(models.Sequence()), categories=[6]), IG, (raw,), (x0,), size=1)
    np.testing.assert_allclose(one_by_one, results[0], rtol=1e-12, atol=1e-14)


def test_bounded_tables_are_handed_back() -> None:
    """max_norm renormalises in place at each forward: the run is of the bounded table, and the user's stays as it was,
    to the bit."""
    module = models.Sequence(max_norm=1.5)
    before, address = module.token.weight.detach().clone(), module.token.weight.data_ptr()
    assert (before.norm(dim=1) > 1.5).any()
    twin = models.Sequence(max_norm=1.5)
    raw = (ids(4, 4, n=6),)
    kind = inputs.ensure(Model(module), categories=6)
    with kind.model.borrowed("cpu"):
        torch.testing.assert_close(kind.predict(raw), twin(*raw).detach(), rtol=1e-12, atol=0)
    values = found(kind, IG, raw, (torch.zeros(1, 1, 4, dtype=torch.int64),))
    assert torch.equal(module.token.weight, before)
    assert module.token.weight.data_ptr() == address
    assert module.token.max_norm == 1.5
    module.token.weight.data, module.token.max_norm = twin.token.weight.data, None
    twin(torch.arange(6)[None, :4]), twin(torch.arange(2, 6)[None])  # every row is bounded now
    again = found(inputs.ensure(Model(module), categories=6), IG, raw, (torch.zeros(1, 1, 4, dtype=torch.int64),))
    np.testing.assert_allclose(values[0], again[0], rtol=1e-12, atol=1e-14)


class Uses(nn.Module):
    """Looks up its categories, and uses them otherwise."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.bag, self.function = nn.Embedding(8, 2), nn.EmbeddingBag(8, 2), function

    def forward(self, i: Tensor) -> Tensor:
        return self.function(self, i)


def masked(m: nn.Module, i: Tensor) -> Tensor:
    return (m.table(i) * (i != 0)[..., None]).sum(1)


REFUSED: dict[str, tuple[Callable[[nn.Module, Tensor], Tensor], str]] = {
    "mask": (masked, "off by .*|mask"),
    "offset": (lambda m, i: m.table(i + torch.tensor([0, 4])).sum(1), "offset"),
    "bag": (lambda m, i: m.bag(i), "EmbeddingBag"),
    "codes": (lambda m, i: one_hot(i, 4).double().sum(1)[:, :2], "embedding"),
    "values": (lambda m, i: m.table(i).sum(1) + i.sum(1, keepdim=True), "embedding"),
    "unused": (
        lambda m, i: m.table(torch.arange(2)).sum(0).expand(len(i), 2),
        r"input x is declared .* no nn.Embedding",
    ),
    "floats": (lambda m, i: m.table(i.float().long()).sum(1), "embedding"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_use_categories_otherwise(name: str) -> None:
    """They are found out at the first look, with the way out."""
    function, text = REFUSED[name]
    with pytest.raises(ModelError, match=text):
        igc_dist.attribute(Uses(function).double(), (ids(6, 2, n=4), torch.randn(6, 2)), categories=4, n_folds=2)


def test_functional_lookups_and_own_numbers_are_understood() -> None:
    """A lookup by function, in a subclass with a scale, and of numbers of the model's own, are relaxed as any other."""
    module = Uses(
        lambda m, i: torch.tanh(embedding(i.flip(1), m.table.weight) * 3 + m.table(torch.arange(2))).sum(1)
    ).double()
    raw, x0 = (ids(4, 2, n=8),), (ids(1, 4, 2, n=8, seed=1),)
    module.relaxed = lambda code: torch.tanh((code.flip(1) @ module.table.weight) * 3 + module.table.weight[:2]).sum(1)
    (values,) = found(inputs.ensure(Model(module), categories=8), IG, raw, x0)
    (expected,) = oracle.integrated_gradients(
        Relaxed(module),
        coded(raw, (8,)),
        starts(coded(x0, (8,)), 4),
        [0, 1],
        RULE.nodes.tolist(),
        RULE.weights.tolist(),
    )
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-13)


Y = torch.randn(6, 2)
TOKENS = (ids(6, 4, n=6), Y)
ERRORS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "undeclared": ({}, DataError, "input x has type torch.int64.*embedding.*categories"),
    "both": ({"categories": 6, "embedding": "embed"}, ConfigError, "both given"),
    "kwargs": ({"embedding_kwargs": {"scale": 1.0}}, ConfigError, "no embedding"),
    "alone": ({"n_categorical": 1}, ConfigError, "needs embedding"),
    "number": ({"categories": 0}, ConfigError, "categories=0"),
    "too few": ({"categories": 4}, DataError, "input x has category [45].*0 to 3"),
    "too many": ({"categories": 7}, ConfigError, "categories says 7 for input x.*6 rows"),
    "inputs": ({"categories": [6, 6]}, ConfigError, "2 inputs .* gives 1"),
    "disagree": ({"categories": [6, 6], "n_categorical": 1}, ConfigError, "must agree"),
    "compiled": ({"categories": 6, "compiled": True}, ConfigError, "compile"),
    "method": ({"embedding": "embedd"}, ModelError, "no method 'embedd'"),
    "fraction": ({"categories": 6, "baseline": 0.5}, ConfigError, "0.5 is not a whole number"),
    "constant": ({"categories": 6, "baseline": 6.0}, DataError, "baseline of input x has category 6"),
    "given": ({"categories": 6, "baseline": torch.full((4,), 1.5)}, ConfigError, "1.5 is not a whole number"),
    "noise": ({"categories": 6, "baseline": baselines.Noise()}, ConfigError, "Noise makes no categories"),
    "mean": (
        {"embedding": "embed", "forward": "body", "baseline": baselines.Mean()},
        ConfigError,
        "Mean makes no categories",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_to_do(name: str) -> None:
    """Settings that do not go together, categories out of range, tables that are too small; before any forward pass if
    possible."""
    keywords, kind, text = ERRORS[name]
    module = models.Sequence()
    calls: list[int] = []
    module.token.register_forward_pre_hook(lambda m, args: calls.append(1))
    with pytest.raises(kind, match=text):
        igc_dist.attribute(module, TOKENS, **keywords)
    assert not calls or name == "too many"


def test_no_category_among_the_inputs() -> None:
    """Floats alone, and an integer input before a float."""
    with pytest.raises(DataError, match=r"no trailing input is of integer type \(torch.float32\).*n_categorical"):
        igc_dist.attribute(models.Sequence(), (torch.randn(6, 4), Y), categories=6)
    with pytest.raises(DataError, match=r"input x has type torch.int64"):
        igc_dist.attribute(models.Lookup(), ((ids(6), torch.randn(6, 3), ids(6, 2)), Y), categories=4)


@pytest.mark.parametrize(
    "baseline", [None, 2, baselines.Resampled(2), torch.tensor([[1, 2, 0, 5], [0, 0, 3, 3]])], ids=repr
)
def test_end_to_end_with_categories(baseline: Any) -> None:
    """IGC has a category axis, and its sum is the correlation less the baseline term; samples have the same shape."""
    x = ids(12, 4, n=6)
    y = models.Sequence()(x).detach() + 0.3 * torch.randn(12, 2, dtype=torch.float64)
    tree = igc_dist.attribute(
        models.Sequence(), (x, y), categories=6, baseline=baseline, quadrature="gauss_legendre", n_folds=3, samples=True
    )
    assert tree["x/igc"].shape == (2, 4, 6)
    assert tree["samples/x/attribution"].shape == (12, 2, 4, 6)
    np.testing.assert_allclose(
        tree["x/igc"].values.sum((1, 2)), tree["correlation"] - tree["baseline_term"], atol=1e-10
    )
    assert float(np.abs(tree["quadrature_error"]).max()) < 1e-10


def test_end_to_end_with_scalars_of_mixed_types() -> None:
    """0-d inputs of float32 and float64, and a scalar category, through embedding and through categories."""
    n = 12
    a, b = torch.randn(n), torch.randn(n, dtype=torch.float64)
    plain = models.Function(lambda a, b: torch.stack((a * b, a - torch.tanh(b)), 1))
    tree = igc_dist.attribute(plain, ((a, b), torch.randn(n, 2)), n_folds=3, samples=True)
    assert tree["x/igc"].shape == tree["x1/igc"].shape == (2,)
    x = ((ids(n), ids(n, seed=3)), torch.randn(n, 2))
    assert igc_dist.attribute(models.Shared(), x, categories=5, n_folds=3)["x1/igc"].shape == (2, 5)
    assert igc_dist.attribute(models.Shared(), x, categories=5, n_folds=3, method="gradients")[
        "samples/x/attribution"
    ].shape == (n, 2, 5)
    module = models.Shared()
    module.both = lambda a, b: (module.table(a), module.table(b))
    assert igc_dist.attribute(module, x, embedding="both", forward="body", n_folds=3, baseline=2)["x1/igc"].shape == (
        2,
        3,
    )


def test_nothing_moves_where_the_categories_are_the_same() -> None:
    """For any attributor, also one that switches coefficients one by one: a walk from x0 = x starts where it ends."""
    kind = inputs.ensure(Model(models.Sequence()), categories=6)
    raw, x0 = (torch.tensor([[0, 1, 2, 3]]),), (torch.tensor([[[0, 2, 2, 5]]]),)
    walk = kind.walk(raw, x0)
    assert walk.inputs[0].tolist() == [[[1, 0]] * 4]
    assert walk.baselines[0].tolist() == [[[[1, 0], [0, 1], [1, 0], [0, 1]]]]
