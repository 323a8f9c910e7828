"""Laws of the design that pairs samples, and of asking for some of the outputs: right on average, whatever is cut or
missing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import igc_dist
from igc_dist.attributors import GradientXInput, PathIntegral
from igc_dist.baselines import Partners, Resampled
from igc_dist.features import Patches, Total
from igc_dist.model import Model
from igc_dist.passes import Draws, Lines, fold
from igc_dist.passes.draws import asked
from igc_dist.paths import Auto, Drawn, Pairs, Straight, ensure_design
from igc_dist.paths.designs import _systematic
from igc_dist.records import ConfigError, DataError, NonFiniteError
from igc_dist.statistics import SCALAR_TERMS
from tests import models, problems
from tests.models import Function

both = pytest.mark.parametrize("design", ["pairs", "importance_pairs"])
QUADRATIC = torch.tensor(
    [[[1.0, 0.5, 0.0], [0.5, -1.0, 0.3], [0.0, 0.3, 0.8]], [[0.2, -0.4, 0.1], [-0.4, 0.6, 0.0], [0.1, 0.0, -0.5]]]
).double()
LINEAR = torch.tensor([[1.0, -0.5, 0.3], [0.2, 0.7, -0.6]]).double()


def quadratic() -> nn.Module:
    """``f_j(x) = x' A_j x / 2 + b_j x``, whose gradient at the middle of a path is the mean of that along it."""
    return Function(lambda x: torch.einsum("ni,jik,nk->nj", x, QUADRATIC, x) / 2 + x @ LINEAR.T)


def samples(n: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, 3, generator=generator).double()
    with torch.no_grad():
        y = quadratic()(x)
    return x, y + torch.randn(n, 2, generator=generator).double()


def of_all_pairs(x: np.ndarray, y: np.ndarray, weight: np.ndarray, against: str = "y") -> np.ndarray:
    """``1/2 sum_nm w_n w_m (y_n - y_m) (x_n - x_m) grad f((x_n + x_m) / 2) / W^2 / (std y std r)``, a pair at a
    time."""
    a, b = QUADRATIC.numpy(), LINEAR.numpy()
    r = np.einsum("ni,jik,nk->nj", x, a, x) / 2 + x @ b.T
    found = np.zeros((2, 3))
    for j in range(2):
        w = weight[:, j] / weight[:, j].sum()
        v = np.nan_to_num(y[:, j]) if against == "y" else r[:, j]
        for n in range(len(x)):
            for m in range(len(x)):
                found[j] += 0.5 * w[n] * w[m] * (v[n] - v[m]) * (x[n] - x[m]) * (a[j] @ (x[n] + x[m]) / 2 + b[j])
        deviation = [np.sqrt(w @ (u - w @ u) ** 2) for u in (v, r[:, j])]
        found[j] /= deviation[0] * deviation[1]
    return found


def tiled(values: Any, times: int = 60) -> Any:
    return values.repeat(times, *(1,) * (values.ndim - 1))


@pytest.mark.parametrize("importance", [False, True])
@pytest.mark.parametrize(
    ("n", "s"),
    [(2, 3), (6, 1), pytest.param(7, 3, marks=pytest.mark.slow), pytest.param(6, 8, marks=pytest.mark.slow), (9, 20)],
)
def test_draws_are_unbiased(importance: bool, n: int, s: int) -> None:
    """Every pair counts as often as any other, on average over 1,200 draws: groups odd and even, partners fewer and
    more than there are."""
    rng = np.random.default_rng(n + s)
    weights = rng.integers(0, 3, (n, 2)).astype(float) if importance else rng.standard_normal((n, 2))
    weights[0] += 1.5
    h = np.abs(weights[:, None] - weights[None]).sum(2) * (lambda u: u + u.T)(rng.standard_normal((n, n)))
    totals = np.zeros(1200)
    for k in range(len(totals)):
        drawn = Pairs(s, importance).draw(np.random.default_rng([k, n, s]), weights)
        totals[k] = (drawn.factor * h[drawn.end, drawn.start] * 2 * drawn.node).sum()
        assert len(drawn.end) == n * s
    assert totals.std() > 0
    assert abs(totals.mean() - h.sum() / (n - 1)) < 4.5 * totals.std() / np.sqrt(len(totals))


