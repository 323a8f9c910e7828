"""Blur IG: the heat equation on pixels, the literal twin, closed forms, completeness, cost, and what the originals get
wrong."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import igc_dist
from igc_dist.attributors import BlurIG, Task
from igc_dist.features import Patches
from igc_dist.model import Model
from igc_dist.paths import BOUNDARIES, SCHEDULES, Auto, Blurred, rule
from igc_dist.records import ConfigError
from tests import models
from tests.laws.test_attributors import attribute, random
from tests.oracles import attributions as literal
from tests.oracles import blur as oracle
from tests.oracles import statistics

KINDS = {BlurIG}
PRESETS = {"blur_ig", "blur_igc"}
PATHS = [Blurred(2.5, schedule, boundary) for schedule in SCHEDULES for boundary in BOUNDARIES]
every_path = pytest.mark.parametrize("path", PATHS, ids=lambda p: f"{p.schedule}-{p.boundary}")
GAUSS = rule("gauss_legendre", 40)
SHAPES = [(1, 3), (3, 1)]


class Pair(nn.Module):
    """Two images that act on each other."""

    def forward(self, x: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return models.TwoInputs()(x.flatten(1), image)


def flat(name: str) -> nn.Module:
    """A model of the family, of images of 1 x 3 pixels."""
    return nn.Sequential(nn.Flatten(), models.MODELS[name]())


def sines() -> nn.Module:
    return models.Function(lambda x: torch.stack((x.sin().flatten(1).sum(1), x.square().flatten(1).sum(1)), 1))


def found(attributor: BlurIG, model: nn.Module, *x: np.ndarray, **settings: Any) -> tuple[np.ndarray, ...]:
    return attribute(attributor, model, x, (), **settings)


def nodes(attributor: BlurIG) -> tuple[list[float], list[float]]:
    return attributor.nodes.nodes.tolist(), attributor.nodes.weights.tolist()


# -- the path ----------------------------------------------------------------------------------------------------------


@every_path
def test_the_path_solves_the_heat_equation(path: Blurred) -> None:
    """Points and velocities are those of the exponential of the matrix of differences, also at both ends; images of any
    shape."""
    x, t = random(2, 3, 5, 4), np.array([0.0, 0.3, 0.9, 1.0])
    points, velocities = path.at(torch.from_numpy(x), t)
    for c, at in enumerate(t):
        sigma = (1 - at) * path.sigma_max
        tau, speed = (
            (sigma**2, -sigma * path.sigma_max)
            if path.schedule == "sigma"
            else (sigma * path.sigma_max, -(path.sigma_max**2) / 2)
        )
        blurred, curved = oracle.heat(x, tau, path.boundary)
        np.testing.assert_allclose(points[c], blurred, rtol=0, atol=1e-13)
        np.testing.assert_allclose(velocities[c], speed * curved, rtol=0, atol=1e-12)


@every_path
def test_velocity_is_the_derivative(path: Blurred) -> None:
    """It equals the central difference of the points, from wide blurs to those of a hundredth of a pixel: nothing
    jumps."""
    x, h = torch.from_numpy(random(2, 6, 5)), 1e-5
    t = np.array([0.01, 0.2, 0.5, 0.9, 0.99, 0.996, 0.9999])
    difference = (path.at(x, t + h)[0] - path.at(x, t - h)[0]) / (2 * h)
    torch.testing.assert_close(path.at(x, t)[1], difference, rtol=1e-7, atol=1e-7)


@every_path
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_ends_at_the_input(path: Blurred, dtype: torch.dtype) -> None:
    """gamma(1) = x to the bit; gamma(0) is the image blurred by sigma_max."""
    x = torch.from_numpy(random(2, 1, 4, 7)).to(dtype)
    (start, end), _ = path.at(x, np.array([0.0, 1.0]))
    assert torch.equal(end, x)
    blurred, _ = oracle.heat(x.double().numpy(), path.sigma_max**2, path.boundary)
    np.testing.assert_allclose(start, blurred, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-13)


def test_sigma_is_a_standard_deviation_in_pixels() -> None:
    """Of a single bright pixel, far from the edges: the variance along either dimension is sigma squared, however small
    it is."""
    x = torch.zeros(1, 121, 121, dtype=torch.float64)
    x[0, 60, 60] = 1
    away = (torch.arange(121, dtype=torch.float64) - 60) ** 2
    for boundary in BOUNDARIES:
        for sigma in (0.01, 0.5, 4.0):
            blurred = Blurred(sigma, boundary=boundary).at(x, np.zeros(1))[0][0, 0]
            assert blurred.sum().item() == pytest.approx(1, abs=1e-12)
            assert (blurred.sum(0) @ away).item() == pytest.approx(sigma**2, rel=1e-9, abs=1e-8)
            assert (blurred.sum(1) @ away).item() == pytest.approx(sigma**2, rel=1e-9, abs=1e-8)


# -- the twin ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_equals_the_literal_twin(name: str, schedule: str, boundary: str) -> None:
    attributor = BlurIG(1.5, schedule, boundary, rule("trapezoid", 4))
    x = random(3, 1, 3)
    expected = oracle.blur_ig(flat(name), (x,), [0, 1], nodes(attributor), 1.5, schedule, boundary)
    np.testing.assert_allclose(found(attributor, flat(name), x)[0], expected[0], rtol=1e-11, atol=1e-12)


def test_equals_the_literal_twin_of_images_and_of_two_inputs() -> None:
    attributor = BlurIG(2.0, quadrature=rule("left", 3))
    for model, shapes in ((models.conv(), [(1, 6, 6)]), (Pair(), [(1, 3), (2, 2)])):
        x = tuple(random(2, *s, seed=i) for i, s in enumerate(shapes))
        for one, two in zip(
            found(attributor, model, *x), oracle.blur_ig(model, x, [0, 1], nodes(attributor), 2.0), strict=True
        ):
            np.testing.assert_allclose(one, two, rtol=1e-11, atol=1e-12)


@cache
def run(name: str) -> tuple[Any, np.ndarray, np.ndarray]:
    x = random(9, 1, 3)
    with torch.no_grad():
        y = flat(name)(torch.from_numpy(x)).numpy() + 0.5 * random(9, 2, seed=3)
    data = torch.from_numpy(x), torch.from_numpy(y)
    several = ["correlation", "autocorrelation", "moments"]
    return (
        igc_dist.attribute(flat(name), data, method="blur_ig", statistics=several, n_steps=6, n_folds=3, threads=1),
        x,
        y,
    )


@pytest.mark.parametrize("name", models.MODELS)
def test_runs_of_the_preset(name: str) -> None:
    """Samples as their twin has them, with sigma 1.5, half of the longer side; statistics are those of these; rho0 is
    that of f(blur x)."""
    tree, x, y = run(name)
    a = tree["samples/x/attribution"].values
    np.testing.assert_allclose(a,
    oracle.blur_ig(flat(name), (x,), [0, 1], nodes(BlurIG(quadrature=rule("midpoint", 6))), 1.5)[0],
                               rtol=1e-9, atol=1e-11)  # fmt: skip
    r = literal.predictions(flat(name), (x,), [0, 1])
    start = literal.predictions(flat(name), (np.stack([oracle.heat(one, 2.25, "reflect")[0] for one in x]),), [0, 1])
    for label, values in {
        "blur_igc": statistics.igc(a, y, r), "blur_ig_autocorrelation": statistics.igac(a, r),
        "blur_ig_mean": statistics.attribution_mean(a), "blur_ig_std": statistics.attribution_std(a),
    }.items():  # fmt: skip
        np.testing.assert_allclose(tree[f"x/{label}"].values, values, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(tree["baseline_term"], statistics.rho0(y, r, start), rtol=0, atol=1e-12)
    identity = tree["correlation"] - tree["baseline_term"] + tree["quadrature_error"]
    np.testing.assert_allclose(tree["blur_igc_sum"], identity, rtol=0, atol=1e-12)
    np.testing.assert_allclose(tree["blur_igc_sum"], statistics.igc(a, y, r).sum((1, 2)), rtol=0, atol=1e-12)
    cost = tree.attrs["cost"]
    assert (cost["forwards"], cost["gradient_evaluations"]) == (9 * 7, 9 * 6 * 2)


def test_the_dataset_wise_preset_folds_the_same() -> None:
    x = torch.from_numpy(random(9, 1, 3))
    y = flat("gelu")(x).detach()
    whole = {"n_steps": 6, "n_folds": 3, "threads": 1}
    tree = igc_dist.attribute(flat("gelu"), (x, y), method="blur_igc", **whole)
    assert "samples" not in tree.children
    a = oracle.blur_ig(flat("gelu"), (x.numpy(),), [0, 1], nodes(BlurIG(quadrature=rule("midpoint", 6))), 1.5)[0]
    np.testing.assert_allclose(tree["x/blur_igc"], statistics.igc(a, y.numpy(), y.numpy()), rtol=1e-9, atol=1e-11)


# -- closed forms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_closed_forms_and_completeness(schedule: str, boundary: str) -> None:
    """Linear: w (x - blur x). A sum over pixels of sin or of squares: sin x - sin(blur x), x^2 - (blur x)^2. Smooth:
    complete."""
    attributor = BlurIG(2.0, schedule, boundary, GAUSS)
    x = random(3, 1, 3)
    blurred = np.stack([oracle.heat(one, 4.0, boundary)[0] for one in x])
    w = models.linear().weight.detach().numpy()[:, None]
    np.testing.assert_allclose(found(attributor, flat("linear"), x)[0], w * (x - blurred)[:, None], rtol=0, atol=1e-11)
    a = found(attributor, sines(), x)[0]
    np.testing.assert_allclose(a[:, 0], np.sin(x) - np.sin(blurred), rtol=0, atol=1e-11)
    np.testing.assert_allclose(a[:, 1], x**2 - blurred**2, rtol=0, atol=1e-11)
    for name in ("quadratic", "gelu"):
        rise = literal.predictions(flat(name), (x,), [0, 1]) - literal.predictions(flat(name), (blurred,), [0, 1])
        np.testing.assert_allclose(found(attributor, flat(name), x)[0].sum((2, 3)), rise, rtol=0, atol=1e-10)
    x = random(2, 1, 6, 6)
    blurred = np.stack([oracle.heat(one, 4.0, boundary)[0] for one in x])
    rise = literal.predictions(models.conv(), (x,), [0, 1]) - literal.predictions(models.conv(), (blurred,), [0, 1])
    np.testing.assert_allclose(found(attributor, models.conv(), x)[0].sum((2, 3, 4)), rise, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_image_has_nothing_to_blur(dtype: Any) -> None:
    """Where edges reflect: 0, exactly. Where all is 0 outside its borders darken: complete, and finite."""
    model = models.conv() if dtype == np.float64 else models.conv().float()
    x = np.stack([np.full((1, 6, 6), value, dtype) for value in (0.0, 0.1, -7.3)])
    assert not found(BlurIG(), model, x)[0].any()
    a = found(BlurIG(boundary="zero", quadrature=GAUSS), model, x)[0]
    assert np.isfinite(a).all()
    assert (a[0] == 0).all()
    assert (a[1:] != 0).all()


def test_a_wide_blur_of_reflecting_edges_is_the_mean() -> None:
    """It starts at the mean colour of each channel, and the attributions of a linear model are w (x - mean)."""
    x = random(2, 1, 3)
    a = found(BlurIG(50.0, quadrature=rule("gauss_legendre", 200)), flat("linear"), x, size=200)[0]
    w = models.linear().weight.detach().numpy()[:, None]
    np.testing.assert_allclose(a, w * (x - x.mean((1, 2), keepdims=True))[:, None], rtol=0, atol=1e-9)


# -- acceptance (PAIR) -------------------------------------------------------------------------------------------------


def spots() -> np.ndarray:
    x = np.zeros((1, 5, 5))
    x[0, 1, 1], x[0, 2, 2] = 0.7, 1.0
    return x


@pytest.mark.parametrize("size", [1, 100, 500])
def test_acceptance_79_and_80(size: int) -> None:
    """sin(x) - sin(blur x) to two decimals, the blur by SciPy's Gaussian; the same whatever fits into a batch."""
    from scipy.ndimage import gaussian_filter

    attributor = BlurIG(10.0, boundary="zero", quadrature=rule("right", 100))
    a = found(attributor, sines(), spots(), size=size)[0][0, 0]
    expected = np.sin(spots()[0]) - np.sin(gaussian_filter(spots()[0], 10.0, mode="constant"))
    np.testing.assert_allclose(a, expected, rtol=0, atol=5e-3)
    np.testing.assert_allclose([a[1, 1], a[2, 2], a[0, 0]], [0.641528, 0.838776, -0.0026], rtol=0, atol=5e-3)
    fine = found(BlurIG(10.0, boundary="zero", quadrature=GAUSS), sines(), spots(), size=size)[0][0, 0]
    np.testing.assert_allclose([fine[1, 1], fine[2, 2], fine.sum()], [0.641528, 0.838776, 1.419642], rtol=0, atol=2e-4)
    np.testing.assert_allclose(a, found(attributor, sines(), spots(), size=7)[0][0, 0], rtol=0, atol=1e-14)


