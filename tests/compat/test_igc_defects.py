"""What the IGC package (1.1.0) does wrong, one test for each defect, by its id: the right value, by `igc_dist.compat`.

References are closed forms, or the literal loops of tests/oracles, which use nothing of the package.
"""
# ruff: noqa: N802 - the ids keep their capitals

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from igc_dist import compat
from igc_dist.records import ConfigError
from tests import models
from tests.compat.cases import D4, Drawn, Items, arrays, close, ig, orders, predicted, problem
from tests.oracles import attributions, statistics

DOUBLE: dict[str, Any] = {"dtype": torch.float64}
QUIET: dict[str, Any] = {"check_error": False, "fabric": {"n_folds": 2}}
ZEROS = [(np.zeros(3),)]


def test_IGC_01_constant_baselines_of_one_input() -> None:
    """x_0=None, which is the default, or a float crashed for every model of one input. They are one baseline, filled
    with it."""
    attr = compat.IntGradCorr(models.product4(), D4, **DOUBLE)
    _, y = arrays(D4)
    close(attr.compute(n_steps=5, **QUIET), [[0.89509832, 0.14229768, -0.07344397]], 5e-9)
    for x_0 in (None, 0.0, -0.5, np.float32(2)):
        a = ig(models.product4(), D4, [(np.full(3, x_0 or 0.0),)], [0], 5)[0]
        close(attr.compute(x_0, n_steps=5, **QUIET), statistics.igc(a, y, predicted(models.product4(), D4)))
        close(compat.IntegratedGradients(models.product4(), D4, **DOUBLE).compute(None, x_0, n_steps=5, **QUIET)[4], a)


def test_IGC_02_deviation_is_no_variance() -> None:
    """`IntGradMeanStd` returned the variance for the standard deviation, as the root was lost."""
    mean, std = compat.IntGradMeanStd(models.product4(), D4, **DOUBLE).compute(n_steps=2, **QUIET)
    close(mean, [[4.375, 0.875, 1.0]])
    close(std, np.sqrt([[17.671875, 0.796875, 0.5]]))


def test_IGC_03_correlation_of_inputs_is_one() -> None:
    """`NaiveCorrelation` divided by the variance of x instead of its deviation, so the result hung on the units of
    x."""
    model, data = problem()
    (x,), y = arrays(data)
    expected = np.corrcoef(x.T, y.T)[3:, :3]
    close(compat.NaiveCorrelation(model, data, **DOUBLE).compute(), expected)
    close(compat.NaiveCorrelation(model, Items(1000 * data.x, data.y), **DOUBLE).compute(), expected)


def groups(y: np.ndarray, ranges: Any) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.broadcast_to(np.asarray(ranges, np.float64), (y.shape[1], 2)).T
    return y <= low, y >= high


def test_IGC_04_t_test_of_deviations() -> None:
    """`NaiveTTest` handed variances on as standard deviations. The p-values are those of Student's test with pooled
    variance."""
    model, data = problem(20)
    (x,), y = arrays(data)
    a = attributions.identity([x], range(3))[0]
    found = compat.NaiveTTest(model, data, **DOUBLE).compute((-0.1, 0.2))
    close(found, statistics.t_test(a, *groups(y, (-0.1, 0.2)))[1], 1e-9)


def test_IGC_05_correlation_of_selected_outputs() -> None:
    """`NaiveCorrelation` selected outputs twice: y_idx=1 was out of range, y_idx=[1, 0] paired one output with
    another's deviation."""
    model, data = problem()
    (x,), y = arrays(data)
    expected = np.corrcoef(x.T, y.T)[3:, :3]
    for wish in (1, [1, 0], [2, 0, 1], [2]):
        close(compat.NaiveCorrelation(model, data, **DOUBLE).compute(wish), expected[np.atleast_1d(wish)])


