"""Laws of every statistic: a monoid over inputs whose value does not hang on how the inputs were cut, nor on where they
lie."""

from __future__ import annotations

from dataclasses import replace
from inspect import isabstract
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from igc_dist.records import ConfigError
from igc_dist.statistics import (
    FEATURE_TERMS,
    SCALAR_TERMS,
    STATISTICS,
    Centre,
    State,
    Statistic,
    TTest,
    empty,
    feature_terms,
    of,
    tree_sum,
)
from igc_dist.tensors import Attribution
from tests.laws.families import FAMILY, SHAPES, assert_same, attribution, centre, final, host, part, sums
from tests.oracles import statistics as oracle

every = pytest.mark.parametrize("statistic", FAMILY, ids=lambda statistic: statistic.name)


def folded(statistic: Statistic, whole: Attribution, cuts: list[int], at: float = 0.0) -> State:
    edges = [0, *sorted(cuts), len(whole.target)]
    parts = [part(whole, slice(a, b)) for a, b in pairwise(edges)]
    state = statistic.empty(centre(at), SHAPES)
    for piece in parts:
        state = state + statistic.of(piece, centre(at))
    return state


def test_the_family_is_whole() -> None:
    """Every Statistic of the package is either asked for by name or always computed; so each is under these laws."""

    def below(kind: type) -> set[type]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    mine = {kind for kind in below(Statistic) if kind.__module__.startswith("igc_dist.") and not isabstract(kind)}
    assert {type(statistic) for statistic in FAMILY} == mine
    assert all(name == kind.name for name, kind in STATISTICS.items())


@every
def test_empty_is_the_identity(statistic: Statistic) -> None:
    """Adding the empty state, on either side, changes no bit."""
    state, nothing = statistic.of(attribution(5), centre()), statistic.empty(centre(), SHAPES)
    for merged in (state + nothing, nothing + state):
        assert all(np.array_equal(one, two) for one, two in zip(sums(merged), sums(state), strict=True))


@every
@settings(max_examples=4)
@given(seed=st.integers(0, 1000), sizes=st.tuples(*[st.integers(1, 6)] * 3), centres=st.tuples(*[st.floats(-3, 3)] * 3))
def test_merge_is_associative_and_commutative(statistic: Statistic, seed: int, sizes: tuple, centres: tuple) -> None:
    """To 1e-12, also where the parts were summed about different centres."""
    a, b, c = (
        statistic.of(attribution(n, seed + i), centre(at)) for i, (n, at) in enumerate(zip(sizes, centres, strict=True))
    )
    one = final(statistic, (a + b) + c)
    for other in (a + (b + c), (c + b) + a, b + (a + c)):
        assert_same(final(statistic, other), one, 1e-12)


@every
@pytest.mark.parametrize("features", [False, True], ids=["scalars", "attributions-too"])
@given(seed=st.integers(0, 1000), start=st.floats(-5, 5), far=st.floats(-5, 5))
def test_shift_there_and_back(statistic: Statistic, features: bool, seed: int, start: float, far: float) -> None:
    """Moving a state to another centre and back is the identity, and moving it is the same as having summed there."""
    whole, here, there = attribution(6, seed), centre(start), centre(far, features=features)
    state, moved = statistic.of(whole, here), statistic.of(whole, there)
    for back in zip(sums(state.shift(there).shift(here)), sums(state), strict=True):
        np.testing.assert_allclose(*back, rtol=1e-9, atol=1e-9)
    for one, two in zip(sums(state.shift(there)), sums(moved), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-9)
    assert_same(final(statistic, state.shift(there)), final(statistic, state), 1e-10)


@every
@settings(max_examples=6)
@given(cuts=st.lists(st.integers(0, 20), max_size=4), at=st.floats(-2, 2), masked=st.booleans())
def test_any_cut_gives_the_same_answer(statistic: Statistic, cuts: list[int], at: float, masked: bool) -> None:
    """However the samples are cut into micro-batches, empty ones included."""
    whole = attribution(20, masked=masked)
    assert_same(
        final(statistic, folded(statistic, whole, cuts, at)), final(statistic, folded(statistic, whole, [], at)), 1e-12
    )


