"""PAIR's classes by our engine: cases 70 to 81 of acceptance.md, and literal twins of ours and of theirs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from igc_dist import seeds
from igc_dist.compat.saliency import (
    INPUT_OUTPUT_GRADIENTS,
    SHAPE_ERROR_MESSAGE,
    XRAI,
    BlurIG,
    CoreSaliency,
    GradientSaliency,
    GuidedIG,
    IntegratedGradients,
    XRAIParameters,
)
from igc_dist.records import ConfigError, DataError

X, X0 = np.array([1.0, 2, 3]), np.array([0.5, 1, 1])
EXACT = np.array([2.5, 3.0, np.sin(3) - np.sin(1)])


def gradient(x: np.ndarray) -> np.ndarray:
    """That of ``5 x0 + x1^2 + sin(x2)``, row by row."""
    return np.array([[5, 2 * b, np.cos(c)] for _, b, c in x.reshape(-1, 3)]).reshape(x.shape)


class Called:
    """A model as PAIR calls it; remembers what it is given."""

    def __init__(self, function: Callable[[np.ndarray], np.ndarray] = gradient) -> None:
        self.function, self.batches = function, []

    def __call__(
        self, x_value_batch: np.ndarray, call_model_args: Any = None, expected_keys: Any = None
    ) -> dict[str, Any]:
        assert (call_model_args, expected_keys) == ({"foo": "bar"}, [INPUT_OUTPUT_GRADIENTS])
        self.batches.append(x_value_batch.copy())
        return {INPUT_OUTPUT_GRADIENTS: self.function(x_value_batch)}


def mask(x: np.ndarray = X, called: Any = None, **settings: Any) -> np.ndarray:
    return IntegratedGradients().GetMask(x, called or Called(), {"foo": "bar"}, **{"x_baseline": X0, **settings})


def weighed(x: np.ndarray, x0: np.ndarray, weights: list[float]) -> np.ndarray:
    """A literal sum over points from x0 to x, both ends included."""
    total = np.zeros_like(x)
    for k, weight in enumerate(weights):
        total += weight * gradient(x0 + k / (len(weights) - 1) * (x - x0)) * (x - x0)
    return total


def trapezoid(n: int) -> list[float]:
    return [0.5 / (n - 1), *[1 / (n - 1)] * (n - 2), 0.5 / (n - 1)]


def test_converges_to_the_integral_case_70() -> None:
    """At second order: 100 times closer with 10 times the steps."""
    errors = [abs(mask(x_steps=n) - EXACT).max() for n in (11, 101, 1001)]
    assert errors[0] < 5e-3
    for coarse, fine in itertools.pairwise(errors):
        assert fine == pytest.approx(coarse / 100, rel=0.01)
    assert abs(mask() - EXACT)[:2].max() < 1e-12  # on linear gradients the rule is exact


@pytest.mark.parametrize(("n", "theirs"), [(25, -0.689935), (50, -0.695242), (1000, -0.700100)])
def test_not_the_closed_mean_case_71(n: int, theirs: float) -> None:
    """PAIR's values are those of equal weights, too much for the ends; ours have the same points, and the trapezoid's
    weights."""
    assert weighed(X, X0, [1 / n] * n)[2] == pytest.approx(theirs, abs=6e-7)
    found = mask(x_steps=n)
    np.testing.assert_allclose(found, weighed(X, X0, trapezoid(n)), rtol=0, atol=1e-12)
    assert abs(found - EXACT)[2] < 0.05 * abs(theirs - EXACT[2])


@pytest.mark.parametrize(("n", "size", "calls"), [(1000, 1, 1000), (1001, 500, 3), (999, 1000, 1), (25, 4, 7)])
def test_calls_case_72(n: int, size: int, calls: int) -> None:
    """ceil(x_steps / batch_size) calls, none of more rows, through the points of the straight line with both ends; the
    same mask."""
    called = Called()
    found = mask(called=called, x_steps=n, batch_size=size)
    assert len(called.batches) == calls
    assert {len(batch) for batch in called.batches[:-1]} <= {size}
    points = X0 + np.linspace(0, 1, n)[:, None] * (X - X0)
    np.testing.assert_allclose(np.concatenate(called.batches), points, rtol=0, atol=1e-15)
    np.testing.assert_allclose(found, mask(x_steps=n, batch_size=7), rtol=0, atol=1e-12)


def test_a_gradient_of_a_wrong_shape_case_73() -> None:
    with pytest.raises(DataError, match=re.escape(SHAPE_ERROR_MESSAGE[INPUT_OUTPUT_GRADIENTS].format((500, 3), (3,)))):
        mask(called=Called(lambda x: gradient(x)[0]), x_steps=2001, batch_size=500)


def test_forms() -> None:
    """Zeros by default; any shape; float32 stays, integers are numbers; lists of gradients; x on the baseline gives
    0."""
    np.testing.assert_allclose(mask(x_baseline=None, x_steps=9), weighed(X, 0 * X, trapezoid(9)), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(mask(np.array([1, 2, 3]), called=Called(lambda x: gradient(x).tolist())), mask())
    single = mask(X.astype(np.float32), x_baseline=X0.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, mask(), rtol=1e-6)
    image, start = np.arange(12.0).reshape(2, 2, 3), np.ones((2, 2, 3))
    expected = [[weighed(image[i, j], start[i, j], trapezoid(25)) for j in (0, 1)] for i in (0, 1)]
    np.testing.assert_allclose(mask(image, x_baseline=start, batch_size=6), expected, rtol=0, atol=1e-11)
    assert not mask(X, x_baseline=X).any()


@pytest.mark.parametrize("magnitude", [True, False], ids=["squares", "plain"])
def test_smoothed(magnitude: bool) -> None:
    """The mean of (squares of) masks of x with noise of 0.15 of its range, drawn at the documented address."""
    called, settings = Called(), {"x_baseline": X0, "x_steps": 5, "batch_size": 2}
    given = {"magnitude": magnitude, "nsamples": 6, "seed": 3, **settings}
    found = IntegratedGradients().GetSmoothedMask(X, called, {"foo": "bar"}, **given)
    assert len(called.batches) == 6 * 3
    noise = seeds.generator(3, 0, "saliency.noise").normal(0, 0.15 * 2, (6, 3))
    masks = [weighed(X + e, X0, trapezoid(5)) for e in noise]
    expected = sum(m**2 if magnitude else m for m in masks) / 6
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(found, IntegratedGradients().GetSmoothedMask(X, called, {"foo": "bar"}, **given))
    assert not np.array_equal(
        found, IntegratedGradients().GetSmoothedMask(X, called, {"foo": "bar"}, **{**given, "seed": 4})
    )


def test_smoothed_without_noise_is_the_mask() -> None:
    """Case 45 in PAIR's words."""
    plain = IntegratedGradients().GetSmoothedMask(X, Called(), {"foo": "bar"}, 0.0, 3, False, x_baseline=X0)
    np.testing.assert_allclose(plain, mask(), rtol=1e-15)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"x_steps": 1}, "n_steps=1 .*at least 2"),
        ({"batch_size": 0}, "batch_size=0: give an integer of at least 1"),
        ({"x_baseline": X[:2]}, r"Baseline size \(2,\) does not match input size \(3,\)"),
    ],
)
def test_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises((ConfigError, DataError), match=text):
        mask(**settings)
    with pytest.raises(ConfigError, match="nsamples=0: give an integer"):
        IntegratedGradients().GetSmoothedMask(X, Called(), {"foo": "bar"}, nsamples=0)