def test_acceptance_81() -> None:
    """PAIR's sqrt=True is equal steps in tau up to sigma = sqrt(max_sigma). Its total of .946 at batch size 1, here at
    any."""
    attributor = BlurIG(np.sqrt(10.0).item(), "tau", "zero", GAUSS)
    exact = (np.sin(spots()) - np.sin(oracle.heat(spots(), 10.0, "zero")[0])).sum()
    assert exact == pytest.approx(0.946, abs=0.01)
    for size in (1, 7, 40):
        assert found(attributor, sines(), spots(), size=size)[0][0, 0].sum() == pytest.approx(exact, abs=1e-12)


def test_acceptance_72() -> None:
    """2001 blurs in batches of 100 are 21 calls; and one more for the prediction at the blurred input."""
    model = models.Counted(sines())
    found(BlurIG(quadrature=rule("midpoint", 2001)), model, spots(), size=100)
    assert model.calls == -(-2001 // 100) + 1 == 22


# -- contract ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_batching_changes_nothing_but_rounding(size: int) -> None:
    model, x = models.conv(), random(4, 1, 6, 6)
    for schedule in SCHEDULES:
        attributor = BlurIG(3.0, schedule, quadrature=rule("midpoint", 5))
        whole = found(attributor, model, x)[0]
        np.testing.assert_allclose(found(attributor, model, x, size=size)[0], whole, rtol=1e-11, atol=1e-13)
        rows = [found(attributor, model, x[n : n + 1], size=size)[0] for n in range(4)]
        np.testing.assert_allclose(np.concatenate(rows), whole, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("size", [3, 64])
def test_costs_what_it_says(size: int) -> None:
    """K (F + J' V) of methods.md, and a row for the prediction at the blurred input."""
    attributor, model, seen = BlurIG(quadrature=rule("midpoint", 8)), models.Counted(models.conv()), []
    x = torch.from_numpy(random(3, 1, 6, 6))
    attributor.attribute(Model(model), (x,), (), [0, 1], share=1.0, size=size, watch=seen.append)
    price = attributor.price([(1, 6, 6)])
    assert (price.rows, price.gradients_per_output, price.rows_per_output, price.gradients) == (9, 8, 0, 0)
    assert model.forwards == sum(seen) == 3 * price.rows
    assert model.backwards == 3 * 2 * price.gradients_per_output
    assert max(seen) <= 3 * size


def test_it_notes_what_is_predicted_at_the_blurred_input() -> None:
    """Times the share, in float64, for the outputs that were asked for, in their order."""
    x, notes = torch.from_numpy(random(3, 1, 6, 6)), []
    BlurIG(2.0).attribute(
        Model(models.conv()), (x,), (), [1, 0], share=0.5, size=4, note=lambda **said: notes.append(said)
    )
    blurred = np.stack([oracle.heat(one, 4.0, "reflect")[0] for one in x.numpy()])
    (said,) = notes
    np.testing.assert_allclose(
        said["baseline_prediction"], 0.5 * literal.predictions(models.conv(), (blurred,), [1, 0]), rtol=1e-12
    )


@pytest.mark.parametrize("size", [1, 3, 64])
def test_as_a_host(size: int) -> None:
    """With the left rule its rises sum to f(x) - f(blur x), exactly, as it begins at the blurred input and closes with
    f(x)."""
    x, host = random(3, 1, 6, 6), BlurIG(2.0, quadrature=rule("left", 5))
    steps = host.steps(Task(Model(models.conv()), (torch.from_numpy(x),), (), [0, 1], share=1.0, size=size), ends=True)
    total = np.zeros((3, 2))
    for step, rise in host.rises(steps):
        total[:, step.output] += rise.sum(0).numpy()
    blurred = np.stack([oracle.heat(one, 4.0, "reflect")[0] for one in x])
    expected = literal.predictions(models.conv(), (x,), [0, 1]) - literal.predictions(models.conv(), (blurred,), [0, 1])
    np.testing.assert_allclose(total, expected, rtol=0, atol=1e-13)


def test_modes_and_rules() -> None:
    """Forward mode, which would not note the prediction, is not taken; auto asks the activations; a final layer changes
    nothing."""
    x = torch.from_numpy(random(6, 1, 6, 6))
    whole = {"method": "blur_igc", "n_steps": 4, "n_folds": 2, "threads": 1}
    with pytest.raises(ConfigError, match=r"plan.mode=forward is not possible"):
        igc_dist.attribute(models.conv(), (x, models.conv()(x).detach()), reduce=Patches(6), mode="forward", **whole)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.Tanh(), nn.Linear(3, 7)).double()
    y = torch.from_numpy(random(6, 7))
    one, two = (igc_dist.attribute(model, (x, y), final_layer=layer, **whole) for layer in (None, "3"))
    np.testing.assert_allclose(one["x/blur_igc"], two["x/blur_igc"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(one["baseline_term"], two["baseline_term"], rtol=1e-9, atol=1e-12)
    auto = BlurIG(quadrature=Auto())
    assert (auto.rule, auto.suited(lambda: False).rule, auto.suited(lambda: True).rule) == (
        "by the activations", "gauss_legendre-8", "midpoint-32"
    )  # fmt: skip
    with pytest.raises(TypeError, match="call suited"):
        auto.points([(2, 2)])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"sigma_max": 0.0}, r"method.attributor.sigma_max=0.0: give a width in pixels above 0"),
        ({"sigma_max": float("nan")}, r"sigma_max=nan: give a width"),
        ({"sigma_max": float("inf")}, r"sigma_max=inf: give a width"),
        ({"schedule": "sqrt"}, r"method.attributor.schedule='sqrt': choose one of sigma, tau"),
        ({"boundary": "constant"}, r"method.attributor.boundary='constant': choose one of reflect, zero"),
    ],
)
def test_bad_settings(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        BlurIG(**settings)


def test_bad_input() -> None:
    """A vector has no height and width; also one beside an image; categories have nothing between them."""
    x = torch.from_numpy(random(6, 3))
    with pytest.raises(ConfigError, match=r"at least two dimensions .* shape \(3,\): choose another method"):
        igc_dist.attribute(models.linear(), (x, models.linear()(x).detach()), method="blur_ig", threads=1)
    two = random(2, 3), random(2, 2, 2)
    with pytest.raises(ConfigError, match="at least two dimensions"):
        found(BlurIG(), models.TwoInputs(), *two)
    ids = torch.randint(0, 5, (6, 4), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ConfigError, match=r"'blur_ig' with categories.*nothing to blur.*name an embedding method"):
        igc_dist.attribute(models.Sequence(), (ids, torch.rand(6, 2)), method="blur_ig", categories=6, threads=1)


def test_the_widest_blur_by_itself() -> None:
    """Half of the longer side, and not more than 50 pixels."""
    assert [BlurIG().path(torch.Size(shape)).sigma_max for shape in ((1, 8, 6), (3, 5), (3, 224, 300))] == [
        4.0,
        2.5,
        50.0,
    ]
    assert BlurIG(7.0).path(torch.Size((8, 8))).sigma_max == 7.0
    x = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    one, two = (
        walk.attribute(Model(models.conv()), (x,), (), [0, 1], share=1.0, size=9)[0] for walk in (BlurIG(), BlurIG(3.0))
    )
    assert torch.equal(one, two)