@every
@given(order=st.permutations(range(9)))
def test_order_does_not_matter(statistic: Statistic, order: list[int]) -> None:
    """Samples in any order."""
    whole = attribution(9)
    assert_same(
        final(statistic, statistic.of(part(whole, order), centre())),
        final(statistic, statistic.of(whole, centre())),
        1e-12,
    )


def literal(a: Attribution) -> dict[str, np.ndarray]:
    """Every result of every statistic, from the equations, over samples of weight 1."""
    y, r, b = (table.numpy() for table in (a.target, a.prediction, a.baseline_prediction))
    n_outputs = y.shape[1]
    results: dict[str, np.ndarray] = {
        "n": np.full(n_outputs, len(y)),
        "completeness_error": abs(
            sum(v.numpy().reshape(len(y), n_outputs, -1).sum(2) for v in a.values) - (r - b)
        ).mean(0),
        "target_mean": y.mean(0),
        "target_std": y.std(0),
        "prediction_mean": r.mean(0),
        "prediction_std": r.std(0),
        "correlation": oracle.correlations(y, r),
        "baseline_term": oracle.rho0(y, r, b),
        "constant": np.zeros(n_outputs),
    }
    totals = np.zeros((3, n_outputs))
    for i, values in enumerate(v.numpy() for v in a.values):
        igc, igac = oracle.igc(values, y, r), oracle.igac(values, r)
        results |= {f"correlation of input {i}": igc, f"autocorrelation of input {i}": igac}
        results[f"pearson of input {i}"] = oracle.pearson(values, y)
        results[f"ttest_t of input {i}"], results[f"ttest_p of input {i}"] = oracle.t_test(values, *grouped(a))
        results |= {f"mean of input {i}": values.mean(0), f"std of input {i}": values.std(0)}
        assert a.baseline is not None
        controlled = oracle.controlled(values, y, r, a.baseline[i].numpy())
        results[f"controlled_correlation of input {i}"] = controlled
        assert a.area is not None
        own = a.area[i].numpy().mean(0)
        results |= {f"area of input {i}": np.stack([own] * n_outputs), f"correlation_per_area of input {i}": igc / own}
        totals += [of_input.reshape(n_outputs, -1).sum(1) for of_input in (igc, igac, controlled)]
    results |= dict(zip(("n_low", "n_high"), (member.sum(0) for member in grouped(a)), strict=True))
    return results | {
        f"{name}_sum": total
        for name, total in zip(("correlation", "autocorrelation", "controlled_correlation"), totals, strict=True)
    }


def grouped(a: Attribution) -> tuple[np.ndarray, np.ndarray]:
    """Which samples are in the low group, and in the high one: groups 1 and 2, and both for 3."""
    assert a.cell is not None
    cell = a.cell.numpy()
    return np.isin(cell, (1, 3)), np.isin(cell, (2, 3))


@every
@given(seed=st.integers(0, 1000), n=st.integers(2, 30))
@settings(max_examples=10)
def test_equals_the_literal_twin(statistic: Statistic, seed: int, n: int) -> None:
    """Every named result is what its equation says, population statistics."""
    whole = attribution(n, seed)
    found, expected = final(statistic, statistic.of(whole, centre(0.3))), literal(whole)
    assert_same(found, {name: expected[name] for name in found}, 1e-9)


def test_correlation_per_area_is_of_sums_that_are_there() -> None:
    """The area needs no other sum; where the covariance is folded as well, their quotient is a result."""
    whole, names = attribution(9), [f"correlation_per_area of input {i}" for i in range(2)]
    area, expected = STATISTICS["area"](), literal(whole)
    assert not {*names} & {*final(area, of(whole, centre(0.3), area.terms))}
    found = final(area, of(whole, centre(0.3), ("s", "ay")))
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9)