def test_pairs_are_spread() -> None:
    """Without importance each sample is as often an end as a start, no pair is drawn twice while there are others,
    nodes are stratified."""
    drawn = Pairs(5).draw(np.random.default_rng(0), np.zeros((13, 1)))
    for rows in (drawn.end, drawn.start):
        assert np.bincount(rows).tolist() == [5] * 13
    assert len({tuple(sorted(pair)) for pair in zip(drawn.end.tolist(), drawn.start.tolist(), strict=True)}) == 65
    np.testing.assert_array_equal(
        np.sort((drawn.node.reshape(13, 5) * 5).astype(int), axis=1), np.tile(np.arange(5), (13, 1))
    )


def test_importance_draws_what_differs() -> None:
    """Of one rare label among 20: every pair has it at one end. Equal weights: nothing is drawn."""
    weights = np.zeros((20, 1))
    weights[7] = 1
    drawn = Pairs(3, importance=True).draw(np.random.default_rng(0), weights)
    assert ((drawn.end == 7) ^ (drawn.start == 7)).all()
    nothing: Drawn = Pairs(3, importance=True).draw(np.random.default_rng(0), weights * 0)
    assert len(nothing.end) == len(nothing.factor) == 0
    assert ensure_design("importance_pairs", Auto(), 1) == Pairs(4, importance=True)
    assert ensure_design("pairs", Auto(), 1, 2) == Pairs(2)


def test_nothing_of_probability_0_is_drawn() -> None:
    """At the very ends, between, and where the sum of the probabilities is less than 1."""
    assert _systematic(np.array([0.0, 0.5, 0.5, 0.9, 0.9]), np.array([0.0, 0.5, 0.95])).tolist() == [1, 3, 3]


@both
@pytest.mark.parametrize("case", ["plain", "weights", "missing", "skipped"])
def test_igc_is_that_of_all_pairs(design: str, case: str) -> None:
    """Of 24 samples, each 60 times over: within 4.5 standard errors of the sum over all pairs, and these are small."""
    x, y = samples()
    weight = np.ones((24, 2))
    settings: dict[str, Any] = {}
    if case == "weights":
        weight *= np.linspace(0.2, 2, 24)[:, None]
        settings["weights"] = np.tile(weight[:, 0], 60)
    if case == "missing":
        y[::5, 0] = torch.nan
        weight[::5, 0] = 0
    data = tiled(x), tiled(y)
    if case == "skipped":
        data[0][24 * 7] = torch.nan  # one sample of 1,440: its absence is 1/1440 of the result
        settings["on_nonfinite"] = "skip"
    tree = igc_dist.attribute(
        quadratic(), data, design=design, n_draws=6, statistics=["correlation", "autocorrelation"], **settings
    )
    for name, against in (("igc", "y"), ("igac", "r")):
        expected = of_all_pairs(x.numpy(), y.numpy(), weight, against)
        found, error = tree[f"x/{name}"].values, tree[f"x/{name}_se"].values
        assert (np.abs(found - expected) < 4.5 * error).all()
        assert np.sqrt((error**2).mean() / (expected**2).mean()) < 0.15
        # the samples are the same, but for 1/sqrt(60): most of the error is the draws', and small
        assert np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()) < 0.1
    np.testing.assert_allclose(
        tree["igc_sum"], tree["correlation"] - tree["baseline_term"] + tree["quadrature_error"], atol=1e-12
    )
    assert np.abs(tree["quadrature_error"]).max() < 0.1
    assert "completeness_error" not in tree


def test_a_linear_model_has_no_error_but_of_the_baselines() -> None:
    """Then every draw is exact, and the sum of the map is the correlation less the baseline term to rounding."""
    x, y = samples(40)
    tree = igc_dist.attribute(
        models.linear(), (x, y), design="pairs", n_draws=3, statistics=["correlation", "autocorrelation"]
    )
    assert np.abs(tree["quadrature_error"]).max() < 1e-12
    assert np.abs(tree["baseline_term"]).max() > 1e-4
    alone = igc_dist.attribute(models.linear(), (x, y), design="pairs", n_draws=3, statistics=["autocorrelation"])
    np.testing.assert_allclose(alone["baseline_term"], tree["baseline_term"], rtol=1e-12)
    scalars, (w, d, rr, rb) = (
        tree["shards/attribute/scalars"].values.sum((0, 2)),
        (SCALAR_TERMS.index(term) for term in ("", "d", "rr", "rb")),
    )
    # of the auto-correlation: r b is what sum_i a_i leaves of r r; no sample has an attribution, and so none a residual
    np.testing.assert_allclose(scalars[rb] / scalars[rr], 1 - tree["igac_sum"], atol=1e-12)
    assert (scalars[w] == 40).all()
    assert not scalars[d].any()


