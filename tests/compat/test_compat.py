"""`igc_dist.compat`: signatures and shapes as the IGC package documents them; batches, seeds, stores and ranks that
change nothing."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from igc_dist import compat
from igc_dist.compat import base
from igc_dist.records import ConfigError, StoreError
from tests import models
from tests.compat.cases import Drawn, Items, arrays, close, ig, predicted, problem
from tests.oracles import attributions, statistics
from tests.ranks import run_ranks, values

DOUBLE: dict[str, Any] = {"dtype": torch.float64}
FAST: dict[str, Any] = {"fabric": {"n_folds": 1}}

FOLDED = ("IntGradCorr", "IntGradAutoCorr", "IntGradMeanStd")
BASELINES = ("IntegratedGradients", *FOLDED, "BaselineShapley", "BslShapCorr")
CLASSES = (*BASELINES, "Gradients", "NaiveCorrelation", "NaiveTTest")


def computed(name: str, attr: Any, **settings: Any) -> Any:
    """`compute` of any class, quickly."""
    settings = {**FAST, **settings}
    if name == "NaiveTTest":
        settings["cat_ranges"] = (0.0, 0.1)
    if name in BASELINES:
        settings = {"check_error": False, **settings}
    if name in ("IntegratedGradients", *FOLDED):
        settings = {"n_steps": 3, **settings}
    return attr.compute(**settings)


def flat(found: Any) -> list[np.ndarray]:
    """All arrays of a result."""
    return [array for part in found for array in flat(part)] if isinstance(found, tuple) else [found]


def test_signatures() -> None:
    """Names, order and defaults of the package; extras are keyword-only."""

    def of(function: Any) -> tuple[str, str]:
        parameters = list(inspect.signature(function).parameters.values())[1:]
        plain = ", ".join(
            p.name if p.default is p.empty else f"{p.name}={p.default}"
            for p in parameters
            if p.kind is not p.KEYWORD_ONLY
        )
        return plain, ", ".join(f"{p.name}={p.default}" for p in parameters if p.kind is p.KEYWORD_ONLY)

    start = (
        "module, dataset, dtld_kwargs=None, forward_method_name=None, forward_method_kwargs=None, "
        "n_embedding_categories=None, "
    )
    walk = "x_0=None, y_idx=None, n_steps=64, batch_size=None, x_seed=None, x_0_seed=100"
    shapley = "x_0=None, y_idx=None, n_iter=8, x_0_batch_size=1, x_seed=None, x_0_seed=100"
    computes = {
        "Gradients": "x=None, y_idx=None, batch_size=None, x_seed=None",
        "IntegratedGradients": f"x=None, {walk}, check_error=True",
        **dict.fromkeys(FOLDED, f"{walk}, n_x=None, check_error=True"),
        "NaiveCorrelation": "y_idx=None, batch_size=None, x_seed=None, n_x=None",
        "NaiveTTest": "cat_ranges, y_idx=None, batch_size=None, x_seed=None, n_x=None",
        "BaselineShapley": f"x=None, {shapley}, check_error=True",
        "BslShapCorr": f"{shapley}, n_x=None, check_error=True",
    }
    assert set(computes) == set(CLASSES) == set(compat.__all__)
    for name, expected in computes.items():
        kind = getattr(compat, name)
        assert of(kind.__init__) == (f"{start}dtype=torch.float32, dtype_cat=torch.int32", "")
        assert of(kind.compute) == (expected, "store=None, fabric=None")
        assert of(kind.add_final_linear_layer) == ("final_linear_layer", "")
        assert of(kind.add_embedding_method) == (
            "embedding_method_name, embedding_method_kwargs=None, embedding_n_cat=None",
            "",
        )
        assert of(kind.add_ig_post_function) == ("ig_post_func, ig_post_func_kwargs=None", "")
    for name, first in (("IntGradCorr", "igc"), ("BslShapCorr", "bsc")):
        assert of(getattr(compat, name).error) == (f"{first}, y_idx=None, batch_size=None, x_seed=None, n_x=None", "")
    assert of(compat.IntGradAutoCorr.error) == ("igac", "")
    assert issubclass(compat.IntGradCorr, compat.IntegratedGradients)
    assert issubclass(compat.BslShapCorr, compat.BaselineShapley)


@pytest.mark.parametrize("name", CLASSES)
def test_constructors_of_both_generations(name: str) -> None:
    """Version 1.1 has the types sixth and seventh, the next one after the categories; by keyword they are the same."""
    model, data = problem(4)
    kind, three = getattr(compat, name), (None, None, None)
    for attr in (
        kind(model, data, *three, torch.float64, torch.int64),
        kind(model, data, *three, None, torch.float64, torch.int64),
        kind(model, data, *three, torch.float64, dtype_cat=torch.int64),
        kind(model, data, dtype=torch.float64, dtype_cat=torch.int64),
    ):
        assert (attr.dtype, attr.dtype_cat) == (torch.float64, torch.int64)
    attr = kind(model, data, *three, torch.float64)
    assert (attr.dtype, attr.dtype_cat) == (torch.float64, torch.int32)
    for wrong in ((torch.float64, torch.float64), (torch.int32,), (torch.int64, torch.int64)):
        with pytest.raises(ConfigError, match="dtype"):
            kind(model, data, *three, *wrong)


def test_sizes_of_the_data() -> None:
    """A shape for each input, the number of targets, and whether there are several inputs, as attributes."""
    attr = compat.IntGradCorr(*problem(4))
    assert (attr.x_size, attr.y_size, attr.multi_x) == (((3,),), 3, False)
    attr = compat.IntGradCorr(PAIR, TWO)
    assert (attr.x_size, attr.y_size, attr.multi_x) == (((3,), (2, 2)), 2, True)


PAIR = models.TwoInputs()
TWO = Items(*models.data(PAIR, 8, ((3,), (2, 2))))


@pytest.mark.parametrize("name", CLASSES)
def test_shapes_types_and_order(name: str) -> None:
    """One input gives arrays, several a tuple of arrays, in the order of the docs; numpy, in the wished type."""
    model, data = problem(8)
    for net, rows, shapes, dtype in ((model, data, [(3,)], torch.float64), (PAIR, TWO, [(3,), (2, 2)], torch.float32)):
        n_out = rows.y.shape[1]
        found = computed(name, getattr(compat, name)(net, rows, dtype=dtype), y_idx=[1, 0])
        parts = found if name in ("Gradients", "IntegratedGradients", "BaselineShapley", "IntGradMeanStd") else (found,)
        lead = (8, 2) if name in ("Gradients", "IntegratedGradients", "BaselineShapley") else (2,)
        for maps in parts[-2:] if name == "IntGradMeanStd" else parts[-1:]:
            assert isinstance(maps, tuple) == (len(shapes) > 1)
            assert [one.shape for one in flat(maps)] == [(*lead, *shape) for shape in shapes]
        assert {one.dtype for one in flat(found)} == {np.dtype(str(dtype).split(".")[1])}
        if len(lead) == 2:
            x, y, r, *rest = parts[:-1]
            tolerance = 1e-12 if dtype == torch.float64 else 1e-6
            for one, other in zip(flat(x), arrays(rows)[0], strict=True):
                close(one, other, tolerance)
            close(y, rows.y[:, [1, 0]], tolerance)
            close(r, predicted(net, rows)[:, [1, 0]], tolerance)
            assert len(rest) == (name != "Gradients")
            if rest:  # of zeros
                zero = attributions.predictions(net, [np.zeros((1, *shape)) for shape in shapes], range(n_out))
                close(rest[0], np.repeat(zero[:, [1, 0]], 8, 0), tolerance)


def test_two_inputs_against_loops() -> None:
    """Several inputs: IG, IGC and gradients of each equal those of the loops; baselines in a tuple, a row or several
    for each."""
    x, y = arrays(TWO)
    starts = [(x[0][k], x[1][k]) for k in (1, 2)]
    given = (x[0][1:3], x[1][1:3])
    a = ig(PAIR, TWO, starts, [0, 1], 3)
    attr = compat.IntGradCorr(PAIR, TWO, **DOUBLE)
    for found, one in zip(computed("IntGradCorr", attr, x_0=given), a, strict=True):
        close(found, statistics.igc(one, y, predicted(PAIR, TWO)))
    for found, one in zip(
        computed("IntGradCorr", attr, x_0=(x[0][1], x[1][1])), ig(PAIR, TWO, starts[:1], [0, 1], 3), strict=True
    ):
        close(found, statistics.igc(one, y, predicted(PAIR, TWO)))
    for found, one in zip(
        computed("Gradients", compat.Gradients(PAIR, TWO, **DOUBLE))[3],
        attributions.gradients(PAIR, x, [0, 1]),
        strict=True,
    ):
        close(found, one)
    with pytest.raises(ConfigError, match="x_0 has 1 arrays for 2 inputs"):
        attr.compute((x[0],))


SIZES = (None, 1, 7, 64, (2, 3, 2), (4, 8, None))


QUICK = ("IntGradCorr", "BaselineShapley", "NaiveTTest")
"""Classes that go through all that the others do."""


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CLASSES]
)
def test_batches_change_nothing(name: str) -> None:
    """batch_size is for speed: beyond rounding nothing depends on it, and no sample is left out."""
    model, data = problem(7, 2)
    settings = {"x_0": 3} if name in BASELINES else {}
    key, sizes = ("x_0_batch_size", (1, None, 2)) if "Shap" in name else ("batch_size", SIZES)
    first, *others = (
        [*flat(computed(name, getattr(compat, name)(model, data, **DOUBLE), **settings, **{key: size}))]
        for size in sizes
    )
    for other in others:
        for one, two in zip(first, other, strict=True):
            close(two, one)
    if name in ("Gradients", "IntegratedGradients", "BaselineShapley"):
        close(first[0], data.x, 0)
    with pytest.raises(ConfigError, match="batch_size"):
        computed(name, getattr(compat, name)(model, data), **{key: 0})


@pytest.mark.parametrize(
    "name", ["IntGradCorr", "BslShapCorr", *(pytest.param(n, marks=pytest.mark.slow) for n in FOLDED[1:])]
)
def test_outputs_of_a_second_call(name: str) -> None:
    """Two calls with other outputs on one object, in both orders, equal those of fresh objects; an output may be wished
    twice."""
    model, data = problem(7)
    kind = getattr(compat, name)
    whole = flat(computed(name, kind(model, data, **DOUBLE)))
    for wishes in (([2, 0], -1), (-1, [2, 0]), ([1, 1, 0], None)):
        attr = kind(model, data, **DOUBLE)
        for wish in wishes:
            rows = slice(None) if wish is None else np.atleast_1d(wish)
            for one, two in zip(flat(computed(name, attr, y_idx=wish)), whole, strict=True):
                close(one, two[rows])


def test_given_inputs() -> None:
    """`x` may be arrays: one row without a batch axis, or several; their targets are NaN. A number of rows samples
    them."""
    model, data = problem(6, 2)
    attr = compat.IntegratedGradients(model, data, **DOUBLE)
    expected = ig(model, data, [(np.full(3, 0.5),)], [0, 1], 3)[0]
    for x, rows in ((data.x[2], [2]), (data.x[1:4].numpy(), [1, 2, 3]), (data.x[:2].tolist(), [0, 1])):
        found = computed("IntegratedGradients", attr, x=x, x_0=0.5)
        close(found[0], data.x[rows])
        assert np.isnan(found[1]).all()
        close(found[2], predicted(model, data)[rows])
        close(found[4], expected[rows])
    sampled = computed("IntegratedGradients", attr, x=2, x_0=0.5, x_seed=4)
    rows = [int(np.flatnonzero((data.x.numpy() == row).all(1))[0]) for row in sampled[0]]
    close(sampled[1], data.y[rows])
    close(sampled[4], expected[rows])
    for x, match in ((np.zeros((2, 4)), r"\(2, 4\)"), (np.zeros((0, 3)), r"\(0, 3\)"), (True, "n_x"), (0, "n_x")):
        with pytest.raises(ConfigError, match=match):
            attr.compute(x)
    with pytest.raises(ConfigError, match="n_x"):
        compat.NaiveCorrelation(model, data).compute(n_x=data.x)
    labels = Items(data.x, torch.tensor([0, 1, 1, 0, 1, 1]))  # integer targets are labels of the outputs
    x, y, *_ = computed("Gradients", compat.Gradients(model, labels), y_idx=1)
    close(y, labels.y[:, None])
    assert computed("Gradients", compat.Gradients(model, labels), x=data.x[:2], y_idx=1)[3].shape == (2, 1, 3)
    with pytest.raises(ConfigError, match="label"):
        compat.Gradients(model, labels).compute(y_idx=-1)


def test_baselines() -> None:
    """x_0: an int samples the whole data set, also for a part of the inputs; an array of one row or of several is for
    all inputs."""
    model, data = problem(6, 2)
    attr = compat.IntegratedGradients(model, data, **DOUBLE)
    x = data.x.numpy()
    every = ig(model, data, [(row,) for row in x], [0, 1], 3)[0]
    rows = computed("IntegratedGradients", attr, x=2, x_0=6)
    at = [int(np.flatnonzero((x == row).all(1))[0]) for row in rows[0]]
    close(rows[4], every[at])  # all six, though two inputs are attributed
    for x_0 in (6, np.int64(6), x, torch.from_numpy(x)):
        close(computed("IntegratedGradients", attr, x_0=x_0)[4], every)
    for x_0 in (x[1], x[1:2], x[1].tolist()):
        close(computed("IntegratedGradients", attr, x_0=x_0)[4], ig(model, data, [(x[1],)], [0, 1], 3)[0])
    few, again, other = (computed("IntegratedGradients", attr, x_0=2, x_0_seed=seed)[3] for seed in (1, 1, 2))
    close(few, again, 0)
    assert np.abs(few - other).max() > 0.01
    assert len(np.unique(few[:, 0])) > 1  # each input has its own
    for x_0, match in (
        (7, "7 rows cannot be drawn from 6"),
        (0, "at least 1"),
        (True, "True"),
        (np.zeros((2, 4)), r"\(2, 4\)"),
        ("a", "'a'"),
    ):
        with pytest.raises(ConfigError, match=match):
            attr.compute(x_0=x_0)


def doubled(a: np.ndarray, scale: float = 2.0) -> np.ndarray:
    return scale * a


def test_post_functions() -> None:
    """The older signature takes all attributions and inputs; the newer one takes one, or is a tuple with one for each,
    None for none."""
    a = ig(PAIR, TWO, [(np.zeros(3), np.zeros((2, 2)))], [0, 1], 3)
    x, _ = arrays(TWO)

    def joint(a1: np.ndarray, a2: np.ndarray, x1: np.ndarray, x2: np.ndarray, power: int = 1) -> Any:
        assert len(a1) == len(x1) == len(x2)
        return a1 * x1[:, None] ** power, a2.sum(3)

    def starred(*arrays: np.ndarray, power: int) -> Any:
        return joint(*arrays, power=power)

    def second(a: np.ndarray, *, scale: float) -> np.ndarray:
        return scale * a

    cases: list[tuple[Any, Any, Any]] = [
        (joint, {"power": 2}, (a[0] * x[0][:, None] ** 2, a[1].sum(3))),
        (starred, {"power": 1}, (a[0] * x[0][:, None], a[1].sum(3))),
        ((None, lambda one: one.sum((2, 3))), None, (a[0], a[1].sum((2, 3)))),
        (doubled, None, (2 * a[0], 2 * a[1])),
        (second, {"scale": 3.0}, (3 * a[0], 3 * a[1])),
        (np.abs, None, (np.abs(a[0]), np.abs(a[1]))),
    ]
    for function, kwargs, expected in cases:
        attr = compat.IntegratedGradients(PAIR, TWO, **DOUBLE)
        assert attr.add_ig_post_function(function, kwargs) is attr
        for found, wish in zip(computed("IntegratedGradients", attr)[4], expected, strict=True):
            close(found, wish)


class Mixed(nn.Module):
    """A float input (2,) and two categorical ones, of 4 and 3 categories; linear in the embeddings."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.one, self.two, self.last = nn.Embedding(4, 2), nn.Embedding(3, 2), nn.Linear(6, 2)
        self.double()

    def embed(self, a: Tensor, b: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        return scale * self.one(a), scale * self.two(b)

    def forward(self, x: Tensor, e: Tensor, f: Tensor) -> Tensor:
        return self.last(torch.cat((x, e.flatten(1), f.flatten(1)), 1))

    def whole(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return self.forward(x, self.one(a), self.two(b))


def mixed() -> tuple[Mixed, Items]:
    rng, model = np.random.default_rng(5), Mixed()
    x = torch.from_numpy(rng.standard_normal((9, 2)))
    a, b = (torch.from_numpy(rng.integers(0, c, (9, 1))) for c in (4, 3))
    return model, Items((x, a, b), torch.from_numpy(rng.standard_normal((9, 2))))


def test_embedded_inputs() -> None:
    """An embedding method: attributions have the shape of the embeddings, also for sampled and given baselines and
    given inputs."""
    model, data = mixed()
    x, a, b = data.x
    weight = model.last.weight.detach().numpy()
    tables = model.one.weight.detach().numpy(), model.two.weight.detach().numpy()
    zero = [0.0, tables[0][0], tables[1][0]]
    moved = [
        x.numpy() - zero[0],
        2 * (tables[0][a.numpy()[:, 0]] - zero[1]),
        2 * (tables[1][b.numpy()[:, 0]] - zero[2]),
    ]
    expected = [m[:, None] * weight[None, :, 2 * i : 2 * i + 2] for i, m in enumerate(moved)]
    for n_cat in (None, 2):
        attr = compat.IntegratedGradients(model, data, **DOUBLE).add_embedding_method("embed", {"scale": 2.0}, n_cat)
        *_, r, r_0, found = computed("IntegratedGradients", attr)
        assert [one.shape for one in found] == [(9, 2, 2), (9, 2, 1, 2), (9, 2, 1, 2)]
        for one, wish in zip(found, expected, strict=True):
            close(one.reshape(wish.shape), wish)
        close(sum(one.reshape(9, 2, -1).sum(2) for one in found), r - r_0)
    given = computed("IntegratedGradients", attr, x=(x[3], a[3], b[3].numpy()), x_0=(np.zeros(2), [0], [0]))
    close(given[4][1][0, :, 0], expected[1][3])
    assert given[0][1].dtype == np.int32
    with pytest.raises(ConfigError, match="numbers"):
        attr.compute(x_0=(np.zeros(2), [0.5], [0]))
    assert computed("BslShapCorr", compat.BslShapCorr(model, data).add_embedding_method("embed"), x_0=2)[2].shape == (
        2,
        1,
        2,
    )


@pytest.mark.parametrize("categories", [4, (4, 3)])
def test_categories(categories: Any) -> None:
    """Numbers of categories: attributions get an axis of them; one number is for all categorical inputs."""
    model, data = mixed()
    if categories == 4:
        model.two = nn.Embedding(4, 2).double()
    x, a, b = data.x
    attr = compat.IntegratedGradients(model, data, None, "whole", None, categories, **DOUBLE)
    *_, r, r_0, found = computed("IntegratedGradients", attr, x_0=1.0)
    weight = model.last.weight.detach().numpy()
    for i, (ids, table) in enumerate(((a, model.one), (b, model.two)), 1):
        value = table.weight.detach().numpy() @ weight[:, 2 * i : 2 * i + 2].T  # (C, J)
        code = np.eye(len(value))[ids.numpy()[:, 0]] - np.eye(len(value))[1]
        close(found[i][:, :, 0], code[:, None] * value.T[None])
    close(found[0], (x.numpy() - 1)[:, None] * weight[None, :, :2])
    assert found[2].shape == (9, 2, 1, 4 if categories == 4 else 3)
    close(sum(one.reshape(9, 2, -1).sum(2) for one in found), r - r_0)


def test_naive_methods_of_categories() -> None:
    """Correlations and t-tests of what the embedding gives, or of the one-hot code."""
    model, data = mixed()
    _, a, b = data.x
    y = data.y.numpy()
    embedded = [np.asarray(one.detach()) for one in model.embed(a, b)]
    code = np.eye(4)[a.numpy()]
    for name, fold in (
        ("NaiveCorrelation", lambda v: statistics.pearson(np.repeat(v[:, None], 2, 1), y)),
        ("NaiveTTest", lambda v: statistics.t_test(np.repeat(v[:, None], 2, 1), y <= 0.0, y >= 0.1)[1]),
    ):
        found = computed(name, getattr(compat, name)(model, data, **DOUBLE).add_embedding_method("embed"))
        for one, values_of in zip(found[1:], embedded, strict=True):
            close(one, fold(values_of), 1e-9)
        hot = computed(name, getattr(compat, name)(model, data, None, "whole", None, (4, 3), **DOUBLE))
        close(hot[1], fold(code), 1e-9)


def test_missing_targets() -> None:
    """NaN in y leaves a sample out for that output only."""
    model, data = problem(9, 2)
    y = data.y.clone()
    y[3, 1] = torch.nan
    keep = [i for i in range(9) if i != 3]
    found = computed("IntGradCorr", compat.IntGradCorr(model, Items(data.x, y), **DOUBLE))
    a, r = ig(model, data, [(np.zeros(3),)], [0, 1], 3)[0], predicted(model, data)
    close(found[0], statistics.igc(a, data.y.numpy(), r)[0])
    close(found[1], statistics.igc(a[keep], data.y.numpy()[keep], r[keep])[1])


def test_autocorrelation_and_half_precision() -> None:
    """IGaC of sampled baselines; float16 runs the forward in half precision, and gives float32 within its rounding."""
    model, data = problem(9, 2)
    found = computed("IntGradAutoCorr", compat.IntGradAutoCorr(model, data, **DOUBLE))
    expected = statistics.igac(ig(model, data, [(np.zeros(3),)], [0, 1], 3)[0], predicted(model, data))
    close(found, expected)
    half = computed("IntGradAutoCorr", compat.IntGradAutoCorr(model.float(), data, dtype=torch.float16))
    assert half.dtype == np.float32
    assert 1e-6 < np.abs(half - expected).max() < 1e-2


def test_stores(tmp_path: Path) -> None:
    """With `store` the results are kept: a second call returns at once, one with other settings is refused."""
    model, where = models.product4(), {"store": tmp_path / "a.zarr"}
    attr = compat.IntGradCorr(model, Items(torch.randn(40, 3), torch.randn(40, 1)))
    first = computed("IntGradCorr", attr, n_steps=20, **where)
    rows = model.rows
    close(computed("IntGradCorr", attr, n_steps=20, **where), first, 0)
    assert rows > 40 * 21
    assert model.rows - rows < 40  # the first look
    with pytest.raises(StoreError):
        computed("IntGradCorr", attr, n_steps=5, **where)


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("RANK", {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}),
        (
            "SLURM_PROCID",
            {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_LOCALID": "0"},
        ),
    ],
)
def test_errors_are_printed_once(name: str, others: dict[str, str], monkeypatch: Any, capsys: Any) -> None:
    """By the first of the ranks, and by a process that is alone."""
    for rank in (None, "0", "1"):
        if rank is not None:
            for variable, value in {**others, name: rank}.items():
                monkeypatch.setenv(variable, value)
        base.say("ig err")
        assert capsys.readouterr().out == ("" if rank == "1" else "ig err\n")


def test_loader_settings() -> None:
    """A collate function is used, for baselines too; what would change the samples is refused."""
    model, data = problem(5, 2)

    def collate(items: list[Any]) -> Any:
        return torch.stack([x for x, _ in items]) * 2, torch.stack([y for _, y in items])

    attr = compat.IntegratedGradients(model, data, {"collate_fn": collate, "pin_memory": False}, **DOUBLE)
    both = Items(2 * data.x, data.y)
    close(
        computed("IntegratedGradients", attr, x_0=5)[4],
        ig(model, both, [(row,) for row in both.x.numpy()], [0, 1], 3)[0],
    )
    for name in ("shuffle", "batch_size", "numworkers"):
        with pytest.raises(ConfigError, match=name):
            compat.Gradients(model, data, {name: 1})
    for settings in ({"dtype": torch.bfloat16}, {"dtype_cat": torch.uint8}):
        with pytest.raises(ConfigError, match="dtype"):
            compat.Gradients(model, data, **settings)


def drawn() -> bytes:
    attr = compat.IntGradCorr(nn.Linear(5, 1), Drawn(9))
    nn.init.constant_(attr.module.weight, 0.3)
    nn.init.constant_(attr.module.bias, 0.1)
    return attr.compute(3, n_steps=4, check_error=False, fabric={"threads": 1, "timeout": 60.0}).tobytes()


@pytest.mark.slow
@pytest.mark.dist
def test_two_ranks_give_the_same_bits() -> None:
    """Sampled baselines, of data that is drawn from a generator, do not depend on the number of ranks."""
    assert values(run_ranks(2, drawn)) == [drawn()] * 2
