"""Laws of the quadrature rules: they prove themselves at construction, and a rule that cannot is refused."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from igc_dist.paths import KRONROD, RULES, TRIPLED, Nested, Quadrature, ensure_rule, rule
from igc_dist.records import ConfigError

DEGREES = {
    "left": lambda n: 0,
    "right": lambda n: 0,
    "midpoint": lambda n: 1,
    "trapezoid": lambda n: 1,
    "simpson": lambda n: 3,
    "gauss_legendre": lambda n: 2 * n - 1,
}
ORDERS = {"left": 1, "right": 1, "midpoint": 2, "trapezoid": 2, "simpson": 4}


def numbers(name: str) -> list[int]:
    return [
        n
        for n in (1, 2, 3, 4, 5, 7, 16, 33, 64, 129, 500)
        if n >= RULES[name].minimum and (n % 2 or not RULES[name].odd)
    ]


@pytest.mark.parametrize("name", RULES)
def test_weights_sum_to_one_and_nodes_lie_in_the_interval(name: str) -> None:
    """For every rule and n: n nodes in [0, 1], increasing, weights that sum to 1 to 1e-12 (captum's trapezoid has 1 -
    1/n)."""
    for n in numbers(name):
        found = rule(name, n)
        assert len(found) == n == len(found.weights)
        assert found.nodes.min() >= 0
        assert found.nodes.max() <= 1
        assert (np.diff(found.nodes) > 0).all()
        assert abs(found.weights.sum() - 1) < 1e-12


@pytest.mark.parametrize("name", RULES)
def test_exact_up_to_the_degree_and_not_beyond(name: str) -> None:
    """``t**k`` is integrated exactly up to the rule's textbook degree; the next even moment is not (the degree is not
    understated)."""
    for n in [n for n in numbers(name) if n < 10]:
        found, degree = rule(name, n), DEGREES[name](n)
        assert found.degree == degree
        for power in range(degree + 1):
            assert abs(found.weights @ found.nodes**power - 1 / (power + 1)) < 1e-12
        assert abs(found.weights @ found.nodes ** (degree + 1) - 1 / (degree + 2)) > 1e-9 or degree > 8


@pytest.mark.parametrize("name", RULES)
def test_the_doubled_rule_is_the_rule_on_both_halves(name: str) -> None:
    """Its value of any integrand is the mean of the rule's on [0, 1/2] and on [1/2, 1]; a node that both halves have
    counts once; equal steps are those of the rule with twice as many."""
    for n in [n for n in numbers(name) if n < 40]:
        one = rule(name, n)
        found = one.doubled
        halves = [one.weights @ np.exp(3 * (one.nodes + side) / 2) / 2 for side in (0, 1)]
        assert abs(found.weights @ np.exp(3 * found.nodes) - sum(halves)) < 1e-12
        assert found.degree == one.degree
        assert len(found) == 2 * n - (name in ("trapezoid", "simpson"))
        assert (np.diff(found.nodes) > 0).all()
        if name in ("left", "right", "midpoint"):
            np.testing.assert_allclose(found.nodes, rule(name, 2 * n).nodes, rtol=1e-15)


@pytest.mark.parametrize("name", ORDERS)
def test_order_of_convergence(name: str) -> None:
    """On exp the error falls with the textbook power of the step width."""

    def error(n: int) -> float:
        found = rule(name, n)
        return abs(float(found.weights @ np.exp(found.nodes)) - (exp(1) - 1))

    panels = 1 if name in ("trapezoid", "simpson") else 0
    assert np.log2(error(16 + panels) / error(32 + panels)) == pytest.approx(ORDERS[name], abs=0.1)


@pytest.mark.parametrize("name", ["midpoint", "trapezoid", "simpson", "gauss_legendre"])
def test_symmetric(name: str) -> None:
    """A symmetric rule sees the reversed path as the same: IG(x; x0) = -IG(x0; x)."""
    for n in numbers(name):
        found = rule(name, n)
        np.testing.assert_allclose(found.nodes + found.nodes[::-1], 1, rtol=0, atol=1e-14)
        np.testing.assert_allclose(found.weights, found.weights[::-1], rtol=0, atol=1e-14)


@given(st.integers(1, 8), st.floats(1e-9, 0.5), st.sampled_from([-1, 1]))
def test_wrong_weights_are_refused(n: int, by: float, sign: int) -> None:
    """A rule whose weights do not sum to 1 is not constructed, however small the fault above rounding."""
    good = rule("midpoint", n)
    with pytest.raises(ConfigError, match="weights must sum to 1"):
        Quadrature("bad", good.nodes, good.weights * (1 + sign * by), 0)


def test_other_faults_are_refused() -> None:
    """Nodes outside [0, 1], an overstated degree, NaN (which no comparison catches) and no nodes at all are refused by
    name."""
    two = np.array([0.5, 0.5])
    for nodes, weights, degree, text in [
        (np.array([-0.1, 0.5]), two, 0, r"\[0, 1\]"),
        (np.array([0.5, 1.1]), two, 0, r"\[0, 1\]"),
        (np.array([0.0, 0.5]), two, 1, r"t\*\*1"),
        (np.array([0.2, 0.5]), np.array([0.5, np.nan]), 0, "sum to 1"),
        (np.array([0.2, np.nan]), two, 0, r"\[0, 1\], got nan"),
        (np.array([]), np.array([]), 0, "equal vectors"),
    ]:
        with pytest.raises(ConfigError, match=text) as caught:
            Quadrature("mine", nodes, weights, degree)
        assert "mine" in str(caught.value)


@pytest.mark.parametrize("n", [0, -1, True])
def test_steps_below_the_minimum_are_refused(n: int) -> None:
    """n_steps must be an integer of at least the rule's minimum, and the message gives both."""
    with pytest.raises(ConfigError, match="at least 1") as caught:
        rule("midpoint", n)
    assert repr(n) in str(caught.value)