@pytest.mark.parametrize(("n", "case"), [(9, "weights"), (10, "missing"), (10, "skipped"), (2, "plain"), (3, "plain")])
def test_all_pairs_of_a_linear_model_are_exact(n: int, case: str) -> None:
    """Each pair once: ``b_i Cov(x_i, y) / (std y std r)`` to rounding, over the samples that count, with their
    weights."""
    x, y = samples(n)
    model, used, weight = models.linear(), np.full((n, 2), True), np.ones((n, 2))
    settings: dict[str, Any] = {"n_draws": {9: 4, 10: 5, 2: 1, 3: 1}[n]}
    if case == "weights":
        weight *= np.linspace(0, 3, n)[:, None]
        settings["weights"] = weight[:, 0]
    if case == "missing":
        y[2, 0] = torch.nan
        used[2, 0] = False
    with torch.no_grad():
        r = model(x).numpy()
    if case == "skipped":
        x[[4, 7]] = torch.nan
        used[[4, 7]] = False
        settings |= {"on_nonfinite": "skip", "n_draws": 4}
    tree = igc_dist.attribute(model, (x, y), design="pairs", n_folds=1, **settings)
    for j, slope in enumerate(model.weight.detach().numpy()):
        rows = used[:, j]
        covariance = np.cov(
            np.vstack([x.numpy()[rows].T, y.numpy()[rows, j], r[rows, j]]), aweights=weight[rows, j], bias=True
        )
        expected = slope * covariance[3, :3] / np.sqrt(covariance[3, 3] * covariance[4, 4])
        np.testing.assert_allclose(tree["x/igc"][j], expected, rtol=1e-10)
    assert np.abs(tree["baseline_term"]).max() < 1e-12