CLASSES = (GradientSaliency, IntegratedGradients, GuidedIG, BlurIG, XRAI)


def sines(x: np.ndarray) -> np.ndarray:
    """The gradient of the sum of the sines."""
    return np.cos(x)


def test_the_gradient() -> None:
    """Of a list too, by one call."""
    called = Called()
    found = GradientSaliency().GetMask([3, 2, 1], called, {"foo": "bar"})
    np.testing.assert_array_equal(found, gradient(np.array([3.0, 2, 1])))
    assert [batch.shape for batch in called.batches] == [(1, 3)]


def guided(gradient: Callable[[float, float], tuple[float, float]], x: Any, **settings: Any) -> np.ndarray:
    called = Called(lambda batch: np.array([gradient(*row) for row in batch]))
    return GuidedIG().GetMask(x, called, {"foo": "bar"}, **settings)


@pytest.mark.slow
def test_guided_case_74() -> None:
    """Linear and separable functions give Integrated Gradients; a dependent one gives it without a distance or with all
    features at once, another map with a free path, and one between with a bound."""
    few = {"x_steps": 10, "fraction": 0.1, "max_dist": 0.5}
    np.testing.assert_allclose(guided(lambda a, b: (2, 1), [10.0, 5.0], x_baseline=[-1.0, -3.0], **few), [22, 8], 1e-9)
    np.testing.assert_allclose(guided(lambda a, b: (2, 1), [10, 5], **few), [20, 5], 1e-9)
    many = {"x_steps": 400, "fraction": 0.1}
    found = guided(lambda a, b: (4 * a, 2 * b), [3, 3], max_dist=0.4, **many)
    np.testing.assert_allclose(found, [18, 9], 0.01)

    def dependent(a: float, b: float) -> tuple[float, float]:
        return 8 * a + 4 * b, 4 * a + 2 * b

    np.testing.assert_allclose(guided(dependent, [3, 3], max_dist=0.0, **many), [54, 27], 0.01)
    np.testing.assert_allclose(guided(dependent, [3, 3], x_steps=400, fraction=1.0, max_dist=0.5), [54, 27], 0.01)
    np.testing.assert_allclose(guided(dependent, [3, 3], max_dist=1.0, **many), [72, 9], 0.01)
    between = guided(dependent, [3, 3], x_steps=1000, fraction=0.1, max_dist=0.2)
    assert between.sum() == pytest.approx(81, abs=0.1)
    assert 55 < between[0] < 71


