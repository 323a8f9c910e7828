"""IG²: equal to two literal loops, complete to first order, in the user's units; what ends a path, what it costs, what
is refused."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import igc_dist
from igc_dist import baselines, seeds
from igc_dist.attributors import IG2, SmoothGrad, Task
from igc_dist.model import Model
from igc_dist.records import ConfigError
from tests import models
from tests.oracles import attributions, statistics
from tests.oracles import ig2 as oracle
from tests.ranks import Net

KINDS = {IG2}
PRESETS = {"ig2", "ig2c"}

Arrays = tuple[np.ndarray, ...]
OUTPUTS = [0, 1]


class Led(nn.Module):
    """A model and a representation of its inputs that its forward calls."""

    def __init__(self, model: nn.Module, phi: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        mix = torch.from_numpy(random(3, 4, seed=3)) / 2
        self.model, self.lead = model, phi or (lambda x: torch.tanh(x @ mix))

    def encode(self, x: Tensor) -> Tensor:
        return self.lead(x)

    def forward(self, x: Tensor) -> Tensor:
        self.encode(x)
        return self.model(x)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def starts(x0: Arrays, n: int) -> list[list[Arrays]]:
    """(B, n or 1, *P) arrays as the oracle takes them."""
    return [[tuple(v[b, k if v.shape[1] > 1 else 0] for v in x0) for b in range(len(x0[0]))] for k in range(n)]


def attribute(
    attributor: IG2,
    model: nn.Module | Model,
    x: Arrays,
    x0: Arrays,
    size: int = 64,
    outputs: list[int] | None = None,
    **settings: Any,
) -> oracle.Walked:
    """The package's attributions, and what it notes."""
    notes: list[dict[str, Any]] = []
    values = attributor.attribute(
        model if isinstance(model, Model) else Model(model),
        tuple(map(torch.from_numpy, x)),
        tuple(map(torch.from_numpy, x0)),
        OUTPUTS if outputs is None else outputs,
        share=1 / len(x0[0]),
        size=size,
        note=lambda **note: notes.append(note),
        **settings,
    )
    ends, taken = (sum(note[name] for note in notes) for name in ("baseline_prediction", "evaluations"))
    failed = np.any([note["failed"] for note in notes], axis=0)
    assert (failed == failed[:, :1]).all()
    assert (taken == taken[:, :1]).all()
    return oracle.Walked(tuple(v.numpy() for v in values), ends.numpy(), failed[:, 0], taken[:, 0])


def assert_equal(found: oracle.Walked, expected: oracle.Walked, rtol: float = 1e-10, atol: float = 1e-12) -> None:
    for one, two in zip(found.values, expected.values, strict=True):
        assert one.shape == two.shape
        np.testing.assert_allclose(one, two, rtol=rtol, atol=atol)
    np.testing.assert_allclose(found.ends, expected.ends, rtol=rtol, atol=atol)
    np.testing.assert_array_equal(found.failed, expected.failed)
    np.testing.assert_array_equal(found.taken, expected.taken)


# -- the literal twin --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("name", models.MODELS)
def test_equals_the_literal_twin(name: str, shared: bool) -> None:
    """With two references, shared by the samples or each its own; with clipping, and with an early stop."""
    model, x, x0 = Led(models.MODELS[name]()), (random(4, 3),), (random(2, 1 if shared else 4, 3, seed=1),)
    for settings in (
        {"n_steps": 12, "step_size": 0.07},
        {"n_steps": 9, "step_size": 0.3, "clip": (-0.9, 0.8), "stop": 0.3},
    ):
        found = attribute(IG2("encode", **settings), model, x, x0)
        assert_equal(found, oracle.ig2(model, model.encode, x, starts(x0, 4), OUTPUTS, **settings))