def test_IGC_06_t_test_of_selected_outputs() -> None:
    """`NaiveTTest` with fewer outputs per batch than selected failed, or took the limits of another output."""
    model, data = problem(20)
    (x,), y = arrays(data)
    a = attributions.identity([x], range(3))[0]
    ranges = ((-0.3, 0.1), (0.0, 0.0), (0.1, 0.3))
    expected = statistics.t_test(a, *groups(y, ranges))[1]
    attr = compat.NaiveTTest(model, data, **DOUBLE)
    close(attr.compute(ranges, batch_size=(7, 2)), expected, 1e-9)
    close(attr.compute((ranges[2], ranges[0]), [2, 0], 1), expected[[2, 0]], 1e-9)
    close(attr.compute(ranges[1], 1), expected[[1]], 1e-9)
    with pytest.raises(ConfigError, match="cat_ranges"):
        attr.compute(ranges, [2, 0])
    with pytest.raises(ConfigError, match="cat_ranges"):
        attr.compute(ranges[:2], [1, 1])


def headed(n_out: int = 6) -> tuple[nn.Module, Items]:
    """A network of two latents and many outputs, so that the final linear layer pays."""
    torch.manual_seed(9)
    model = models.Head(nn.Sequential(nn.Linear(3, 2), nn.Tanh()), nn.Linear(2, n_out))
    return model, Items(*models.data(model, 12))


@pytest.mark.parametrize(
    ("by_name", "forward"),
    [
        (True, None),
        (False, "latent"),
        pytest.param(True, "latent", marks=pytest.mark.slow),
        pytest.param(False, None, marks=pytest.mark.slow),
    ],
    ids=["by-name-inside", "by-module-latent", "by-name-latent", "by-module-inside"],
)
def test_IGC_07_final_layer_of_a_second_call(forward: str | None, by_name: bool) -> None:
    """The first `compute` cut the rows of its outputs out of the final layer for good: the second took wrong rows, or
    failed."""
    model, data = headed()
    _, y = arrays(data)
    expected = statistics.igc(ig(model, data, ZEROS, range(6), 4)[0], y, predicted(model, data))
    weights = copy.deepcopy(model.state_dict())
    for wishes in (([4, 1, 0], None), (None, [4, 1, 0])) if by_name else (([5, 2, 3, 0], 4), (4, [5, 2, 3, 0])):
        attr = compat.IntGradCorr(model, data, forward_method_name=forward, **DOUBLE)
        assert attr.add_final_linear_layer("layer" if by_name else model.layer) is attr
        for wish in wishes:
            rows = slice(None) if wish is None else np.atleast_1d(wish)
            found = attr.compute(None, wish, 4, **QUIET)
            close(found, expected[rows])
        close(
            attr.error(found, wish),
            np.abs(expected.sum(1) - statistics.correlations(y, predicted(model, data)))[rows],
            1e-11,
        )
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_IGC_08_final_layer_adds_its_bias_once() -> None:
    """The bias was added once per chunk of baselines, but the sums divided by their number: predictions were off by a
    part of it."""
    model, data = headed()
    assert model.layer.bias.abs().max() > 0.1
    for batch_size in (None, (1, 4, None), (4, 1, 2)):
        attr = compat.IntegratedGradients(model, data, forward_method_name="latent", **DOUBLE).add_final_linear_layer(
            "layer"
        )
        _, _, r, r_0, a = attr.compute(None, len(data), None, 16, batch_size, **QUIET)
        expected = predicted(model, data)
        close(r, expected)
        close(r_0, np.broadcast_to(expected.mean(0), r_0.shape))
        close(a.sum(2), r - r_0, 1e-3)


def test_IGC_09_every_baseline_counts() -> None:
    """With more baselines in a batch than samples in the data set, some were left out, but the sums were divided by
    all: IG too small."""
    model, data = problem(6, 2)
    (x,), _ = arrays(data)
    expected = ig(model, data, [(row,) for row in x], [0, 1], 3)[0]  # as many as rows: all of them, in whatever order
    for batch_size in (None, (6, 6, None), (4, 6, 1), 10):
        _, _, r, r_0, a = compat.IntegratedGradients(model, data, **DOUBLE).compute(
            None, 6, None, 3, batch_size, **QUIET
        )
        close(a, expected)
    linear = models.linear()
    many = Items(*models.data(linear, 60))
    _, _, r, r_0, a = compat.IntegratedGradients(linear, many, **DOUBLE).compute(
        None, 30, None, 2, (6, 30, None), **QUIET
    )
    close(a.sum(2), r - r_0)