DOTS = np.zeros((5, 5, 1))
DOTS[1, 1], DOTS[2, 2] = 0.7, 1.0


@pytest.mark.parametrize(("steps", "size", "calls"), [(400, 1, 400), (2001, 100, 21), (499, 500, 1)])
def test_blurred_cases_79_and_80(steps: int, size: int, calls: int) -> None:
    """``sin(x) - sin(blurred x)`` to 2 decimals; ceil(steps / batch_size) calls of images (n, H, W, C)."""
    called = Called(sines)
    found = BlurIG().GetMask(DOTS, called, {"foo": "bar"}, max_sigma=10, steps=steps, batch_size=size)
    blurred = gaussian_filter(DOTS, [10, 10, 0], mode="constant")
    np.testing.assert_allclose(found, np.sin(DOTS) - np.sin(blurred), rtol=0, atol=1.5e-2)
    assert found.sum() == pytest.approx(1.42, abs=0.02)
    assert len(called.batches) == calls
    assert called.batches[0].shape == (min(size, steps), 5, 5, 1)
    np.testing.assert_allclose(called.batches[-1][-1], DOTS, rtol=0, atol=1e-12)  # the image itself is a point
    with pytest.raises(DataError, match="give an image"):
        BlurIG().GetMask(DOTS[..., 0], called, {"foo": "bar"})


@pytest.mark.parametrize("sqrt", [False, True], ids=["sigma", "its square"])
def test_blurred_does_not_depend_on_the_batches_case_81(sqrt: bool) -> None:
    one, many = (
        BlurIG().GetMask(DOTS, Called(sines), {"foo": "bar"}, max_sigma=10, steps=400, sqrt=sqrt, batch_size=size)
        for size in (1, 40)
    )
    np.testing.assert_allclose(many, one, rtol=0, atol=1e-12)
    np.testing.assert_allclose(one.sum(), 1.4 if not sqrt else 0.95, atol=0.06)


