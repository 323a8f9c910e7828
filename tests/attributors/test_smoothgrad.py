"""SmoothGrad around any attributor: the literal twin at the documented addresses, its forms, closed forms, and no trace
of batching."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import igc_dist
from igc_dist import config
from igc_dist.attributors import (
    AdaptiveIG,
    Attributor,
    BaselineShapley,
    BlurIG,
    ExpectedGradients,
    Gradients,
    GradientXInput,
    Identity,
    PathIntegral,
    SmoothGrad,
)
from igc_dist.model import Model
from igc_dist.paths import Auto, Pairs, Stratified, rule
from igc_dist.planning import Cost, Work
from igc_dist.records import ConfigError, Shapes
from igc_dist.seeds import Address, generator
from tests import models
from tests.laws.test_attributors import SEED, attribute, indices, per_sample, random
from tests.oracles import attributions as literal
from tests.oracles import smoothgrad as oracle
from tests.oracles import statistics

KINDS = {SmoothGrad}
PRESETS = {"smoothgrad", "smoothgrad_ig"}
FORMS = ("linear", "squared", "variance")
RULE = rule("midpoint", 2)
Arrays = tuple[np.ndarray, ...]


def noise(
    x: Arrays, index: np.ndarray, n_samples: int, antithetic: bool = False, seed: int = SEED
) -> list[list[Arrays]]:
    """Standard normals of each sample and copy, from the documented addresses: all inputs in their order from one
    generator."""

    def of(sample: int, m: int) -> Arrays:
        drawn = generator(seed, sample, "attributors.smoothgrad", m // 2 if antithetic else m)
        sign = -1 if antithetic and m % 2 else 1
        return tuple(sign * drawn.standard_normal(xi.shape[1:]) for xi in x)

    return [[of(int(sample), m) for m in range(n_samples)] for sample in index]


def gradients(model: torch.nn.Module) -> Callable[[int, Arrays], Arrays]:
    return lambda n, point: tuple(a[0] for a in literal.gradients(model, tuple(xi[None] for xi in point), [0, 1]))


def integrals(model: torch.nn.Module, starts: list[list[Arrays]]) -> Callable[[int, Arrays], Arrays]:
    def host(n: int, point: Arrays) -> Arrays:
        one = tuple(xi[None] for xi in point)
        nodes = RULE.nodes.tolist(), RULE.weights.tolist()
        return tuple(a[0] for a in literal.integrated_gradients(model, one, [starts[n]], [0, 1], *nodes))

    return host


# -- the twin ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", models.MODELS)
def test_equals_the_literal_twin_over_gradients(name: str, form: str) -> None:
    for antithetic in (False, True):
        attributor = SmoothGrad(Gradients(), 4, 0.3, antithetic, form)
        model, x = models.MODELS[name](), (random(3, 3),)
        expected = oracle.smoothgrad(gradients(model), x, noise(x, indices(3), 4, antithetic), 0.3, form)
        np.testing.assert_allclose(attribute(attributor, model, x, ())[0], expected[0], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_equals_the_literal_twin_over_integrated_gradients(name: str, shared: bool, form: str) -> None:
    """With two baselines, which are not noisy."""
    attributor = SmoothGrad(PathIntegral(RULE), 3, 0.2, form=form)
    model, x, x0 = models.MODELS[name](), (random(3, 3),), (random(2, 1 if shared else 3, 3, seed=1),)
    expected = oracle.smoothgrad(integrals(model, per_sample(x0, 3)), x, noise(x, indices(3), 3), 0.2, form)
    np.testing.assert_allclose(attribute(attributor, model, x, x0)[0], expected[0], rtol=1e-11, atol=1e-13)


def test_equals_the_literal_twin_of_images_and_of_two_inputs() -> None:
    """The range of each input is its own."""
    for model, shapes in ((models.conv(), [(1, 6, 6)]), (models.TwoInputs(), [(3,), (2, 2)])):
        x, x0 = (
            tuple(random(2, *s, seed=i) * 3**i for i, s in enumerate(shapes)),
            tuple(random(1, 2, *s, seed=9) for s in shapes),
        )
        eps = noise(x, indices(2), 3)
        for found, expected in (
            (
                attribute(SmoothGrad(n_samples=3), model, x, ()),
                oracle.smoothgrad(gradients(model), x, eps, 0.15, "linear"),
            ),
            (
                attribute(SmoothGrad(PathIntegral(RULE), 3), model, x, x0),
                oracle.smoothgrad(integrals(model, per_sample(x0, 2)), x, eps, 0.15, "linear"),
            ),
        ):
            for one, two in zip(found, expected, strict=True):
                np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-12)


@cache
def run(preset: str, name: str) -> tuple[Any, np.ndarray, np.ndarray]:
    model = models.MODELS[name]()
    x, y = models.data(model, 9)
    several = ["correlation", "autocorrelation", "moments"]
    start = torch.tensor([[0.3, -0.2, 0.5], [-0.1, 0.4, 0.2]], dtype=torch.float64)
    settings: dict[str, Any] = {
        "statistics": several,
        "n_steps": 2,
        "n_folds": 3,
        "threads": 1,
        "seed": SEED,
        "baseline": start,
    }
    return igc_dist.attribute(model, (x, y), method=preset, **settings), x.numpy(), y.numpy()


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_runs_of_the_presets(preset: str, name: str) -> None:
    """Attributions of samples are those of the twin, the nested attributor with the rule of the run; statistics are
    those of these."""
    tree, x, y = run(preset, name)
    model, a = models.MODELS[name](), tree["samples/x/attribution"].values
    start = [(np.array([0.3, -0.2, 0.5]),), (np.array([-0.1, 0.4, 0.2]),)]
    host, label, each = {
        "smoothgrad": (gradients(model), "smoothgrad", 1),
        "smoothgrad_ig": (integrals(model, literal.shared(start, 9)), "smoothgrad_ig", 4),
    }[preset]
    expected = oracle.smoothgrad(host, (x,), noise((x,), np.arange(9), 25), 0.15, "linear")[0]
    np.testing.assert_allclose(a, expected, rtol=1e-10, atol=1e-12)
    r = literal.predictions(model, (x,), [0, 1])
    for what, values in {
        "correlation": statistics.igc(a, y, r), "autocorrelation": statistics.igac(a, r),
        "mean": statistics.attribution_mean(a), "std": statistics.attribution_std(a),
    }.items():  # fmt: skip
        np.testing.assert_allclose(tree[f"x/{label}_{what}"].values, values, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(tree["correlation"], statistics.correlations(y, r), rtol=1e-12)
    assert f"{label}_correlation_sum" not in tree  # it claims no completeness
    assert np.isnan(tree["samples/delta"]).all()
    assert (tree.attrs["cost"]["forwards"], tree.attrs["cost"]["gradient_evaluations"]) == (
        9 * 25 * each,
        9 * 25 * each * 2,
    )


# -- closed forms ------------------------------------------------------------------------------------------------------


def test_closed_forms_of_a_linear_model() -> None:
    """Gradients: w, with variance 0, exactly. IG: w (x + mean eps - x0); of antithetic noise w (x - x0), as it
    cancels."""
    model, x, x0 = models.linear(), random(4, 3), random(1, 1, 3, seed=1)
    w = model.weight.detach().numpy()
    np.testing.assert_allclose(attribute(SmoothGrad(), model, (x,), ())[0], np.broadcast_to(w, (4, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(
        attribute(SmoothGrad(form="squared"), model, (x,), ())[0], np.broadcast_to(w**2, (4, 2, 3)), rtol=1e-13
    )
    assert not attribute(SmoothGrad(form="variance"), model, (x,), ())[0].any()
    pairs = attribute(SmoothGrad(PathIntegral(RULE), 8, antithetic=True), model, (x,), (x0,))[0]
    np.testing.assert_allclose(pairs, w * (x - x0[0])[:, None], rtol=0, atol=1e-14)
    single = attribute(SmoothGrad(PathIntegral(RULE), 8), model, (x,), (x0,))[0]
    eps = np.array([[z for (z,) in of_n] for of_n in noise((x,), indices(4), 8)])
    shifted = x + 0.15 * np.ptp(x, axis=1)[:, None] * eps.mean(1)
    np.testing.assert_allclose(single, w * (shifted - x0[0])[:, None], rtol=0, atol=1e-14)
    assert abs(single - pairs).max() > 1e-3


def test_variance_of_a_quadratic_model() -> None:
    """Of gradients Q (x + eps): (Q S Q)_ii, S the variance of the draws; also far from 0, where squares of the maps
    would cancel."""
    model, q = models.Quadratic(), models.Quadratic().Q.detach().numpy()
    for offset in (0.0, 1e6):
        x = random(3, 3) + offset
        eps = (
            np.array([[z for (z,) in of_n] for of_n in noise((x,), indices(3), 6)])
            * 0.15
            * np.ptp(x, axis=1)[:, None, None]
        )
        expected = np.einsum("jik,nmk->nmji", q, eps).var(1)
        np.testing.assert_allclose(
            attribute(SmoothGrad(n_samples=6, form="variance"), model, (x,), ())[0], expected, rtol=1e-7
        )


def test_the_sum_is_the_mean_rise_of_noisy_copies() -> None:
    """Over a complete attributor: mean_m f(x + eps_m) - f(x0), also with antithetic pairs; it is no f(x) - f(x0)."""
    model, x, x0 = models.mlp(torch.nn.GELU), random(4, 3), random(1, 1, 3, seed=1)
    host = PathIntegral(rule("gauss_legendre", 20))
    start = literal.predictions(model, (np.repeat(x0[0], 4, 0),), [0, 1])
    for antithetic in (False, True):
        total = attribute(SmoothGrad(host, 6, 0.3, antithetic), model, (x,), (x0,))[0].sum(-1)
        width, eps = 0.3 * np.ptp(x, axis=1)[:, None], noise((x,), indices(4), 6, antithetic)
        mean = (
            sum(
                literal.predictions(model, (x + width * np.stack([of_n[m][0] for of_n in eps]),), [0, 1])
                for m in range(6)
            )
            / 6
        )
        np.testing.assert_allclose(total, mean - start, rtol=0, atol=1e-12)
        assert abs(mean - literal.predictions(model, (x,), [0, 1])).max() > 1e-4
    assert not SmoothGrad(host).complete


def test_nothing_where_there_is_nothing() -> None:
    """Without noise it is the attributor; x = x0 then gives 0. A constant input has no range, so no noise: the same,
    and finite."""
    model, x = models.mlp(torch.nn.GELU), random(3, 3)
    none = SmoothGrad(PathIntegral(RULE), 3, 0.0)
    assert not attribute(none, model, (x,), (x[None],))[0].any()
    np.testing.assert_allclose(
        attribute(none, model, (x,), (x[None] + 1,))[0], attribute(PathIntegral(RULE), model, (x,), (x[None] + 1,))[0]
    )
    flat = np.full((2, 3), 0.7)
    np.testing.assert_allclose(
        attribute(SmoothGrad(), model, (flat,), ())[0], attribute(Gradients(), model, (flat,), ())[0], rtol=1e-13
    )


# -- contract ----------------------------------------------------------------------------------------------------------

HOSTS: list[Attributor] = [
    Gradients(), GradientXInput(), PathIntegral(RULE), ExpectedGradients(), BaselineShapley(2),
    AdaptiveIG(kind="smooth", tol=2e-2),
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("host", HOSTS, ids=lambda h: h.name)
def test_any_attributor(host: Attributor, form: str) -> None:
    """It is the mean (or square, or variance) of what the attributor gives for the noisy copies, one call for each;
    whatever the size."""
    model, x, x0 = models.mlp(torch.nn.GELU), random(3, 3), (random(2, 3, 3, seed=1),) if host.baselines else ()
    eps = noise((x,), indices(3), 4, antithetic=True)
    width = 0.15 * np.ptp(x, axis=1)[:, None]
    maps = np.stack(
        [attribute(host, model, (x + width * np.stack([of_n[m][0] for of_n in eps]),), x0)[0] for m in range(4)]
    )
    expected = {"linear": maps.mean(0), "squared": (maps**2).mean(0), "variance": maps.var(0)}[form]
    for size in (3, 200):
        attributor = SmoothGrad(host, 4, antithetic=True, form=form)
        np.testing.assert_allclose(
            attribute(attributor, model, (x,), x0, size=size)[0], expected, rtol=1e-9, atol=1e-13
        )
        alone = attribute(attributor, model, (x[1:2],), tuple(v[:, 1:2] for v in x0), size=size, index=indices(3)[1:2])[
            0
        ]
        np.testing.assert_allclose(alone, expected[1:2], rtol=1e-9, atol=1e-13)
    flags = ("baselines", "gradients", "certified", "own_baseline", "exact", "estimate")
    assert [getattr(attributor, flag) for flag in flags] == [getattr(host, flag) for flag in flags]
    assert attributor.linear == (form == "linear" and host.linear)


def test_blocks_of_baselines() -> None:
    """They add up where the form is linear, and are refused where it is not."""
    model, x, x0 = models.mlp(torch.nn.GELU), random(3, 3), random(4, 3, 3, seed=1)
    whole = SmoothGrad(PathIntegral(RULE), 4)
    np.testing.assert_allclose(
        attribute(whole, model, (x,), (x0,), blocks=2)[0], attribute(whole, model, (x,), (x0,))[0], rtol=1e-12
    )
    for form in FORMS[1:]:
        with pytest.raises(
            ConfigError, match=rf"plan.baseline_block cuts 4 baselines, but form={form} is not linear.*leave it null"
        ):
            attribute(SmoothGrad(PathIntegral(RULE), 4, form=form), model, (x,), (x0,), blocks=2)


@pytest.mark.parametrize("size", [1, 7, 40, 200])
@pytest.mark.parametrize("host", [Gradients(), PathIntegral(RULE), BlurIG(quadrature=RULE)], ids=lambda h: h.name)
def test_costs_what_it_says(host: Attributor, size: int) -> None:
    """M times the host (methods.md), in passes of at most `size` points of each sample."""
    attributor, model, seen = SmoothGrad(host, 6), models.Counted(models.conv()), []
    x, x0 = torch.from_numpy(random(3, 1, 6, 6)), torch.from_numpy(random(2, 1, 1, 6, 6, seed=1))
    b = 2 if host.baselines else 1
    address = Address(SEED, indices(3), range(b), b)
    starts = (x0,) if host.baselines else ()
    attributor.attribute(Model(model), (x,), starts, [0, 1], share=1 / b, size=size, watch=seen.append, address=address)
    price, one = attributor.price([(1, 6, 6)]), host.price([(1, 6, 6)])
    assert (price.rows, price.gradients_per_output) == (6 * one.rows, 6 * one.gradients_per_output)
    assert model.forwards == sum(seen) == 3 * b * price.rows
    assert model.backwards == 3 * b * 2 * price.gradients_per_output
    assert max(seen) <= 3 * size
    if size == 200:
        assert len(seen) == one.rows - host.points([(1, 6, 6)]) + 1  # all copies at once


@pytest.mark.parametrize(("form", "maps"), [("linear", 1), ("squared", 1), ("variance", 3)])
def test_the_plan_knows_of_the_maps_that_are_held(form: str, maps: int) -> None:
    """Beside those of the attributor within: the mean, or the squares; the first, the mean and the squares."""
    attributor, shapes = SmoothGrad(form=form), Shapes(9, 2, ("x",), ((6, 6),), 4, 0, 0, 0)
    assert (attributor.price([(6, 6)]).sums, attributor.held) == (maps, 3)
    one, two = (
        Cost(shapes, Work(outputs=(0, 1), n_baselines=1, points=25, n_terms=1, price=price)).per_sample(2)
        for price in (Gradients().price([(6, 6)]), attributor.price([(6, 6)]))
    )
    assert two - one == maps * 2 * 36 * 4


def test_notes_of_the_attributor_within() -> None:
    """Predictions at its own baselines are averaged; a copy that fails makes the sample fail, and evaluations add up;
    in any cut."""
    model, x = models.conv(), random(3, 1, 6, 6)
    eps = noise((x,), indices(3), 4)
    width = 0.15 * np.ptp(x.reshape(3, -1), axis=1).reshape(3, 1, 1, 1)
    noisy = [x + width * np.stack([of_n[m][0] for of_n in eps]) for m in range(4)]

    def said(attributor: Attributor, inputs: np.ndarray, size: int) -> dict[str, Any]:
        notes: dict[str, Any] = {}

        def note(failed: Any = None, **sums: Any) -> None:
            if failed is not None:
                notes["failed"] = notes.get("failed", False) | failed
            for name, value in sums.items():
                notes[name] = notes.get(name, 0) + np.asarray(value)

        x0 = (torch.zeros(1, 1, 1, 6, 6).double(),) if attributor.baselines else ()
        address = Address(SEED, indices(3), range(1), 1)
        attributor.attribute(
            Model(model), (torch.from_numpy(inputs),), x0, [0, 1], share=1.0, size=size, address=address, note=note
        )
        return notes

    tight = AdaptiveIG(kind="piecewise", tol=3e-2, max_evaluations=20)
    failed = np.stack([said(tight, copy, 64)["failed"] for copy in noisy])
    assert (failed.any(0) & ~failed.all(0)).any()  # some copies only
    assert not failed.any(0).all()
    for host in (BlurIG(2.0, quadrature=RULE), AdaptiveIG(kind="smooth", tol=1e-3), tight):
        each = [said(host, copy, 64) for copy in noisy]
        for size in (1, 9, 100):
            found = said(SmoothGrad(host, 4), x, size)
            assert found.keys() == each[0].keys()
            for name in found:
                values = np.stack([one[name] for one in each])
                expected = {
                    "failed": values.any(0),
                    "evaluations": values.sum(0),
                    "baseline_prediction": values.mean(0),
                }[name]
                np.testing.assert_allclose(found[name], expected, rtol=1e-12)


def test_rules_of_the_run_go_to_the_innermost() -> None:
    """Quadrature and design of a run reach the attributor that has them; `auto` is decided through it; names tell what
    is within."""
    node = config.preset("smoothgrad_ig").attributor
    built = config.build_attributor(node, rule("gauss_legendre", 5))
    assert (built.attributor, built.n_samples, built.name) == (
        PathIntegral(rule("gauss_legendre", 5)),
        25,
        "smoothgrad_ig",
    )
    drawn = config.build_attributor(node, rule("midpoint", 5), Stratified(2))
    assert (drawn.attributor.design, drawn.exact, drawn.rule) == (Stratified(2), False, "25 noisy copies, stratified-2")
    auto = config.build_attributor(node, Auto())
    assert auto.suited(lambda: False).attributor.quadrature.name == "gauss_legendre-8"
    plain = config.build_attributor(config.preset("smoothgrad").attributor, rule("midpoint", 5))
    assert (plain, plain.name, plain.rule) == (SmoothGrad(), "smoothgrad", "25 noisy copies")
    with pytest.raises(
        ConfigError, match=r"design=stratified with attributor 'gradient', which does not draw its nodes"
    ):
        config.build_attributor(config.preset("smoothgrad").attributor, rule("midpoint", 5), Stratified(2))


def test_a_run_does_not_depend_on_its_cuts() -> None:
    """Noise follows the sample; another seed, another noise. Latents of a final layer give the same where the form is
    linear."""
    model, data = models.mlp(torch.nn.GELU), models.data(models.mlp(torch.nn.GELU))

    def found(**settings: Any) -> np.ndarray:
        chosen = {"method": "smoothgrad", "threads": 1, "n_folds": 1, **settings}
        return igc_dist.attribute(model, data, **chosen)["samples/x/attribution"].values

    whole = found()
    np.testing.assert_allclose(found(micro_batch=2, n_folds=3, output_block=1), whole, rtol=1e-11, atol=1e-13)
    assert abs(found(seed=1) - whole).max() > 1e-4
    torch.manual_seed(1)
    wide = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh(), torch.nn.Linear(2, 5)).double()
    y = torch.from_numpy(random(12, 5, seed=4))
    settings: dict[str, Any] = {
        "method": "smoothgrad",
        "attributor": SmoothGrad(n_samples=4),
        "n_folds": 1,
        "threads": 1,
        "samples": True,
    }
    one, two = (igc_dist.attribute(wide, (data[0], y), final_layer=layer, **settings) for layer in (None, "2"))
    np.testing.assert_allclose(one["samples/x/attribution"], two["samples/x/attribution"], rtol=1e-10, atol=1e-13)
    costs = [tree.attrs["cost"]["gradient_evaluations"] for tree in (one, two)]
    assert costs == [12 * 4 * 5, 12 * 4 * 2]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"n_samples": 0}, r"method.attributor.n_samples=0: give an integer of at least 1"),
        (
            {"n_samples": 5, "antithetic": True},
            r"n_samples=5: antithetic=true takes copies in pairs, give an even number",
        ),
        ({"n_samples": 1, "form": "variance"}, r"n_samples=1: there is no variance of one copy, give an even number"),
        ({"noise": -0.1}, r"method.attributor.noise=-0.1: give a standard deviation of at least 0"),
        ({"noise": float("nan")}, r"noise=nan: give a standard deviation"),
        ({"form": "cubic"}, r"method.attributor.form='cubic': choose one of linear, squared, variance"),
        ({"attributor": Identity()}, r"attributor=Identity under SmoothGrad, which is for what asks the model"),
        ({"attributor": SmoothGrad()}, r"attributor=SmoothGrad under SmoothGrad, .*, once"),
        ({"attributor": PathIntegral(design=Pairs())}, r"PathIntegral under SmoothGrad, .*no pairs of samples"),
    ],
)
def test_bad_settings(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        SmoothGrad(**settings)


def test_bad_input() -> None:
    """Noise needs an address, and room between the values of an input."""
    with pytest.raises(TypeError, match="needs the address"):
        SmoothGrad().attribute(Model(models.linear()), (torch.zeros(2, 3).double(),), (), [0], share=1.0, size=4)
    ids = torch.randint(0, 5, (6, 4), generator=torch.Generator().manual_seed(0))
    with pytest.raises(
        ConfigError, match=r"'smoothgrad_ig' with categories.*no room for noise.*name an embedding method"
    ):
        igc_dist.attribute(models.Sequence(), (ids, torch.rand(6, 2)), method="smoothgrad_ig", categories=6, threads=1)