@every
def test_equals_numpy_far_from_zero(statistic: Statistic) -> None:
    """Data of deviation 1 about 1e6: the centres of pass 1 keep the digits; attributions sum about 0, and lose ``u
    (mean/std)**2``."""
    whole = attribution(400, offset=1e6)
    known = centre(1e6)
    found, expected = final(statistic, statistic.of(whole, known)), literal(whole)
    for name, value in found.items():
        of_features = "of input" in name or name.endswith("_sum")
        np.testing.assert_allclose(
            value, expected[name], rtol=3e-3 if not statistic.linear else 1e-8 if of_features else 1e-12, err_msg=name
        )
    about = centre(1e6, features=True)
    for name, value in final(statistic, statistic.of(whole, about)).items():
        # a t-test takes the difference of two means near 1e6
        np.testing.assert_allclose(value, expected[name], rtol=1e-7 if "ttest" in name else 1e-9, err_msg=name)


@every
def test_weight_zero_masks_nan(statistic: Statistic) -> None:
    """A sample of weight 0 for an output leaves no trace there, whatever NaN or infinity it carries; other outputs keep
    it."""
    whole = attribution(30, masked=True)
    found = final(statistic, statistic.of(whole, centre()))
    for j in range(2):
        kept = part(whole, torch.nonzero(whole.weight[:, j])[:, 0].tolist())
        assert kept.cell is not None
        alone = Attribution(
            tuple(v[:, j : j + 1] for v in kept.values),
            *(table[:, j : j + 1] for table in (kept.target, kept.prediction, kept.baseline_prediction, kept.weight)),
            cell=kept.cell[:, j : j + 1],
            baseline=kept.baseline,
            area=kept.area,
        )
        expected = literal(alone)
        for name, value in found.items():
            np.testing.assert_allclose(value[j], expected[name][0], rtol=1e-9, atol=1e-12, err_msg=name)


@every
@given(st.floats(0.1, 10))
def test_results_do_not_hang_on_the_scale_of_weights(statistic: Statistic, scale: float) -> None:
    """Weights times a constant change nothing, not even counts."""
    whole = attribution(10)
    one, two = (
        final(statistic, statistic.of(a, centre())) for a in (whole, replace(whole, weight=whole.weight * scale))
    )
    assert_same(one, two, 1e-9)


@every
def test_weights_are_repetitions(statistic: Statistic) -> None:
    """A sample of weight 3 counts as three samples in every result but the counts."""
    whole = attribution(12)
    times = np.arange(12) % 4
    again = part(whole, np.repeat(np.arange(12), times).tolist())
    weighted = replace(whole, weight=whole.weight * torch.from_numpy(times)[:, None])
    one, two = (final(statistic, statistic.of(a, centre())) for a in (again, weighted))
    if statistic.weighted:
        assert_same({k: v for k, v in one.items() if k != "n"}, {k: v for k, v in two.items() if k != "n"}, 1e-9)
    if "n" in two:
        assert two["n"].tolist() == [9, 9]
    if not statistic.weighted:  # or it should say that it is
        assert any(not np.allclose(one[name], two[name], equal_nan=True) for name in one)


@every
def test_nothing_folded_is_nan_and_silent(statistic: Statistic) -> None:
    """The empty state finalizes to NaN (0 for counts) without a warning."""
    found = final(statistic, statistic.empty(centre(), SHAPES))
    assert all(
        np.isnan(value).all() for name, value in found.items() if name not in ("n", "constant", "n_low", "n_high")
    )


@every
def test_leading_axes_pass_through(statistic: Statistic) -> None:
    """A stack of states finalizes to a stack of results: the jackknife and the convergence curves stand on it."""
    states = [host(statistic.of(attribution(5, seed), centre())) for seed in range(3)]
    features = tuple(
        {term: np.stack([s.features[i][term] for s in states]) for term in states[0].features[i]} for i in range(2)
    )
    stacked = State(
        states[0].centre, {term: np.stack([s.scalars[term] for s in states]) for term in SCALAR_TERMS}, features
    )
    together = final(statistic, stacked)
    for number, state in enumerate(states):
        assert_same({name: value[number] for name, value in together.items()}, final(statistic, state), 1e-14)