def test_every_group_has_draws_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of 64 to 127, in every fold with other draws, and in replicates with others again: so these scatter."""
    seen: list[tuple[int, float]] = []
    original = Pairs.draw

    def spied(self: Pairs, generator: np.random.Generator, weights: np.ndarray) -> Drawn:
        drawn = original(self, generator, weights)
        seen.append((len(weights), float(drawn.node[0])))
        return drawn

    monkeypatch.setattr(Pairs, "draw", spied)
    settings: dict[str, Any] = {"design": "pairs", "n_draws": 1, "n_folds": 2}
    tree = igc_dist.attribute(quadratic(), samples(2 * 140), budget=igc_dist.Budget(replicates=2), **settings)
    assert [size for size, _ in seen] == [70] * 8
    assert len({node for _, node in seen}) == 8
    assert (tree["draw_share"] > 0.001).all()


def test_draws_are_folded_one_by_one() -> None:
    """Against a loop: outputs asked for in any of the sums, cells, and gradients that are infinite where nobody
    asks."""
    rng = np.random.default_rng(0)
    model = Function(lambda x: torch.stack([x[:, 0] ** 2, x[:, 1] * 1e200 * 1e200, x[:, 0] * x[:, 1], x[:, 1] ** 3], 1))
    one, two = (torch.from_numpy(rng.random((4, 2)) + 1) for _ in range(2))
    weight = np.zeros((2, 5, 3))  # sums, draws, outputs 3, 1, 2
    weight[0, 0, [0, 2]] = 2.0, 3.0
    weight[1, 1, 0] = 4.0
    weight[:, 3, 2] = 5.0, -6.0
    weight[0, 4, 0] = 7.0
    cell = np.array([[0, 1, 1], [1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 0, 1]])
    draws = Draws(np.array([1, 3, 0, 2, 0]), np.array([0, 2, 1, 3, 3]), rng.random(5), weight, cell)
    gradient = {0: lambda x: np.array([0, 3 * x[1] ** 2]), 2: lambda x: np.array([x[1], x[0]])}
    expected = np.zeros((2, 2, 3, 2))
    for t, r, j in zip(*np.nonzero(weight), strict=True):
        start, end = one[draws.start[r]].numpy(), two[draws.end[r]].numpy()
        at = start + draws.node[r] * (end - start)
        expected[t, cell[r, j], j] += weight[t, r, j] * gradient[int(j)](at) * (end - start)
    for size in (5, 2):
        into, rows, lost = (torch.zeros(2, 2, 3, 2).double(),), [], []
        lines, every = Lines(Model(model), Straight(), (two,), (one,), size, rows.append, lost.append), (3, 1, 2)
        fold(lines, draws, every, into)
        np.testing.assert_allclose(into[0], expected, rtol=1e-12)
        assert (sum(rows), lost) == (4, [])
    asked_too = replace(draws, weight=weight + np.eye(5)[[3]].T * [0, 1.0, 0])
    fold(replace(lines, size=5), asked_too, every, into)
    assert lost == [2]  # the end of draw 3


@both
def test_cuts_change_nothing_but_rounding(design: str) -> None:
    """Micro-batches do not change what is drawn; patches are sums of the same map."""
    torch.manual_seed(0)
    model, x = models.conv(), torch.randn(40, 1, 6, 6).double()
    y = model(x).detach() + torch.randn(40, model(x).shape[1]).double()
    settings: dict[str, Any] = {"design": design, "n_draws": 3, "target": [0, 1]}
    whole = igc_dist.attribute(model, (x, y), **settings)["x/igc"].values
    cut = igc_dist.attribute(model, (x, y), micro_batch=7, **settings)["x/igc"].values
    np.testing.assert_allclose(cut, whole, rtol=1e-10, atol=1e-13)
    patches = igc_dist.attribute(model, (x, y), reduce=Patches(3), **settings)["x/igc"].values
    np.testing.assert_allclose(patches[:, 0], whole[:, 0].reshape(2, 2, 3, 2, 3).sum((2, 4)), rtol=1e-10, atol=1e-13)
    if design == "pairs":  # importance is that of the outputs of a block
        blocks = igc_dist.attribute(model, (x, y), output_block=1, **settings)["x/igc"].values
        np.testing.assert_allclose(blocks, whole, rtol=1e-10, atol=1e-13)


def labelled(n: int = 96, outputs: int = 5) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, outputs)).double()
    return model, torch.randn(n, 3).double(), torch.arange(n) % outputs


def backwards(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(Rows, backward passes) of every forward pass of the walk."""
    seen: list[tuple[int, int]] = []
    original = Model.gradients

    def counted(self: Model, points: Any, outputs: Any) -> Any:
        found = list(original(self, points, outputs))
        seen.append((len(points[0]), len(found)))
        return iter(found)

    monkeypatch.setattr(Model, "gradients", counted)
    return seen


def test_labels_cost_two_gradients_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """The targets of two samples with labels differ in two outputs: the others' gradients are not taken, pairs of one
    label not walked."""
    model, x, y = labelled()
    seen = backwards(monkeypatch)
    tree = igc_dist.attribute(model, (x, y), design="pairs", n_draws=4, n_folds=1)
    walked = seen[3:]  # after the probes of the plan
    assert {passes for _, passes in walked} == {2}
    assert 0.6 * 96 * 4 < sum(rows for rows, _ in walked) < 96 * 4
    assert tree.attrs["cost"]["gradient_evaluations"] == 2 * 96 * 4
    seen.clear()
    igc_dist.attribute(model, (x, y), design="pairs", n_draws=4, n_folds=1, statistics=["autocorrelation"])
    assert {passes for _, passes in seen[3:]} == {5}


def test_some_outputs_cost_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The label's and two others: three backward passes for each forward pass, whatever the outputs of its rows."""
    model, x, y = labelled()
    seen = backwards(monkeypatch)
    tree = igc_dist.attribute(model, (x, y), n_others=2, design="stratified", n_draws=4, baseline=Resampled(4))
    assert {passes for _, passes in seen[3:]} == {3}
    assert sum(rows for rows, _ in seen[3:]) == 96 * 4
    assert tree.attrs["cost"]["gradient_evaluations"] == 3 * 96 * 4