def test_IGC_10_data_without_a_generator() -> None:
    """A data set without an attribute `rng` was refused."""
    assert not hasattr(D4, "rng")
    close(
        compat.IntGradCorr(models.linear4(), D4).compute(4, n_steps=2, **QUIET),
        [[1.11628086, -0.08586776, -0.08586776]],
        1e-6,
    )


def test_IGC_11_data_with_a_generator_and_no_seeds() -> None:
    """x_seed=None, which is the default, or x_0_seed=None failed where the data set has a generator, and with it
    `error`.

    Without a seed it is one of its own, the same each time; the user's generator is left alone.
    """
    model, data = problem(1, 1)
    torch.manual_seed(0)
    model = nn.Linear(5, 1)
    data = Drawn(20)
    before = data.rng.get_state()
    attr = compat.IntGradCorr(model, data, **DOUBLE)
    for x_0_seed in (None, 7):
        found = attr.compute(4, n_steps=2, x_0_seed=x_0_seed, **QUIET)
        close(found, attr.compute(4, n_steps=2, x_0_seed=x_0_seed, **QUIET))
    assert torch.equal(data.rng.get_state(), before)
    found = attr.compute(n_steps=2, **QUIET)  # one baseline for all: the sum is the correlation
    assert attr.error(found).max() < 1e-12
    x, y, r, _ = compat.Gradients(model, data, **DOUBLE).compute()
    close(found.sum(1), np.corrcoef(r[:, 0], y[:, 0])[0, 1])
    close(y[:, 0], x.mean(1), 1e-7)


def test_IGC_12_one_step_is_refused() -> None:
    """n_steps=1 gave NaN without a word. A trapezoid has two points."""
    model = models.product4()
    for kind in (compat.IntGradCorr, compat.IntegratedGradients, compat.IntGradAutoCorr, compat.IntGradMeanStd):
        with pytest.raises(ConfigError, match="at least 2"):
            kind(model, D4).compute(n_steps=1)
    assert model.calls == 0


def test_IGC_13_fewer_inputs_than_baselines() -> None:
    """n_x below the number of baselines of a batch made batches of 0 inputs: a division by zero."""
    model, data = problem(12, 1)
    _, _, r, r_0, a = compat.IntegratedGradients(model, data, **DOUBLE).compute(
        2, 8, None, 32, (None, 8, None), **QUIET
    )
    close(a.sum(2), r - r_0, 1e-3)
    assert compat.IntGradCorr(model, data).compute(8, n_steps=2, batch_size=(4, 8, None), n_x=3, **QUIET).shape == (
        1,
        3,
    )


def test_IGC_14_no_sample_is_dropped() -> None:
    """What was left of the inputs after whole batches was dropped: always the last, so that sorted data gave biased
    results."""
    seven = Items(torch.cat([models.D4, models.D4[:3]]), torch.cat([models.Y4, models.Y4[:3]])[:, None])
    for batch_size in (None, 1, 4, (4, 1, 1), (4, None, None)):
        found = compat.IntGradCorr(models.linear4(), seven, **DOUBLE).compute(n_steps=2, batch_size=batch_size, **QUIET)
        close(found, [[1.1738674, -0.12839175, -0.12839175]], 5e-8)
    x, y, *_, a = compat.IntegratedGradients(models.linear4(), seven, **DOUBLE).compute(
        n_steps=2, batch_size=4, **QUIET
    )
    close(x, seven.x)
    close(y, seven.y)
    close(a[:, 0], seven.x.numpy() * [2, -1, 0.5])