@pytest.mark.parametrize("statistic", [s for s in FAMILY if s.linear], ids=lambda statistic: statistic.name)
def test_linear_means_linear(statistic: Statistic) -> None:
    """Folding two blocks of baselines at half weight equals folding their mean: what a cut of the baselines relies
    on."""
    one, two = attribution(8, 1), attribution(8, 2)
    two = replace(one, values=two.values, baseline_prediction=two.baseline_prediction)
    halves = [replace(a, weight=a.weight / 2, share=0.5) for a in (one, two)]
    mean = replace(
        one,
        values=tuple((a + b) / 2 for a, b in zip(one.values, two.values, strict=True)),
        baseline_prediction=(one.baseline_prediction + two.baseline_prediction) / 2,
    )
    cut = statistic.of(halves[0], centre()) + statistic.of(halves[1], centre())
    found, expected = final(statistic, cut), final(statistic, statistic.of(mean, centre()))
    if "completeness_error" in found:  # of which blocks give an upper bound
        assert (found.pop("completeness_error") >= expected.pop("completeness_error")).all()
    assert_same(found, expected, 1e-10)


def test_not_linear_is_not_linear() -> None:
    """And a statistic that says it is not linear is not: the deviation of a mean is not the mean of deviations."""
    for statistic in (s for s in FAMILY if not s.linear):
        a = attribution(8, 1)
        b = replace(a, values=tuple(0.5 - v for v in a.values), weight=a.weight / 2, share=0.5)
        cut = final(
            statistic, statistic.of(replace(a, weight=a.weight / 2, share=0.5), centre()) + statistic.of(b, centre())
        )
        mean = final(
            statistic, statistic.of(replace(a, values=tuple(torch.full_like(v, 0.25) for v in a.values)), centre())
        )
        assert any(not np.allclose(cut[name], mean[name], atol=0.1, equal_nan=True) for name in cut)


@pytest.mark.parametrize("value", [0.1, 1e6 + 0.1, -3.7e-5])
def test_constant_has_deviation_zero(value: float) -> None:
    """A constant that is no binary fraction has deviation exactly 0, however its mean rounds, and wherever the centre
    lies."""
    whole = attribution(50)
    flat = torch.full_like(whole.target, value)
    flat[::2] = torch.nextafter(flat[::2], flat.new_tensor(9e9))  # as the same output from batches of two sizes
    for off in (0.0, 1e-15, 0.01, 3.0):  # pass 1 finds the mean to a few ulp; without one fold it lies anywhere
        at = torch.full((2,), value * (1 + off), dtype=torch.float64)
        state = host(of(Attribution(whole.values, flat, flat, flat, whole.weight), Centre(at, at, at), ()))
        assert not state.std("y").any()
        assert not state.std("r").any()


@given(st.integers(1, 40))
def test_tree_sum_adds_every_slot_once(n: int) -> None:
    """The fixed tree over slots is a sum: distinct powers of two show that each slot counts exactly once."""
    assert tree_sum(2.0 ** np.arange(n)[:, None]).tolist() == [2.0**n - 1]
    slots = np.random.default_rng(n).standard_normal((n, 3))
    np.testing.assert_allclose(tree_sum(slots), slots.sum(0), rtol=1e-12, atol=1e-12)


def test_terms_are_what_a_state_holds() -> None:
    """One pass serves several statistics: the union of terms, in one order, always with "a"."""
    assert feature_terms(()) == ("a",)
    assert feature_terms(("ar", "aa")) == ("a", "aa", "ar")
    state = empty(centre(), SHAPES, FEATURE_TERMS)
    assert tuple(state.features[1]) == FEATURE_TERMS
    assert state.features[1]["ay"].shape == (2, 2, 2)
    together, alone = of(attribution(5), centre(), FEATURE_TERMS), of(attribution(5), centre(), ("a",))
    assert torch.equal(together.scalars["yr"], alone.scalars["yr"])


@pytest.mark.parametrize(
    ("low", "text"),
    [
        (float("nan"), "ttest.low=nan: give numbers"),
        ([0.0, float("nan")], "ttest.low=.*give numbers"),
        (np.ma.array([0.0, -9999.0], mask=[False, True]), r"ttest.low has a missing value .*\(1,\)"),
        (np.array([1j, 0]), "ttest.low is complex"),
        (np.array(["a", "b"]), "ttest.low holds text"),
    ],
)
def test_thresholds_that_are_no_numbers_are_refused(low: object, text: str) -> None:
    """So far they were groups without samples, or of the number behind the mask."""
    with pytest.raises(ConfigError, match=text):
        TTest(low=low)