def test_every_point_asks_for_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other outputs at every sample, baseline, node and block of outputs, however baselines are cut."""
    keys: list[float] = []
    labels: set[int] = set()

    def spied(drawn: np.ndarray, label: np.ndarray, n_others: int) -> np.ndarray:
        keys.extend(drawn[:, 0])
        labels.update(label.tolist())
        return asked(drawn, label, n_others)

    monkeypatch.setattr("igc_dist.passes.drawn.asked", spied)
    model, x, y = labelled(10)
    settings: dict[str, Any] = {
        "baseline": Resampled(2),
        "baseline_block": 1,
        "n_steps": 2,
        "n_folds": 1,
        "output_block": 2,
    }
    igc_dist.attribute(model, (x, y), n_others=1, target=[1, 2, 3, 4], **settings)
    assert len(keys) == len(set(keys)) == 10 * 2 * 2 * 2
    assert labels == {-1, 0, 1}


def test_asked_is_unbiased() -> None:
    """Every output counts once on average, the label's always once, and as many of the others as were asked for."""
    rng, label = np.random.default_rng(0), np.tile([0, 3, -1], 4000)
    often = asked(rng.random((12000, 6)), label, 2)
    assert (often[label == 3, 3] == 1).all()
    assert set((often > 0).sum(1)[label >= 0]) == {3}
    assert set((often > 0).sum(1)[label < 0]) == {2}
    np.testing.assert_allclose(often.mean(0), 1, atol=0.05)
    np.testing.assert_array_equal(asked(rng.random((3, 6)), np.array([0, 3, -1]), 6), 1)


def test_all_the_others_are_all_outputs() -> None:
    """Asked for all, the draws fold to what the attributions of samples fold to: with slices, weights, two inputs'
    worth of baselines."""
    model, x, y = labelled(30)
    x[7] = torch.nan
    settings: dict[str, Any] = {
        "design": "stratified", "n_draws": 3, "baseline": Resampled(3), "slices": np.arange(30) % 2,
        "weights": np.linspace(0, 1, 30),
        "statistics": ["correlation", "autocorrelation"], "n_folds": 3, "on_nonfinite": "skip",
    }  # fmt: skip
    expected = igc_dist.attribute(model, (x, y), **settings)
    found = igc_dist.attribute(model, (x, y), n_others=4, **settings)
    for name in ("x/igc", "x/igac", "slices/x/igc", "x/igc_se", "baseline_term", "igc_sum"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-12, err_msg=name)
    cut = igc_dist.attribute(model, (x, y), n_others=2, baseline_block=2, micro_batch=7, **settings)["x/igc"].values
    whole = igc_dist.attribute(model, (x, y), n_others=2, **settings)["x/igc"].values
    assert np.abs(whole - expected["x/igc"].values).max() > 1e-3
    np.testing.assert_allclose(cut, whole, rtol=1e-9, atol=1e-12)
    reduced = igc_dist.attribute(model, (x, y), n_others=4, reduce=Total(), **settings)["slices/x/igc"].values
    np.testing.assert_allclose(reduced, expected["slices/x/igc"].values.sum(2), rtol=1e-9, atol=1e-12)
    given, alone = (  # one baseline for all
        igc_dist.attribute(model, (x[:7], y[:7]), n_steps=3, baseline=0.3, n_folds=1, **more)["x/igc"].values
        for more in ({"n_others": 4}, {})
    )
    np.testing.assert_allclose(given, alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [{"n_others": 1}, {"design": "pairs", "n_draws": 200}, {"design": "importance_pairs", "n_draws": 200}],
    ids=str,
)
def test_several_inputs(settings: dict[str, Any]) -> None:
    """Of a vector, a number and an image in three types: the others are all there are, or pairs are those of all
    baselines, about."""
    data = [(x, y.argmax()) for x, y in problems.Mixed(16)]
    tree = igc_dist.attribute(problems.Mixture(), data, n_folds=1, **settings)
    more = {"baseline": Resampled(16)} if "design" in settings else {}
    expected = igc_dist.attribute(
        problems.Mixture(), data, n_folds=1, **{"n_steps": 4, "design": "grid", **more} if more else {}
    )
    for name in ("x", "x1", "x2"):
        one, two = (t[f"{name}/igc"].values for t in (tree, expected))
        np.testing.assert_allclose(
            one, two, rtol=0, atol=(0.5 if "imp" in settings["design"] else 0.15) * np.abs(two).max() if more else 1e-12
        )