def test_IGC_15_a_number_of_inputs_is_checked_and_sampled() -> None:
    """More inputs than the data set has gave rows of zeros; and without a seed a number of inputs meant the first
    ones."""
    model = models.linear()
    data = Items(torch.arange(60.0).reshape(20, 3), torch.arange(40.0).reshape(20, 2))
    attr = compat.IntegratedGradients(model, data)
    for kind in (attr, compat.Gradients(model, data)):
        with pytest.raises(ConfigError, match="20"):
            kind.compute(21)
    with pytest.raises(ConfigError, match="20"):
        compat.IntGradCorr(model, data).compute(n_x=21)
    drawn = [
        (compat.Gradients(model, data).compute(8, x_seed=seed)[0][:, 0] / 3).astype(int).tolist()
        for seed in (None, *range(1, 9))
    ]
    assert all(len(set(rows)) == 8 and rows == sorted(rows) for rows in drawn)
    assert drawn[0] != list(range(8))
    assert len(set(map(tuple, drawn))) == 9
    counts = np.bincount(np.concatenate(drawn), minlength=20)
    assert counts.min() >= 1  # 3.6 each, with a deviation of 1.5
    assert counts.max() <= 8
    rows = drawn[3]
    expected = statistics.igc(
        ig(model, data, ZEROS, [0, 1], 2)[0][rows], data.y.numpy()[rows], predicted(model, data)[rows]
    )
    close(compat.IntGradCorr(model, data).compute(n_steps=2, n_x=8, x_seed=3, **QUIET), expected, 1e-5)


def test_IGC_16_post_function_that_returns_an_array() -> None:
    """A post-function that returned a bare array was taken for a tuple over samples: wrong for one sample and several
    outputs."""
    model, data = problem()
    expected = ig(model, data, ZEROS, range(3), 4)[0]
    for batch_size in (None, (1, None, None), 3):
        attr = compat.IntegratedGradients(model, data, **DOUBLE).add_ig_post_function(lambda a, x: a * x[:, None])
        close(attr.compute(None, None, None, 4, batch_size, **QUIET)[4], expected * data.x.numpy()[:, None])
    summed = compat.IntGradCorr(model, data, **DOUBLE).add_ig_post_function(lambda a, x: a[..., :2] + a[..., 1:])
    _, y = arrays(data)
    close(
        summed.compute(n_steps=4, **QUIET),
        statistics.igc(expected[..., :2] + expected[..., 1:], y, predicted(model, data)),
    )