def test_even_simpson_and_unknown_names() -> None:
    """Simpson needs an odd number (the next is offered); an unknown rule is answered with the list."""
    with pytest.raises(ConfigError, match="odd, try 5"):
        rule("simpson", 4)
    with pytest.raises(ConfigError, match=r"gauss_legendre.*midpoint.*trapezoid") as caught:
        rule("middle", 4)
    assert "'middle'" in str(caught.value)


def test_equality_and_coercion() -> None:
    """Rules are equal by their numbers; a rule passes `ensure_rule` untouched."""
    assert rule("midpoint", 1) == rule("gauss_legendre", 1)
    assert hash(rule("left", 3)) == hash(rule("left", 3))
    assert rule("left", 3) != rule("right", 3)
    mine = rule("left", 3)
    assert ensure_rule(mine, 99) is mine
    assert len(ensure_rule("left", 7)) == 7


def test_kronrod_pair() -> None:
    """Gauss-Legendre of 7 nodes within 15; the even moments up to degree 22 and 12 are exact, and the next are not."""
    nodes, weights = np.polynomial.legendre.leggauss(7)
    np.testing.assert_allclose(KRONROD.fine.nodes[1::2], (nodes + 1) / 2, rtol=0, atol=1e-15)
    np.testing.assert_allclose(KRONROD.coarse[1::2], weights / 2, rtol=0, atol=1e-15)
    assert not KRONROD.coarse[::2].any()
    error = lambda weights, power: abs(float(weights @ (2 * KRONROD.fine.nodes - 1) ** power) - 1 / (power + 1))  # noqa: E731
    for weights, degree in ((KRONROD.fine.weights, 22), (KRONROD.coarse, 12)):
        assert max(error(weights, power) for power in range(0, degree + 1, 2)) < 2e-16 * 10
        assert error(weights, degree + 2) > 1e-9
    np.testing.assert_array_equal(TRIPLED.fine.nodes[TRIPLED.coarse > 0], rule("midpoint", 1).nodes)


def test_nested_rules_prove_themselves() -> None:
    """Both of them: a coarse one that overstates its degree, or does not sum to 1, is refused."""
    with pytest.raises(ConfigError, match=r"coarse part of mine.*t\*\*2"):
        Nested("mine", rule("midpoint", 3), TRIPLED.coarse, 2)
    with pytest.raises(ConfigError, match=r"coarse part of mine.*sum to 1"):
        Nested("mine", rule("midpoint", 3), np.array([0.0, 0.9, 0.0]), 1)