def test_some_outputs_are_unbiased() -> None:
    """Over 60 copies of each sample IGC is that of all outputs with the same nodes and baselines, within 4.5 of what
    the draws scatter."""
    model, x, y = labelled(40)
    settings: dict[str, Any] = {"n_steps": 2, "baseline": 0.0, "n_folds": 30}
    expected = igc_dist.attribute(model, (x, y), n_steps=2, n_folds=1)["x/igc"].values
    tree = igc_dist.attribute(model, (tiled(x), y.repeat(60)), n_others=1, **settings)
    gap, error = tree["x/igc"].values - expected, tree["x/igc_se"].values
    assert (np.abs(gap) < 4.5 * error).all()
    assert np.sqrt((gap**2).mean() / (expected**2).mean()) < 0.1
    assert np.abs(gap).max() > 1e-4


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"design": "pairs", "statistics": ["moments"]}, "'moments' is not linear"),
    ({"design": "pairs", "samples": True}, "attributions of single samples are stored"),
    ({"design": "pairs", "baseline": 0.5}, "takes other rows of the data as baselines, but baseline Constant is given"),
    ({"design": "pairs", "n_draws": 0}, "n_draws=0 with design 'pairs'"),
    ({"design": "pairs", "baseline_block": 2}, "partners are drawn together"),
    ({"design": "pairs", "slices": np.arange(96) % 2}, "a pair of two slices would be in neither"),
    ({"design": "pairs", "n_others": 1}, "pairs ask for the outputs of both labels only"),
    ({"design": "pairs", "reduce": lambda a: a}, "a function, which need not be linear"),
    ({"design": Pairs(3), "n_draws": 2}, "beside a design that is given as an object"),
    ({"design": "pairs", "final_layer": "2"}, "two ways to make many outputs cheap"),
    ({"baseline": Partners()}, "partners are drawn by design=pairs"),
    ({"design": "grid", "n_draws": 3}, "with design 'grid', which takes every baseline with every node"),
    (
        {"design": "stratified", "n_draws": 3, "baseline": 2},
        "n_draws=3 with design 'stratified': an input has 2 baselines",
    ),
    ({"n_others": 0}, "n_others=0: give how many outputs"),
    ({"n_others": 1, "statistics": ["correlation", "moments"]}, "draws its nodes, or its outputs.*'moments'"),
    ({"n_others": 1, "attributor": GradientXInput()}, "it is for Integrated Gradients"),
    ({"n_others": 1, "reduce": [np.abs]}, "a function, which need not be linear"),
]


@pytest.mark.parametrize(("settings", "words"), REFUSED)
def test_what_is_refused(settings: dict[str, Any], words: str) -> None:
    model, x, y = labelled()
    with pytest.raises(ConfigError, match=words):
        igc_dist.attribute(model, (x, y), **settings)


def test_labels_are_needed() -> None:
    """A missing target is not against them, wherever it is."""
    model, x, y = labelled(12)
    y = nn.functional.one_hot(y).double()
    y[0, 0] = y[5, 3] = torch.nan
    assert igc_dist.attribute(model, (x, y), n_others=1, n_steps=1, n_folds=1)["n"].values.tolist() == [
        11,
        12,
        12,
        11,
        12,
    ]
    with pytest.raises(ConfigError, match="n_others=1 needs a label for each sample"):
        igc_dist.attribute(model, (x, model(x).detach()), n_others=1)


def test_bad_gradients_end_the_run() -> None:
    """Whatever the policy, as a draw cannot be left out: with an end of the draw, and advice."""
    x, y = samples(9)
    x[4, 0] = 50.0
    broken = Function(
        lambda x: torch.sqrt((x[:, :1] - 5).abs() * (x[:, :1] < 5)) + x[:, :2]
    )  # beyond 5 the gradient is 0 / 0
    with pytest.raises(
        NonFiniteError, match=r"sample \d has NaN or infinity in a gradient.*cannot be left out without a bias"
    ):
        igc_dist.attribute(broken, (x, y), attributor=PathIntegral(design=Pairs(2)), n_folds=1, on_nonfinite="skip")
    with pytest.raises(NonFiniteError, match=r"sample 4 has NaN or infinity in a gradient"):  # its path is its own
        igc_dist.attribute(broken, (x, torch.arange(9) % 2), n_others=1, n_folds=1, n_steps=2)


def test_a_lonely_sample_is_an_error() -> None:
    x, y = samples(2)
    x[1] = torch.nan
    with pytest.raises(DataError, match="one usable sample, pairs need two"):
        igc_dist.attribute(quadratic(), (x, y), design="pairs", on_nonfinite="skip")
    tree = igc_dist.attribute(quadratic(), samples(9), design="pairs", n_draws=1, n_folds=4, reduce=Total())
    assert tree["n"].values.tolist() == [9, 9]  # folds of 8 would leave one sample alone