class Tokens(nn.Module):
    """Three tokens of five kinds, in embeddings of two numbers; linear, so that attributions have a closed form."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.table, self.last = nn.Embedding(5, 2), nn.Linear(6, 2)
        self.double()

    def embed(self, ids: Tensor) -> Tensor:
        return self.table(ids)

    def forward(self, e: Tensor) -> Tensor:
        return self.last(e.flatten(1))

    def whole(self, ids: Tensor) -> Tensor:
        return self.forward(self.table(ids))

    def shares(self, ids: Tensor) -> np.ndarray:
        """``W[j, position, e] table[ids, e]``, (n, J, 3, 2)."""
        weight = self.last.weight.detach().reshape(2, 3, 2).numpy()
        return weight[None] * self.table.weight.detach().numpy()[ids.numpy()][:, None]


def tokens() -> tuple[Tokens, Items, Tensor]:
    model = Tokens()
    ids = torch.from_numpy(np.random.default_rng(3).integers(0, 5, (10, 3)))
    with torch.no_grad():
        y = model.whole(ids) + 0.3 * torch.randn(10, 2, dtype=torch.float64)
    return model, Items(ids, y), ids


def test_IGC_17_order_of_the_settings() -> None:
    """An embedding method added after a post-function left the size of the one before it: the order of `add_*`
    mattered."""
    model, data, ids = tokens()
    a = (model.shares(ids) - model.shares(torch.zeros_like(ids))).sum(3)
    expected = statistics.igc(a, data.y.numpy(), attributions.predictions(Whole(model), [ids.numpy()], [0, 1]))
    steps = [
        lambda attr: attr.add_ig_post_function(lambda a, x: a.sum(3)),
        lambda attr: attr.add_embedding_method("embed"),
        lambda attr: attr.add_final_linear_layer("last"),
    ]
    for order in ((0, 1), (1, 0), (0, 2, 1), (1, 2, 0), (2, 0, 1)):
        attr = compat.IntGradCorr(model, data, **DOUBLE)
        for step in order:
            attr = steps[step](attr)
        close(attr.compute(n_steps=2, **QUIET), expected)


class Whole(nn.Module):
    """The forward of `Tokens` from the numbers of tokens, whatever their type."""

    def __init__(self, model: Tokens) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        return self.model.whole(ids.long())


@pytest.mark.parametrize(("dtype", "n_cat"), [(torch.int16, None), (torch.int32, None), (torch.int64, 1)])
def test_IGC_18_one_categorical_input(dtype: torch.dtype, n_cat: int | None) -> None:
    """The number of categorical inputs could not be found out where there is one input: a `TypeError`."""
    model, data, ids = tokens()
    data = Items(ids.to(dtype), data.y)
    attr = compat.IntegratedGradients(model, data, **DOUBLE)
    attr.add_embedding_method("embed" if dtype != torch.int16 else "embed16", None, n_cat)
    a = attr.compute(n_steps=2, **QUIET)[4]
    close(a, model.shares(ids) - model.shares(torch.zeros_like(ids)))


Tokens.embed16 = lambda self, ids: self.table(ids.int())  # type: ignore[attr-defined] # nn.Embedding takes no int16


def test_IGC_19_the_model_is_handed_back() -> None:
    """Gradients of the parameters were computed and left there, and the model was switched to eval mode."""
    model, data = problem()
    model.train()
    frozen, *others = model.parameters()
    frozen.requires_grad_(False)
    weights = [p.detach().clone() for p in model.parameters()]
    for kind in (compat.IntGradCorr, compat.Gradients, compat.BslShapCorr, compat.NaiveCorrelation):
        with torch.no_grad():
            kind(model, data).compute(fabric={"n_folds": 1})
    assert all(p.grad is None for p in model.parameters())
    assert not frozen.requires_grad
    assert all(p.requires_grad for p in others)
    assert all(m.training for m in model.modules())
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True))


def test_IGC_20_constant_outputs_are_marked(capsys: Any) -> None:
    """A constant target or prediction gave NaN or infinity, with a warning of numpy. NaN, said so, and the others
    unharmed."""

    def beside(x: Tensor) -> Tensor:
        return torch.stack([models.linear4()(x), torch.full((len(x),), 3.7, dtype=x.dtype), x[:, 0]], 1)

    y = torch.stack([models.Y4, models.Y4, torch.full((4,), 0.1, dtype=torch.float64)], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in (compat.IntGradCorr, compat.BslShapCorr):
            found = kind(models.Function(beside), Items(models.D4, y), **DOUBLE).compute()
            close(found[0], [1.11628086, -0.08586776, -0.08586776], 5e-9)
            assert np.isnan(found[1:]).all()
            assert "NaN for outputs [1, 2]" in capsys.readouterr().out
        assert np.isnan(compat.IntGradAutoCorr(models.Function(beside), Items(models.D4, y)).compute()[1]).all()
        assert np.isnan(compat.NaiveCorrelation(models.Function(beside), Items(models.D4, y)).compute()[2]).all()


def test_IGC_21_shapley_correlation_of_several_outputs() -> None:
    """Means over samples were summed over outputs: wrong as soon as there were two. Each output has its own."""
    model, data = problem(8)
    (x,), y = arrays(data)
    starts = attributions.shared([(np.full(3, 0.3),)], len(y))
    a = attributions.baseline_shapley(model, [x], starts, range(3), orders(len(y), 1, 2, 3))[0]
    found = compat.BslShapCorr(model, data, **DOUBLE).compute(0.3, n_iter=2, **QUIET)
    close(found, statistics.igc(a, y, predicted(model, data)))
    close(found.sum(1), statistics.correlations(y, predicted(model, data)))


def test_IGC_22_batches_of_baselines() -> None:
    """x_0_batch_size=None, or one that does not divide the number of baselines, failed."""
    model, data = problem(5, 2)
    (x,), _ = arrays(data)
    starts = [(row,) for row in x[:4]]
    expected = attributions.baseline_shapley(model, [x], attributions.shared(starts, 5), [0, 1], orders(5, 4, 3, 3))[0]
    for size in (1, None, 3, np.int64(7)):
        close(compat.BaselineShapley(model, data, **DOUBLE).compute(None, x[:4], None, 3, size, **QUIET)[4], expected)


def test_IGC_23_shapley_of_categories() -> None:
    """Baselines were not embedded, so Shapley values of categorical inputs failed."""
    model, data, ids = tokens()
    zero = torch.full_like(ids, 2)
    a = model.shares(ids) - model.shares(zero)
    embedded = compat.BaselineShapley(model, data, **DOUBLE).add_embedding_method("embed")
    close(embedded.compute(None, 2.0, **QUIET)[4], a)
    hot = compat.BaselineShapley(model, data, None, "whole", n_embedding_categories=5, **DOUBLE)
    code = np.eye(5)
    each = (model.shares(ids).sum(3)[..., None] * code[ids.numpy()][:, None]) - model.shares(zero).sum(3)[
        ..., None
    ] * code[2]
    each *= (ids != 2).numpy()[:, None, :, None]  # what does not move has nothing
    close(hot.compute(None, 2.0, **QUIET)[4], each)
    r = attributions.predictions(Whole(model), [ids.numpy()], [0, 1])
    attr = compat.BslShapCorr(model, data, None, "whole", n_embedding_categories=(5,), **DOUBLE)
    close(attr.compute(2.0, **QUIET), statistics.igc(each, data.y.numpy(), r))


def test_IGC_24_permutations_of_each_sample() -> None:
    """All samples and outputs had the same permutations, so their error did not average out; baselines differed between
    outputs.

    Of x1 x2 with a baseline of 0, one permutation gives all to the component that is switched last: 1 or 0. Over equal
    samples both happen, about half of the time. Outputs of one sample share permutations and baselines.
    """
    model = models.Function(lambda x: torch.stack([x[:, 0] * x[:, 1]] * 2, 1))
    data = Items(torch.ones(40, 2, dtype=torch.float64), torch.randn(40, 2))
    a = compat.BaselineShapley(model, data).compute(n_iter=1, **QUIET)[4]
    assert set(a[:, 0, 0].tolist()) == {0.0, 1.0}
    assert 8 < a[:, 0, 0].sum() < 32  # 20, with a deviation of 3.2
    net, rows = problem(10, 1)
    twice = models.Function(lambda x: torch.cat([net(x), net(x)], 1))
    *_, r_0, a = compat.BaselineShapley(twice, Items(rows.x, rows.y.expand(10, 2))).compute(None, 3, n_iter=2, **QUIET)
    close(a[:, 0], a[:, 1], 0)
    close(r_0[:, 0], r_0[:, 1], 0)


@pytest.mark.parametrize(
    ("stored", "weights", "dtype"),
    [
        (torch.float64, torch.float32, torch.float32),
        (torch.float32, torch.float64, torch.float32),
        (torch.float64, torch.float32, torch.float64),
        (torch.float16, torch.float32, torch.float32),
    ],
)
def test_IGC_25_any_floating_type_of_the_data(stored: torch.dtype, weights: torch.dtype, dtype: torch.dtype) -> None:
    """Samples were handed to the model as they are: double data met a float model, and failed. They are converted."""
    model, data = problem(8, 2)
    x = data.x.to(stored)
    exact = Items(x.double(), data.y)
    expected = statistics.igc(ig(model, exact, ZEROS, [0, 1], 4)[0], data.y.numpy(), predicted(model, exact))
    found = compat.IntGradCorr(
        copy.deepcopy(model).to(weights), Items(x, data.y.to(stored).double()), dtype=dtype
    ).compute(n_steps=4, **QUIET)
    assert found.dtype == {torch.float32: np.float32, torch.float64: np.float64}[dtype]
    close(found, expected, 2e-3 if stored == torch.float16 else 1e-6)  # float16 targets are rounded to 5e-4


def test_IGC_26_half_precision_walks_in_float32() -> None:
    """dtype=float16 rounded the nodes, the path and x - x_0 to half precision. Only the forward is run in it, and 1e5
    is no infinity."""
    seen, half = set(), set()

    def spied(x: Tensor) -> Tensor:
        seen.add(x.dtype)
        half.add((x * 1e-5 @ torch.ones(3, 1)).dtype)
        return (x * x.new_tensor([2.0, -1, 0.5])).sum(1, keepdim=True)

    data = Items(models.D4.float() * 1e5, models.Y4[:, None])
    *_, a = compat.IntegratedGradients(models.Function(spied), data, dtype=torch.float16).compute(
        n_steps=8, **{**QUIET, "fabric": {**QUIET["fabric"], "precision_audit": 0}}
    )
    assert (seen, half) == ({torch.float32}, {torch.float16})
    assert a.dtype == np.float32
    close(a[:, 0] / 1e5, models.D4.numpy() * [2, -1, 0.5], 1e-5)


def test_IGC_27_workers_and_reads() -> None:
    """The loader of baselines was started anew for each batch; workers held copies of one generator, and drew the same
    items.

    Sampled data is the same with any number of workers, all of it different; a sample is read a few times, whatever the
    batches.
    """
    torch.manual_seed(0)
    model, data = nn.Linear(5, 1), Drawn(12)
    one, two = (compat.Gradients(model, data, {"num_workers": n}).compute(x_seed=3)[0] for n in (0, 2))
    close(one, two, 0)
    assert len(np.unique(one, axis=0)) == 12
    net, rows = problem(40, 1)
    for batch_size in (1, 7, None):
        rows.reads.clear()
        compat.IntGradCorr(net, rows).compute(n_steps=2, batch_size=batch_size, **QUIET)
        assert max(rows.reads.values()) <= 8, "two passes, and a look at the first rows"


def test_IGC_28_nothing_is_read_in_vain() -> None:
    """A batch too many was loaded and thrown away. Beside the first look each sample is read once to predict and once
    to attribute."""
    net, rows = problem(23, 1)
    compat.IntGradCorr(net, rows).compute(n_steps=2, batch_size=(4, 1, 1), **QUIET)
    middle = [rows.reads[i] for i in range(23) if i not in (0, 1, 2, 3, 11, 22)]
    assert middle == [2] * 17


def test_IGC_29_numpy_integers_and_negative_outputs() -> None:
    """Numbers were looked for by `isinstance(int)`: numpy's were taken for arrays, and negative outputs read past the
    end."""
    model, data = problem()
    attr = compat.IntGradCorr(model, data, **DOUBLE)
    whole = attr.compute(n_steps=4, **QUIET)
    for wish, rows in (
        (np.int64(1), [1]),
        (-1, [2]),
        (np.array([-3, 1]), [0, 1]),
        (np.uint8(2), [2]),
        (torch.tensor([1, 0]), [1, 0]),
    ):
        close(attr.compute(None, wish, n_steps=np.int32(4), **QUIET), whole[rows])
    close(attr.compute(np.int64(12), None, 4, n_x=np.int32(12), **QUIET), attr.compute(12, None, 4, n_x=12, **QUIET), 0)
    for wish in (3, -4, [0, 3], 1.0, True, [], "1", [[0, 1]]):
        with pytest.raises(ConfigError, match="y_idx"):
            attr.compute(None, wish)
