"""PAIR's Integrated Gradients by our engine: cases 70 to 73 of acceptance.md, and literal twins of ours and of
theirs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from igc_dist import seeds
from igc_dist.compat.saliency import INPUT_OUTPUT_GRADIENTS, IntegratedGradients
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
    with pytest.raises(DataError, match=r"expected \(500, 3\), actual \(3,\)"):
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
        ({"x_baseline": X[:2]}, r"x_baseline has shape \(2,\), x_value \(3,\)"),
    ],
)
def test_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises((ConfigError, DataError), match=text):
        mask(**settings)
    with pytest.raises(ConfigError, match="nsamples=0: give an integer"):
        IntegratedGradients().GetSmoothedMask(X, Called(), {"foo": "bar"}, nsamples=0)
