"""IDGI: its literal twin over every walk it may take, exact completeness at any number of steps, and steps without a
gradient."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import igc_dist
from igc_dist import baselines, config, seeds
from igc_dist.attributors import IDGI, IG2, Attributor, BlurIG, Gradients, GuidedIG, LeftIG, PathIntegral, Task
from igc_dist.model import Model
from igc_dist.paths import Grid, Stratified, rule
from igc_dist.records import ConfigError, NonFiniteError
from tests import models, problems
from tests.laws.test_attributors import attribute, per_sample, random
from tests.oracles import attributions as plain
from tests.oracles import blur, guided, ig2, statistics
from tests.oracles import idgi as oracle

KINDS = {IDGI}
PRESETS = {"idgi", "idgic", "idgi_guided_ig", "idgi_blur_ig", "idgi_ig2"}
FIVE = IDGI(n_steps=5)


def twin(
    model: nn.Module, x: tuple[np.ndarray, ...], x0: tuple[np.ndarray, ...], n_steps: int = 5
) -> tuple[np.ndarray, ...]:
    return oracle.idgi(
        model, x, per_sample(x0, len(x[0])), [0, 1], lambda start, point, _: oracle.straight(start, point, n_steps)
    )


def rise(model: nn.Module, x: np.ndarray, x0: np.ndarray) -> np.ndarray:
    """f(x) - mean_b f(x0_b), (N, J), for x0 (B, n or 1, P)."""
    with torch.no_grad():
        start = model(torch.from_numpy(x0).flatten(0, 1)).unflatten(0, x0.shape[:2])
        return (model(torch.from_numpy(x)) - start).numpy().mean(0)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("name", models.MODELS)
def test_equals_the_literal_twin(name: str, shared: bool) -> None:
    """Two baselines, shared by the samples or each its own."""
    model, x, x0 = models.MODELS[name](), random(4, 3), random(2, 1 if shared else 4, 3, seed=1)
    np.testing.assert_allclose(
        attribute(FIVE, model, (x,), (x0,))[0], twin(model, (x,), (x0,))[0], rtol=1e-11, atol=1e-13
    )


def test_equals_the_literal_twin_of_images_and_of_two_inputs() -> None:
    """The norm is over all features of all inputs."""
    for model, shapes in ((models.conv(), [(1, 6, 6)]), (models.TwoInputs(), [(3,), (2, 2)])):
        x, x0 = (
            tuple(random(2, *s, seed=i) for i, s in enumerate(shapes)),
            tuple(random(1, 2, *s, seed=9) for s in shapes),
        )
        for found, expected in zip(attribute(FIVE, model, x, x0), twin(model, x, x0), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)


# -- over other walks --------------------------------------------------------------------------------------------------

GUIDED, BLURRED, DESCENT = GuidedIG(6, 0.4, 0.3), BlurIG(sigma_max=2.5), IG2("1", n_steps=7, step_size=0.1)


def along_guided(model: nn.Module, start: oracle.Arrays, point: oracle.Arrays, k: int) -> oracle.Path:
    """Where the published loop takes its gradients, and the sample, where it ends."""
    seen: list[np.ndarray] = []
    cuts = np.cumsum([x.size for x in point])[:-1]

    def shaped(row: np.ndarray) -> oracle.Arrays:
        return tuple(part.reshape(x.shape) for part, x in zip(np.split(row, cuts), point, strict=True))

    def grad(here: np.ndarray) -> np.ndarray:
        seen.append(here.copy())
        return np.concatenate([g.ravel() for g in plain.gradient(model, shaped(here), k)])

    ends = (np.concatenate([np.ravel(part) for part in end]) for end in (point, start))
    guided.path(grad, *ends, GUIDED.n_steps, GUIDED.fraction, GUIDED.max_dist)
    return [*map(shaped, seen), point]


def along_blur(point: oracle.Arrays, n_steps: int) -> oracle.Path:
    taus = [(BLURRED.sigma_max * (1 - m / n_steps)) ** 2 for m in range(n_steps + 1)]
    return [tuple(blur.heat(x, tau, BLURRED.boundary)[0] for x in point) for tau in taus]


def over_ig2(model: nn.Module, x: np.ndarray, x0: np.ndarray) -> np.ndarray:
    """Each step gives what the output falls over it, by the gradient where it begins, which is the end nearer to x."""
    phi = lambda row: model[1](model[0](row))  # noqa: E731
    paths = [
        [ig2.grad_path(phi, (x[n],), (x0[b, n],), 7, 0.1, None, 1e-12, 0.0)[0] for b in range(len(x0))]
        for n in range(len(x))
    ]
    return np.array(
        [[np.mean([-oracle.along(model, path, j)[0] for path in of_n], axis=0) for j in (0, 1)] for of_n in paths]
    )


@pytest.mark.parametrize("name", models.MODELS)
def test_over_guided_ig(name: str) -> None:
    """The points of the published loop, and the last difference, which leads to x (defect T3 of the study)."""
    model, x, x0, idgi = models.MODELS[name](), random(4, 3), random(2, 4, 3, seed=1), IDGI(GUIDED)
    (found,) = attribute(idgi, model, (x,), (x0,))
    (expected,) = oracle.idgi(
        model, (x,), per_sample((x0,), 4), [0, 1], lambda start, point, k: along_guided(model, start, point, k)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.sum(-1), rise(model, x, x0), rtol=0, atol=1e-14)
    np.testing.assert_allclose(attribute(idgi, model, (x,), (x0,), size=3)[0], found, rtol=1e-9, atol=1e-12)


def test_over_guided_ig_of_two_inputs() -> None:
    model, idgi = models.TwoInputs(), IDGI(GUIDED)
    x, x0 = (random(2, 3), random(2, 2, 2)), (random(1, 2, 3, seed=1), random(1, 2, 2, 2, seed=2))
    expected = oracle.idgi(
        model, x, per_sample(x0, 2), [0, 1], lambda start, point, k: along_guided(model, start, point, k)
    )
    for found, one in zip(attribute(idgi, model, x, x0), expected, strict=True):
        np.testing.assert_allclose(found, one, rtol=1e-9, atol=1e-12)


def test_over_blur_ig() -> None:
    """From the blurred image to the image; there is no other baseline."""
    model, x, idgi = models.conv(), random(3, 1, 6, 6), IDGI(BLURRED, n_steps=5)
    nowhere = [[(np.zeros((1, 6, 6)),)]] * 3
    (expected,) = oracle.idgi(model, (x,), nowhere, [0, 1], lambda _, point, __: along_blur(point, 5))
    for size in (2, 64):
        np.testing.assert_allclose(attribute(idgi, model, (x,), (), size=size)[0], expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", ["gelu", "relu"])
def test_over_ig2(name: str) -> None:
    """Outwards, from x to GradCF of each reference."""
    model, x, x0, idgi = models.MODELS[name](), random(4, 3), random(2, 4, 3, seed=1), IDGI(DESCENT)
    for size in (1, 64):
        np.testing.assert_allclose(
            attribute(idgi, model, (x,), (x0,), size=size)[0], over_ig2(model, x, x0), rtol=1e-8, atol=1e-12
        )


@pytest.mark.parametrize("preset", ["idgi_guided_ig", "idgi_blur_ig", "idgi_ig2"])
def test_runs_over_other_walks(preset: str) -> None:
    """Complete to rounding, by what the model predicts where the walk begins; and so is the correlation."""
    walk: Attributor = {
        "idgi_guided_ig": IDGI(GUIDED),
        "idgi_blur_ig": IDGI(BLURRED, n_steps=5),
        "idgi_ig2": IDGI(DESCENT),
    }[preset]
    model, shape = (models.conv(), (1, 6, 6)) if preset == "idgi_blur_ig" else (models.mlp(nn.GELU), (3,))
    x, y = models.data(model, 8, (shape,))
    drawn = torch.from_numpy(random(2, *shape))
    tree = igc_dist.attribute(
        model, (x, y), method=preset, attributor=walk, baseline=drawn if walk.baselines else None,
        statistics=["correlation"],
        samples=True, n_folds=3, micro_batch=3, threads=1,
    )  # fmt: skip
    xs, x0 = x.numpy(), drawn[:, None].expand(2, 8, *shape).numpy()
    expected = {
        "idgi_guided_ig": lambda: oracle.idgi(
            model, (xs,), per_sample((x0,), 8), [0, 1], lambda a, b, k: along_guided(model, a, b, k)
        )[0],
        "idgi_blur_ig": lambda: oracle.idgi(
            model, (xs,), [[(0 * xs[0],)]] * 8, [0, 1], lambda _, b, __: along_blur(b, 5)
        )[0],
        "idgi_ig2": lambda: over_ig2(model, xs, x0),
    }[preset]()
    np.testing.assert_allclose(tree["samples/x/attribution"], expected, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(tree["samples/delta"], 0, rtol=0, atol=1e-13)
    label = f"{preset}c"
    np.testing.assert_allclose(
        tree[f"x/{label}"],
        statistics.igc(expected, y.numpy(), tree["samples/prediction"].values),
        rtol=1e-7,
        atol=1e-10,
    )
    rho0 = statistics.rho0(y.numpy(), tree["samples/prediction"].values, tree["samples/prediction_baseline"].values)
    np.testing.assert_allclose(tree[f"{label}_sum"], tree["correlation"] - rho0, rtol=0, atol=1e-12)
    assert ("failed" in tree["samples"]) == (preset == "idgi_ig2")
    built = config.build_attributor(config.preset(preset).attributor, rule("midpoint", 4))
    assert (built.name, type(built.attributor)) == (preset, type(walk.attributor))
    assert getattr(built.attributor, "quadrature", rule("left", 128)) == rule("left", 128)


@pytest.mark.parametrize("walk", [GUIDED, BLURRED, DESCENT], ids=["guided_ig", "blur_ig", "ig2"])
def test_costs_what_it_says_over_other_walks(walk: Any) -> None:
    """Rows and gradients of the walk, and the prediction where it ends, which IG² has anyway."""
    idgi = IDGI(walk, n_steps=5) if walk is BLURRED else IDGI(walk)
    shape = (1, 6, 6) if walk is BLURRED else (3,)
    counted = models.Counted(models.conv() if walk is BLURRED else models.mlp(nn.GELU))
    x, x0 = torch.from_numpy(random(4, *shape)), torch.from_numpy(random(2, 4, *shape, seed=1))
    if walk is DESCENT:
        idgi = IDGI(replace(walk, layer="module.1"))
    seen: list[int] = []
    baselines_ = (x0,) if walk.baselines else ()
    idgi.attribute(Model(counted), (x,), baselines_, [0, 1], share=0.5, size=8, watch=seen.append)
    mine, of_walk, pairs = idgi.price([shape]), idgi.attributor.price([shape]), 4 * (2 if walk.baselines else 1)
    assert mine.rows == of_walk.rows + (walk is not DESCENT)
    assert counted.forwards == sum(seen) == pairs * (mine.rows + 2 * mine.rows_per_output)
    assert counted.backwards == pairs * (mine.gradients + 2 * mine.gradients_per_output)


# -- runs --------------------------------------------------------------------------------------------------------------


@cache
def ran(name: str, baseline: str) -> tuple[nn.Module, Any, Any, Any]:
    """A run of the preset with every statistic, and what went in."""
    model = models.MODELS[name]()
    x, y = models.data(model, 11)
    drawn = {
        "two shared": torch.tensor([[0.3, -0.2, 0.5], [-0.1, 0.4, 0.2]], dtype=torch.float64),
        "resampled": baselines.Resampled(2),
    }[baseline]
    tree = igc_dist.attribute(
        model, (x, y), method="idgic", attributor=FIVE, baseline=drawn,
        statistics=["correlation", "autocorrelation", "moments"],
        samples=True, n_folds=3, seed=5, threads=1,
    )  # fmt: skip
    if baseline == "two shared":
        return tree, model, x.numpy(), (y.numpy(), drawn[:, None].expand(2, 11, 3).numpy())
    picks = [seeds.generator(5, n, "baselines.resampled").choice(np.arange(11), 2, replace=False) for n in range(11)]
    return tree, model, x.numpy(), (y.numpy(), np.array([x.numpy()[p] for p in picks]).transpose(1, 0, 2))


@pytest.mark.parametrize(
    ("name", "baseline"), [(name, "two shared") for name in models.MODELS] + [("relu", "resampled")]
)
def test_runs_equal_the_literal_twin(name: str, baseline: str) -> None:
    """By sample and over the data set; the sum over features is the correlation less the baseline term, to rounding."""
    tree, model, x, (y, x0) = ran(name, baseline)
    (a,) = twin(model, (x,), (x0,))
    np.testing.assert_allclose(tree["samples/x/attribution"], a, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(tree["samples/delta"], 0, rtol=0, atol=1e-13)
    r = plain.predictions(model, (x,), [0, 1])
    np.testing.assert_allclose(tree["x/idgic"], statistics.igc(a, y, r), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(tree["x/idgi_autocorrelation"], statistics.igac(a, r), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(tree["x/idgi_mean"], statistics.attribution_mean(a), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(tree["x/idgi_std"], statistics.attribution_std(a), rtol=1e-10, atol=1e-13)
    rho0 = statistics.rho0(y, r, plain.baseline_predictions(model, per_sample((x0,), 11), [0, 1]))
    np.testing.assert_allclose(tree["idgic_sum"], tree["correlation"] - rho0, rtol=0, atol=1e-13)


@pytest.mark.parametrize("preset", ["idgi", "idgic"])
def test_presets(preset: str) -> None:
    """128 steps of Integrated Gradients, each with its gradient where it begins, whatever rule the run has."""
    for quadrature in (rule("midpoint", 4), None):
        built = config.build_attributor(config.preset(preset).attributor, quadrature)
        assert built == IDGI(n_steps=128)
        assert (built.rule, len(built.attributor.sampling), built.name) == ("left-128", 128, "idgi")
    assert IDGI().rule == "left-128"


def test_closed_forms() -> None:
    """One step: all of the rise, by the gradient at the baseline. Linear: w_i**2 / |w|**2 of it, at any number of
    steps."""
    x, x0, model = random(5, 3), random(1, 1, 3, seed=1), models.linear()
    w = model.weight.detach().numpy()
    expected = rise(model, x, x0)[..., None] * w**2 / (w**2).sum(1, keepdims=True)
    for n in (1, 7):
        np.testing.assert_allclose(attribute(IDGI(n_steps=n), model, (x,), (x0,))[0], expected, rtol=1e-12, atol=1e-14)
    model = models.Quadratic()
    g = np.einsum("kij,j->ki", model.Q.detach().numpy(), x0[0, 0])
    expected = rise(model, x, x0)[..., None] * g**2 / (g**2).sum(1, keepdims=True)
    np.testing.assert_allclose(attribute(IDGI(n_steps=1), model, (x,), (x0,))[0], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("n_steps", [1, 2, 8, 16, 32, 64, 128, 300])
def test_complete_to_rounding_at_any_number_of_steps(n_steps: int) -> None:
    """The steps lead to x itself, however many there are: the path does not end early (defect T1 of the study)."""
    model, x, x0 = models.mlp(nn.ReLU), random(6, 3), random(2, 6, 3, seed=1)
    idgi = IDGI(n_steps=n_steps)
    np.testing.assert_allclose(attribute(idgi, model, (x,), (x0,))[0].sum(-1), rise(model, x, x0), rtol=0, atol=1e-14)
    one = tuple(torch.from_numpy(v) for v in (x, x0[:1]))
    walk = idgi.attributor
    steps = list(walk.steps(Task(Model(model), one[:1], one[1:], [0, 1], share=1.0, size=7), ends=True))
    for j in (0, 1):
        values = torch.cat([step.value for step in steps if step.output == j])
        assert values.shape == (n_steps + 1, 6)
        with torch.no_grad():
            np.testing.assert_allclose(
                values[[0, -1]], torch.stack((model(one[1][0]), model(one[0])))[..., j], rtol=0, atol=1e-15
            )
    risen = sum(rises.sum(0) for step, rises in walk.rises(iter(steps)) if step.output == 0)
    np.testing.assert_allclose(risen, rise(model, x, x0[:1])[:, 0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("size", [1, 3])
def test_batching_changes_nothing_but_rounding(size: int) -> None:
    """Points of a forward pass, samples of a batch and blocks of baselines."""
    model, x, x0 = models.mlp(nn.GELU), random(6, 3), random(3, 6, 3, seed=1)
    whole = attribute(FIVE, model, (x,), (x0,))[0]
    np.testing.assert_allclose(
        attribute(FIVE, model, (x,), (x0,), size=size, blocks=2)[0], whole, rtol=1e-12, atol=1e-14
    )
    alone = [attribute(FIVE, model, (x[n : n + 1],), (x0[:, n : n + 1],), size=size)[0] for n in range(6)]
    np.testing.assert_allclose(np.concatenate(alone), whole, rtol=1e-12, atol=1e-14)


def test_steps_without_a_gradient_are_left_out_and_said() -> None:
    """relu(x1 + x2 - 1) from 0 in four steps: dead up to the kink, whose step has no gradient where it begins. No NaN
    (defect T5)."""
    model = models.Function(lambda x: torch.relu(x.sum(1) - 1)[:, None].expand(-1, 2))
    x = torch.tensor([[0.6, 1.0], [0.2, 0.2], [0.0, 0.0], [4.0, 4.0]], dtype=torch.float64)
    tree = igc_dist.attribute(
        model, (x, torch.zeros(4, 2)), method="idgi", attributor=IDGI(n_steps=4), threads=1, n_folds=2
    )
    # at 0, .4, .8, 1.2, 1.6: the step from .8 rises .2 to nobody, that from 1.2 rises .4; at 0, 2, ...: the first rises
    # 1 to nobody
    np.testing.assert_allclose(
        tree["samples/x/attribution"][:, 0], [[0.2, 0.2], [0, 0], [0, 0], [3, 3]], rtol=1e-12, atol=1e-15
    )
    np.testing.assert_allclose(tree["samples/delta"][:, 0], [-0.2, 0, 0, -1], rtol=1e-12, atol=1e-15)
    # another output, which does not depend on x at all
    still = models.Function(lambda x: torch.stack((x[:, 0] * 0 + 3, x[:, 1]), 1))
    found = attribute(FIVE, still, (random(3, 2),), (np.zeros((1, 1, 2)),))[0]
    np.testing.assert_array_equal(found[:, 0], 0)
    assert (found[:, 1, 1] != 0).all()


def test_nothing_on_the_baseline() -> None:
    """x = x0: steps of no length, which do not rise."""
    x = random(3, 3)
    for name in models.MODELS:
        np.testing.assert_allclose(attribute(FIVE, models.MODELS[name](), (x,), (x[None],))[0], 0, rtol=0, atol=1e-15)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_squares_neither_vanish_nor_overflow(scale: float) -> None:
    """Gradients of 1e-30 and 1e30 in float32, whose squares are no numbers of it; and their like in float64."""
    w = np.array([1.0, -2.0, 2.0])
    for kind, size in ((np.float32, scale), (np.float64, scale**9)):
        model = models.Function(lambda x: size * (x @ torch.from_numpy(w).to(x))[:, None].expand(-1, 2))  # noqa: B023
        x, x0 = random(4, 3).astype(kind), np.zeros((1, 1, 3), kind)
        (found,) = attribute(FIVE, model, (x,), (x0,))
        assert found.dtype == kind
        np.testing.assert_allclose(found, (size * (x @ w)[:, None] * w**2 / 9)[:, None].repeat(2, 1), rtol=1e-5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_gradient_that_is_not_finite_is_its_own_sample_s(bad: float) -> None:
    """All of that sample is NaN, and nothing of the others; a run ends, or leaves it out and says so."""

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x.sum(1, keepdim=True).expand(-1, 2).clone()

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            (x,) = ctx.saved_tensors
            broken = torch.where((x[:, :1] > 2) & (torch.arange(x.shape[1]) == 1), bad, 1.0)
            return grad.sum(1, keepdim=True) * broken

    model = models.Function(Broken.apply)
    x = np.array([[1.0, 1], [3, 1], [2, 5]])
    (found,) = attribute(FIVE, model, (x,), (np.zeros((1, 1, 2)),))
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(found[[0, 2]], np.array([[1, 1], [3.5, 3.5]])[:, None].repeat(2, 1), rtol=1e-12)
    if bad == torch.inf:
        return
    data = torch.from_numpy(x), torch.zeros(3, 2)
    with pytest.raises(NonFiniteError, match="sample 1 has NaN or infinity"):
        igc_dist.attribute(model, data, method="idgi", attributor=FIVE, threads=1)
    tree = igc_dist.attribute(model, data, method="idgi", attributor=FIVE, threads=1, on_nonfinite="skip")
    assert tree.attrs["skipped"] == [{"index": 1, "reason": "NaN or infinity in its gradient"}]


@pytest.mark.parametrize("outputs", [[0], [1, 0, 1]])
def test_costs_what_it_says(outputs: list[int]) -> None:
    """K + 1 rows, and K gradients for each output, of each sample and baseline: K F + (K - 1) J V with K points."""
    counted = models.Counted(models.TwoInputs())
    x, x0 = (random(4, 3), random(4, 2, 2)), (random(2, 1, 3), random(2, 1, 2, 2))
    seen: list[int] = []
    tensors = [tuple(torch.from_numpy(v) for v in some) for some in (x, x0)]
    FIVE.attribute(Model(counted), *tensors, outputs, share=0.5, size=3, watch=seen.append)
    price = FIVE.price([(3,), (2, 2)])
    assert (price.rows, price.rows_per_output, price.gradients, price.gradients_per_output) == (6, 0, 0, 5)
    assert counted.forwards == sum(seen) == 4 * 2 * price.rows
    assert counted.backwards == 4 * 2 * len(outputs) * price.gradients_per_output
    assert max(seen) <= 3 * 4


def test_runs_count_it() -> None:
    """The plan says what is done: 128 steps."""
    tree = igc_dist.attribute(models.linear(), models.data(models.linear()), method="idgic", threads=1)
    assert (tree.attrs["cost"]["forwards"], tree.attrs["cost"]["gradient_evaluations"]) == (12 * 129, 12 * 128 * 2)


def test_a_final_layer_changes_nothing() -> None:
    """The attributions of f = W z are not W times those of z, so outputs are walked themselves."""
    given: dict[str, Any] = {"method": "idgi", "attributor": FIVE, "threads": 1, "n_folds": 2}
    found, plain_ = (
        igc_dist.attribute(problems.wide(), problems.Wide(), final_layer=layer, **given) for layer in ("layer", None)
    )
    np.testing.assert_allclose(found["samples/x/attribution"], plain_["samples/x/attribution"], rtol=1e-10, atol=1e-13)


def test_refuses() -> None:
    """Walks without an end, drawn nodes, and steps that are none."""
    for walk in (Gradients(), LeftIG()):
        with pytest.raises(ConfigError, match=r"IDGI needs a complete walk, such as PathIntegral.*give one"):
            IDGI(walk)
    with pytest.raises(
        ConfigError, match=r"the walk of 'guided_ig' makes its own steps, set method.attributor.attributor.n_steps"
    ):
        IDGI(GUIDED, n_steps=5)
    for design in (Stratified(4), Grid(rule("left", 4))):
        with pytest.raises(ConfigError, match=r"nodes that are drawn.*take design=grid"):
            IDGI(PathIntegral(design=design))
    for n in (0, True):
        with pytest.raises(ConfigError, match=r"method.attributor.n_steps=.*give an integer of at least 1"):
            IDGI(n_steps=n)
    with pytest.raises(ConfigError, match="take design=grid"):
        igc_dist.attribute(
            models.linear(), models.data(models.linear()), method="idgic", design="stratified", threads=1
        )