def test_equals_the_literal_twin_of_images_and_of_two_inputs() -> None:
    """Features of any shape; the norm of a step is over those of all inputs together."""
    conv, two = models.conv(), models.TwoInputs()
    of_two = lambda a, b: torch.tanh(two.one(a)) * torch.sigmoid(two.two(b.flatten(1)))  # noqa: E731
    for model, layer, phi, shapes in (
        (conv, "6.input", conv[:6], [(1, 6, 6)]),
        (two, "last.input", of_two, [(3,), (2, 2)]),
    ):
        x, x0 = (
            tuple(random(2, *s, seed=i) for i, s in enumerate(shapes)),
            tuple(random(2, 2, *s, seed=9) for s in shapes),
        )
        found = attribute(IG2(layer, n_steps=8, step_size=0.1), model, x, x0)
        assert_equal(found, oracle.ig2(model, phi, x, starts(x0, 2), OUTPUTS, 8, 0.1))


@pytest.mark.parametrize("name", models.MODELS)
def test_dataset_wise(name: str) -> None:
    """Correlation, auto-correlation and moments of these attributions; they sum to the correlation less that of
    f(GradCF), and a rest."""
    model = Led(models.MODELS[name]())
    x, y = models.data(model, 9)
    data, settings = (x, y), {"n_steps": 6, "step_size": 0.1}
    tree = igc_dist.attribute(
        model, data, method="ig2c", attributor=IG2("encode", **settings), baseline=baselines.Resampled(2), n_folds=2,
        seed=5,
        statistics=["correlation", "autocorrelation", "moments"], samples=True,
    )  # fmt: skip
    x0 = [
        [(x[r].numpy(),) for r in seeds.generator(5, n, "baselines.resampled").choice(9, 2, replace=False)]
        for n in range(9)
    ]
    twin = oracle.ig2(model, model.encode, (x.numpy(),), x0, OUTPUTS, **settings)
    (a,), r, y_NJ = twin.values, attributions.predictions(model, (x.numpy(),), OUTPUTS), y.numpy()
    close = lambda path, values: np.testing.assert_allclose(tree[path], values, rtol=1e-9, atol=1e-12, err_msg=path)  # noqa: E731
    close("samples/x/attribution", a)
    close("samples/prediction_baseline", twin.ends)
    np.testing.assert_array_equal(tree["samples/evaluations"], np.stack([twin.taken] * 2, 1))
    assert not tree["failed"].any()
    close("x/ig2c", statistics.igc(a, y_NJ, r))
    close("x/ig2_autocorrelation", statistics.igac(a, r))
    close("x/ig2_mean", statistics.attribution_mean(a))
    close("x/ig2_std", statistics.attribution_std(a))
    rho0 = statistics.rho0(y_NJ, r, twin.ends)
    close("baseline_term", rho0)
    first_order = statistics.rho0(y_NJ, r, a.sum(2) - (r - twin.ends))  # the covariance of what completeness leaves
    close("ig2c_sum", statistics.correlations(y_NJ, r) - rho0 + first_order)
    close("quadrature_error", first_order)
    assert abs(rho0).min() > 1e-3  # not 0 on average, so it is reported
    assert abs(first_order).max() < (1e-12 if name == "linear" else 0.2 * abs(rho0).max())


@cache
def of_preset() -> tuple[Any, Any, nn.Module, Tensor, np.ndarray]:
    """The presets on a tiny net with labels, towards three references of other labels each."""
    model = Net().double()
    x = torch.from_numpy(random(6, 5, seed=4))
    label = np.arange(6) % 2
    settings = {"baseline": baselines.References(2), "n_folds": 1, "seed": 3, "threads": 1}
    per_sample, folded = (
        igc_dist.attribute(model, (x, torch.from_numpy(label)), method=name, **settings) for name in ("ig2", "ig2c")
    )
    return per_sample, folded, model, x, label