def test_regions() -> None:
    """A value for each region, from the mean of the maps of two baselines, of the largest channel; given segments and
    maps, and the same sum."""
    pytest.importorskip("skimage")
    image = np.random.default_rng(0).random((40, 50, 3))
    image[:, 20:] += 3
    called, few = Called(sines), XRAIParameters(steps=5)
    found = XRAI().GetMask(image, called, {"foo": "bar"}, extra_parameters=few, batch_size=5)
    maps = [
        IntegratedGradients().GetMask(image, called, {"foo": "bar"}, np.full_like(image, level), 5)
        for level in (image.min(), image.max())
    ]
    a = np.mean(maps, 0)
    assert found.shape == (40, 50)
    assert found.sum() == pytest.approx(a.max(-1).sum(), abs=1e-9)
    assert 1 < len(np.unique(found)) < 40
    np.testing.assert_allclose(XRAI().GetMask(image, called, base_attribution=a), found, rtol=1e-12)

    left = np.zeros((40, 50), bool)
    left[:, :10] = True
    for algorithm in ("full", "fast"):
        settings = XRAIParameters(algorithm=algorithm)
        halves = XRAI().GetMask(image, called, segments=[left], base_attribution=a, extra_parameters=settings)
        for part in (left, ~left):
            np.testing.assert_allclose(halves[part], a.max(-1)[part].mean(), rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"base_attribution": np.ones((4, 5))},
            "The base attribution shape should be the same as the shape of `x_value`",
        ),
        ({"baselines": [np.ones((4, 5))]}, r"Baseline size \(4, 5\) does not match input size \(4, 4\)"),
        ({"segments": [np.ones((4, 5))]}, "give masks of"),
        ({"extra_parameters": XRAIParameters(algorithm="slow")}, "Unknown algorithm type: slow"),
        ({"x_value": np.ones(4)}, "give an image"),
    ],
    ids=["map", "baseline", "segments", "algorithm", "image"],
)
def test_regions_that_do_not_fit(settings: dict[str, Any], text: str) -> None:
    given = {"x_value": np.ones((4, 4)), "call_model_function": Called(sines), "call_model_args": {"foo": "bar"}}
    with pytest.raises((ConfigError, DataError), match=text):
        XRAI().GetMask(**{**given, "base_attribution": None, **settings})


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_is_smoothed(kind: Any) -> None:
    """By its own mask of each noisy input."""
    assert issubclass(kind, CoreSaliency)
    own, seen = kind(), []
    own.GetMask = lambda x, function, args, **settings: seen.append((x, settings)) or x
    found = own.GetSmoothedMask(np.array([3, 2, 1]), Called(), nsamples=20, magnitude=False, more=1)
    assert len(seen) == 20
    assert all(settings == {"more": 1} for _, settings in seen)
    np.testing.assert_allclose(found, np.mean([x for x, _ in seen], 0))


@pytest.mark.parametrize("kind", CLASSES)
def test_gradients_of_a_wrong_shape_are_refused_by_all(kind: Any) -> None:
    if kind is XRAI:
        pytest.importorskip("skimage")
    text = re.escape(SHAPE_ERROR_MESSAGE[INPUT_OUTPUT_GRADIENTS].format((1, 5, 5, 1), (5, 5, 1)))
    with pytest.raises(ValueError, match=text):
        kind().GetMask(DOTS, Called(lambda x: sines(x)[0]), {"foo": "bar"})


@pytest.mark.parametrize(
    "context", [torch.no_grad(), torch.autocast("cpu", torch.bfloat16), torch.inference_mode(), torch.device("meta")]
)
def test_the_context_of_the_caller(context: AbstractContextManager[Any]) -> None:
    """A function that takes gradients by torch gives the same bits."""
    layer = torch.nn.Linear(3, 1)

    def called(x: np.ndarray, **_: Any) -> dict[str, np.ndarray]:
        point = torch.as_tensor(x, dtype=torch.float32).requires_grad_()
        return {INPUT_OUTPUT_GRADIENTS: torch.autograd.grad(layer(point).tanh().sum(), point)[0].numpy()}

    def found() -> bytes:
        return GuidedIG().GetMask(X, called, x_steps=5).tobytes()

    expected = found()
    with context:
        assert found() == expected


def test_the_default_type_of_the_caller() -> None:
    """A function has it, whatever the type of its points."""
    seen = []

    def called(x: np.ndarray, **_: Any) -> dict[str, np.ndarray]:
        seen.append(torch.get_default_dtype())
        return {INPUT_OUTPUT_GRADIENTS: x}

    torch.set_default_dtype(torch.float64)
    try:
        GradientSaliency().GetMask(X.astype(np.float32), called)
    finally:
        torch.set_default_dtype(torch.float32)
    GradientSaliency().GetMask(X, called)
    assert seen == [torch.float64, torch.float32]