@pytest.mark.slow
def test_presets() -> None:
    """The settings of the files, and references at their documented address."""
    per_sample, folded, model, x, label = of_preset()
    orders = [seeds.generator(3, n, "baselines.references").permutation(6) for n in range(6)]
    x0 = [[(x[r].numpy(),) for r in [r for r in order if label[r] != label[n]][:2]] for n, order in enumerate(orders)]
    twin = oracle.ig2(model, lambda x: torch.tanh(model.hidden(x)), (x.numpy(),), x0, OUTPUTS, 201, 0.02, stop=0.01)
    (a,), y = twin.values, np.eye(2)[label]
    np.testing.assert_allclose(per_sample["samples/x/attribution"], a, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(
        folded["x/ig2c"], statistics.igc(a, y, attributions.predictions(model, (x.numpy(),), OUTPUTS)), rtol=1e-6
    )
    assert "samples" not in folded.children
    cost = {"forwards": 6 * 2 * 203, "gradient_evaluations": 6 * 2 * 201 * 3}  # at most
    assert {name: per_sample.attrs["cost"][name] for name in cost} == cost


# -- closed forms ------------------------------------------------------------------------------------------------------


def test_closed_forms() -> None:
    """phi(x) = x leads straight to the reference: linear f, ``w (x - x_T)``; quadratic, ``h u * Q (T x - h u T (T - 1)
    / 2)``."""
    x, x0, steps, h = random(5, 3), random(1, 1, 3, seed=1), 10, 0.02
    u = (x - x0[0]) / np.linalg.norm(x - x0[0], axis=1, keepdims=True)
    end = x - steps * h * u
    for name in ("linear", "quadratic"):
        model = Led(models.MODELS[name](), lambda x: x)
        found = attribute(IG2("encode", steps, h), model, (x,), (x0,))
        if name == "linear":
            expected = model.model.weight.detach().numpy() * (x - end)[:, None]
        else:
            q = model.model.Q.detach().numpy()
            expected = h * u[:, None] * np.einsum("kij,nj->nki", q, steps * x - h * u * steps * (steps - 1) / 2)
        np.testing.assert_allclose(found.values[0], expected, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(found.ends, attributions.predictions(model, (end,), OUTPUTS), rtol=1e-11, atol=1e-13)


def test_complete_to_first_order() -> None:
    """The sum is f(x) - f(GradCF), up to a rest that halves with the length of the steps; none where f is linear."""
    x, x0, rest = (random(4, 3),), (random(2, 1, 3, seed=1),), []
    for parts in (1, 2, 4):
        model = Led(models.mlp(nn.GELU))
        found = attribute(IG2("encode", 10 * parts, 0.1 / parts), model, x, x0)
        rest.append(abs(found.values[0].sum(2) - attributions.predictions(model, x, OUTPUTS) + found.ends).mean())
    assert 0.4 < rest[1] / rest[0] < 0.6
    assert 0.4 < rest[2] / rest[1] < 0.6
    model = Led(models.linear())
    found = attribute(IG2("encode", 10, 0.1), model, x, x0)
    np.testing.assert_allclose(
        found.values[0].sum(2), attributions.predictions(model, x, OUTPUTS) - found.ends, rtol=0, atol=1e-12
    )


def test_rises_of_the_steps_sum_to_that_of_the_walk() -> None:
    """Outwards, so the walk rises from GradCF; to rounding, also of a path that has ended before the others."""
    model, x, x0 = Led(models.mlp(nn.GELU)), random(4, 3), random(1, 4, 3, seed=1)
    x0[0, 2] = x[2]
    notes: list[Any] = []
    walk = IG2("encode", 15, 0.1, stop=0.3)
    steps = walk.steps(
        Task(
            Model(model),
            (torch.from_numpy(x),),
            (torch.from_numpy(x0),),
            OUTPUTS,
            share=1.0,
            size=2,
            note=lambda **note: notes.append(note),
        ),
        ends=True,
    )
    total, at = np.zeros((4, 2)), [x.copy(), x.copy()]
    for step, rise in walk.rises(steps):
        here = attributions.predictions(model, (at[step.output],), OUTPUTS)[:, step.output]
        np.testing.assert_allclose(step.value[0], here, rtol=1e-12, atol=1e-14)
        at[step.output] -= step.moves[0][0].numpy()
        assert step.gradients[0].shape == step.moves[0].shape == (1, 4, 3)
        total[:, step.output] += rise.sum(0).numpy()
    (note,) = notes
    assert len(set(note["evaluations"][:, 0].tolist())) > 2  # they end one by one
    end = note["baseline_prediction"].numpy()
    np.testing.assert_allclose(total, attributions.predictions(model, (x,), OUTPUTS) - end, rtol=0, atol=1e-13)
    np.testing.assert_allclose(total[2], 0, atol=1e-14)


# -- where a path ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", models.MODELS)
def test_nothing_at_the_reference(name: str) -> None:
    """x is its reference: it stays, without a failure; so it does where rounding makes them differ, and in float32."""
    x = random(3, 3)
    model = Led(models.MODELS[name]())
    found = attribute(IG2("encode", 5), model, (x,), (x[None],))
    assert not (found.values[0].any())
    assert not (found.failed.any())
    assert not (found.taken.any())
    np.testing.assert_allclose(found.ends, attributions.predictions(model, (x,), OUTPUTS), rtol=1e-14)
    single, lead = models.mlp(nn.Tanh).float(), x.astype(np.float32)
    near = (lead * (1 + 1e-7))[None].astype(np.float32)
    assert not attribute(IG2("2.input", 5), single, (lead,), (near,)).taken.any()


def test_a_path_that_cannot_move_has_failed() -> None:
    """Dead units, a saturated representation, and a corner of the range: 0, no NaN, and said to have failed."""
    x, x0 = random(3, 3) - 9, random(1, 1, 3, seed=1) + 9
    for model, settings in (
        (Led(models.linear(), torch.relu), {}),
        (Led(models.linear(), lambda x: torch.tanh(9 * x)), {}),
        (Led(models.linear(), lambda x: x), {"clip": (-20.0, -9.0)}),
    ):
        at = np.full((3, 3), -9.0) if settings else x
        found = attribute(IG2("encode", 5, **settings), model, (at,), (x0,))
        assert found.failed.all()
        assert not (found.values[0].any())
        assert not (found.taken.any())
        assert np.isfinite(found.ends).all()
    one = attribute(IG2("encode", 5), Led(models.linear(), torch.relu), (np.concatenate((x, abs(x))),), (x0,))
    assert one.failed.tolist() == [True] * 3 + [False] * 3
    assert one.taken.tolist() == [0] * 3 + [5] * 3


def test_an_early_stop_leaves_the_others_alone() -> None:
    """A path that ends saves its rows; those of the other samples are what they were."""
    model, x, x0 = Led(models.mlp(nn.GELU)), random(6, 3), random(2, 6, 3, seed=1)
    x0[:, 4] = 1e3  # of a representation that is not reached
    counted = models.Counted(model)
    found = attribute(IG2("module.encode", 30, 0.05, stop=0.1), counted, (x,), (x0,))
    assert_equal(found, oracle.ig2(model, model.encode, (x,), starts((x0,), 6), OUTPUTS, 30, 0.05, stop=0.1))
    assert found.taken[4] == 60 > found.taken.min()
    ended = counted.forwards - 2 * 12 - found.taken.sum()  # each by a last look
    assert 3 < ended < 12
    for n in range(6):
        alone = attribute(IG2("encode", 30, 0.05, stop=0.1), model, (x[n : n + 1],), (x0[:, n : n + 1],))
        np.testing.assert_allclose(alone.values[0][0], found.values[0][n], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_batching_changes_nothing_but_rounding(size: int) -> None:
    """References of a pass, samples of a batch, and blocks of references."""
    model, x, x0, ig2 = models.mlp(nn.GELU), random(6, 3), random(3, 6, 3, seed=1), IG2("2.input", 10, 0.05, stop=0.2)
    whole = attribute(ig2, model, (x,), (x0,))
    seen: list[int] = []
    assert_equal(attribute(ig2, model, (x,), (x0,), size=size, watch=seen.append), whole)
    assert max(seen) <= 6 * size
    blocks = [attribute(ig2, model, (x,), (x0[cut],), size=size).values[0] * len(cut) / 3 for cut in ([0, 1], [2])]
    np.testing.assert_allclose(sum(blocks), whole.values[0], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("columns", [[0], [1, 0], []], ids=len)
def test_cost(columns: list[int]) -> None:
    """T (F + V + J V), and a row each for the reference and GradCF: what `price` says, and `watch` sees, whatever the
    size."""
    x, x0, ig2 = (random(4, 3),), (random(3, 4, 3, seed=1),), IG2("module.2.input", 7, 0.01)
    for size in (1, 2, 64):
        counted, seen = models.Counted(models.mlp(nn.GELU)), []
        found = attribute(ig2, counted, x, x0, size=size, outputs=columns, watch=seen.append) if columns else None
        if found is None:
            ig2.attribute(
                Model(counted),
                *(tuple(map(torch.from_numpy, v)) for v in (x, x0)),
                [],
                share=1 / 3,
                size=size,
                watch=seen.append,
            )
        price = ig2.price([(3,)])
        assert (price.rows, price.gradients, price.gradients_per_output, price.rows_per_output) == (7 + 2, 7, 7, 0)
        assert counted.forwards == sum(seen) == 12 * price.rows
        assert counted.backwards == 12 * (price.gradients + len(columns) * price.gradients_per_output)
        assert counted.calls == len(seen) == -(-3 // size) * (7 + 2)


# -- defects of the original -------------------------------------------------------------------------------------------


def test_attributions_are_in_the_units_of_the_input() -> None:
    """Preprocessing inside of the model, ``(x / 255 - m) / s`` by channel, is differentiated through: no factor of 1 /
    (255 s) is lost."""
    body = models.conv()
    mean, std = torch.tensor(0.45).double(), torch.tensor(0.225).double()

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: Tensor) -> Tensor:
            return self.body((x / 255 - mean) / std)

    model, rng = Whole(), np.random.default_rng(0)
    x, x0 = rng.uniform(0, 255, (3, 1, 6, 6)), rng.uniform(0, 255, (1, 1, 1, 6, 6))
    found = attribute(IG2("body.6.input", 100, 2.0, clip=(0.0, 255.0)), model, (x,), (x0,))
    rise = attributions.predictions(model, (x,), OUTPUTS) - found.ends
    np.testing.assert_allclose(found.values[0].sum((2, 3, 4)), rise, rtol=0.05)
    phi = lambda x: body[:6]((x / 255 - mean) / std)  # noqa: E731
    few = attribute(IG2("body.6.input", 5, 2.0, clip=(0.0, 255.0)), model, (x,), (x0,))
    assert_equal(few, oracle.ig2(model, phi, (x,), starts((x0,), 3), OUTPUTS, 5, 2.0, (0.0, 255.0)))


def test_nothing_is_left_behind() -> None:
    """Arguments of the forward, gradients of parameters, hooks and methods are as they were; also after an error."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

        def encode(self, x: Tensor, scale: float) -> Tensor:
            return scale * self.body(x)

        def forward(self, x: Tensor, scale: float = 1.0, fail: bool = False) -> Tensor:
            z = self.encode(x, scale)
            if fail and x.requires_grad:
                raise ValueError("no")
            return self.head(torch.tanh(z))

    for fail in (False, True):
        module, kwargs = Scaled().double(), {"scale": 2.0, "fail": fail}
        before = dict(module.__dict__)
        for layer in ("encode", "head.input", "body"):
            model = Model(module, forward_kwargs=kwargs)
            if fail:
                with pytest.raises(ValueError, match="no"):
                    attribute(IG2(layer, 3), model, (random(2, 3),), (random(1, 1, 3, seed=1),))
            else:
                attribute(IG2(layer, 3), model, (random(2, 3),), (random(1, 1, 3, seed=1),))
        assert kwargs == {"scale": 2.0, "fail": fail}
        assert module.__dict__ == before
        assert all(p.grad is None for p in module.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


@pytest.mark.slow
def test_the_path_is_not_kept() -> None:
    """As many tensors of the size of a point live at a time in a long walk as in a short one."""

    def most(n_steps: int) -> int:
        alive = [0]

        def count(rows: int) -> None:
            alive[0] = max(alive[0], sum(type(o) is Tensor and o.shape[-1:] == (1237,) for o in gc.get_objects()))

        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(1237, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        attribute(IG2("2.input", n_steps, 0.01), model, (random(2, 1237),), (random(1, 2, 1237, seed=1),), watch=count)
        return alive[0]

    gc.collect()
    assert most(3) == most(7)


# -- with the rest of the package --------------------------------------------------------------------------------------


def test_a_run_refuses_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong layer before pass 1; a compiled forward; a control variate, as there is none of GradCF."""
    data = models.data(models.mlp(nn.GELU))
    monkeypatch.setattr("igc_dist.run.Run.predict", lambda *parts: pytest.fail("pass 1 has begun"))
    with pytest.raises(ConfigError, match=r"has no layer or method 'head\.input'"):
        igc_dist.attribute(models.mlp(nn.GELU), data, method="ig2")
    with pytest.raises(ConfigError, match=r"has no layer or method 'head\.input'"):  # in copies with noise too
        igc_dist.attribute(models.mlp(nn.GELU), data, attributor=SmoothGrad(IG2("head.input"), n_samples=2))
    with pytest.raises(ConfigError, match="cannot be read inside a compiled forward: switch compiled off"):
        IG2("0").prove(Model(models.mlp(nn.GELU), compiled=True), (data[0][:1],))
    with pytest.raises(ConfigError, match="controlled_correlation needs"):
        igc_dist.attribute(
            models.mlp(nn.GELU),
            data,
            attributor=IG2("2.input"),
            statistics=["controlled_correlation"],
            baseline=baselines.Resampled(2),
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_steps": 0}, "n_steps=0: give an integer of at least 1"),
        ({"step_size": 0.0}, "step_size=0.0: give a length above 0, in units of the input"),
        ({"step_size": float("inf")}, "step_size=inf"),
        ({"epsilon": 0.0}, "epsilon=0.0: give a number above 0"),
        ({"stop": 1.0}, "stop=1.0: give a part of the first squared distance"),
        ({"clip": (1.0, 0.0)}, "clip=.1.0, 0.0.: give the lowest and the highest value"),
        ({"clip": (1.0,)}, "clip=.1.0,.: give the lowest"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"method\.attributor\.{message}"):
        IG2("head", **settings)


def test_final_layer_and_precision() -> None:
    """A final layer is not walked in its latents; half precision is near; NaN is for the engine to refuse, with the
    sample."""
    module = models.mlp(nn.GELU, n_out=5, width=4)
    data, settings = (
        models.data(module),
        {"attributor": IG2("2.input", 10, 0.05), "baseline": baselines.Resampled(2), "samples": True, "n_folds": 1},
    )
    plain = igc_dist.attribute(module, data, **settings)["samples/x/attribution"]
    final = igc_dist.attribute(module, data, final_layer="2", **settings)["samples/x/attribution"]
    np.testing.assert_allclose(final, plain, rtol=1e-10, atol=1e-12)
    single = tuple(part.float() for part in data)
    half = igc_dist.attribute(module.float(), single, precision="bf16-mixed", precision_tol=None, **settings)[
        "samples/x/attribution"
    ]
    assert abs(half - plain).max() < 0.2 * abs(plain).max()


def test_categories() -> None:
    """On coefficients of the one-hot relaxation, one reference at a time: complete to first order."""
    model = models.Lookup()
    x = (torch.from_numpy(random(6, 3)), torch.stack((torch.arange(6) % 5, torch.arange(6) % 4), 1))
    with torch.no_grad():
        y = model(*x) + torch.from_numpy(random(6, 2, seed=2))
    tree = igc_dist.attribute(
        model,
        (x, y),
        attributor=IG2("last.input", 30, 0.03),
        categories=[5],
        baseline=baselines.Resampled(2),
        samples=True,
        n_folds=1,
    )
    total = tree["samples/x/attribution"].values.sum(2) + tree["samples/x1/attribution"].values.sum((2, 3))
    rise = tree["samples/prediction"].values - tree["samples/prediction_baseline"].values
    np.testing.assert_allclose(total, rise, rtol=0, atol=0.02 * abs(rise).max())
