"""Differences with their intervals, p values and bands: known tests of scipy are special cases of them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from igc_dist.records import ConfigError
from igc_dist.results import Level
from igc_dist.results.differences import band, corrected, reach
from igc_dist.results.folds import Estimate
from igc_dist.statistics import benjamini_hochberg, deviations, holm, leave_one_out, p_values, standard_error

RNG = np.random.default_rng(0)


def of_means(values: np.ndarray) -> Estimate:
    """The mean of samples (n, J, P), one to a fold."""
    n = np.ones(values.shape[:2])
    left = leave_one_out(values) / leave_one_out(n)[:, :, None]
    freedom = np.full(values.shape[1:], len(values) - 1.0)
    return Estimate(values.mean(0), deviations(values.mean(0), left, n), freedom)


def p_of(of: Estimate) -> np.ndarray:
    return p_values(of.value, of.se, of.freedom)


def test_deviations_add_up_to_the_standard_error() -> None:
    """For folds of unequal weight too; a fold without weight adds nothing, an undefined result is NaN."""
    weight = RNG.integers(1, 9, (7, 2)).astype(float)
    weight[3, 1] = 0.0
    sums = RNG.standard_normal((7, 2, 4)) * weight[:, :, None]
    whole = sums.sum(0) / weight.sum(0)[:, None]
    left = leave_one_out(sums) / leave_one_out(weight)[:, :, None]
    whole[0, 2] = np.nan
    found = deviations(whole, left, weight)
    np.testing.assert_allclose(np.sqrt((found**2).sum(0)), standard_error(whole, left, weight), rtol=1e-12)
    assert (found[3, 1] == 0).all()
    assert np.isnan(found[:, 0, 2]).all()


def test_differences_of_means_are_those_of_t_tests() -> None:
    """Of the same samples the paired test, of other samples Welch's: p values and intervals are scipy's."""
    one, two = RNG.standard_normal((9, 2, 3)), 0.5 + 2 * RNG.standard_normal((9, 2, 3))
    paired = of_means(two).minus(of_means(one), paired=True)
    want = scipy.stats.ttest_rel(two, one)
    np.testing.assert_allclose(p_of(paired), want.pvalue, rtol=1e-9)
    ends = want.confidence_interval(0.9)
    np.testing.assert_allclose(paired.value - reach(paired, 0.9), ends.low, rtol=1e-9)
    more = np.concatenate([two, RNG.standard_normal((5, 2, 3))])
    apart = of_means(more).minus(of_means(one), paired=False)
    want = scipy.stats.ttest_ind(more, one, equal_var=False)
    np.testing.assert_allclose(p_of(apart), want.pvalue, rtol=1e-9)
    np.testing.assert_allclose(apart.value + reach(apart, 0.9), want.confidence_interval(0.9).high, rtol=1e-9)
    np.testing.assert_allclose(p_of(of_means(one)), scipy.stats.ttest_1samp(one, 0).pvalue, rtol=1e-9)


def test_holm_is_the_step_down_of_the_smallest() -> None:
    """By hand: of 0.01, 0.04, 0.03 it is 3 x 0.01, then 2 x 0.03, then the larger of 0.06 and 0.04."""
    p = np.array([[0.01, 0.04, np.nan], [0.03, 0.9, np.nan]])
    np.testing.assert_allclose(holm(p), [[0.04, 0.09, np.nan], [0.09, 0.9, np.nan]])
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]


def test_false_discoveries_as_in_the_paper() -> None:
    """The example of Benjamini and Hochberg 1995: 4 of 15 are rejected at 5 %, where Holm rejects 3."""
    p = np.array([0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344])
    p = np.concatenate([p, [0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0, np.nan]])[::-1]
    assert (benjamini_hochberg(p) <= 0.05).sum() == 4
    assert (holm(p) <= 0.05).sum() == 3
    assert np.isnan(benjamini_hochberg(p)[0])
    np.testing.assert_allclose(benjamini_hochberg(p)[-4], 15 / 4 * 0.0095)
    assert np.isnan(benjamini_hochberg(np.full(3, np.nan))).all()


def test_features_are_corrected_within_their_output_over_all_inputs() -> None:
    """And what is 0 with and without each fold is no test: it neither is significant nor makes others less so."""
    values = RNG.standard_normal((8, 2, 5)) + np.array([3.0, 0, 0, 0, 2.0])
    values[:, 1, 1] = 0.0
    parts = {"a": of_means(values[:, :, :2]), "b": of_means(values[:, :, 2:])}
    found = corrected(parts)
    for j in range(2):
        p = scipy.stats.ttest_1samp(values[:, j], 0).pvalue
        tested = ~np.isnan(p)
        assert tested.sum() == 5 - j
        both = np.concatenate([found["a"].fdr[j], found["b"].fdr[j]])
        np.testing.assert_allclose(both[tested], scipy.stats.false_discovery_control(p[tested]), rtol=1e-9)
        np.testing.assert_allclose(np.concatenate([found["a"].holm[j], found["b"].holm[j]]), holm(p), rtol=1e-9)
    assert not found["a"].significant(0.99)[1, 1]
    assert found["a"].significant(0.05)[0, 0]


def test_the_band_of_one_feature_is_its_interval() -> None:
    """So is that of several features that are the same; and a constant one beside them changes nothing."""
    one = RNG.standard_normal((12, 1, 1))
    alone = of_means(one)
    many = of_means(np.concatenate([one, 2 * one, -one, 0 * one], axis=2))
    half = band({"x": many}, Level())["x"]
    np.testing.assert_allclose(half[0, :3] / many.se[0, :3], reach(alone, 0.95)[0, 0] / alone.se[0, 0], rtol=0.06)
    assert half[0, 3] == 0
    np.testing.assert_allclose(half[0, 0], band({"x": alone}, Level())["x"][0, 0], rtol=1e-9)


def test_the_band_of_unlike_features_is_between_one_interval_and_all_corrected() -> None:
    """After Sidak: features that know nothing of each other need all of that correction."""
    found = of_means(RNG.standard_normal((16, 1, 40)))
    half = band({"x": found}, Level())["x"] / found.se
    sidak = scipy.stats.t.ppf(1 - (1 - 0.95 ** (1 / 40)) / 2, 15)
    np.testing.assert_allclose(half, half[0, 0])
    assert 0.95 * sidak < half[0, 0] < 1.03 * sidak
    assert half[0, 0] > 1.4 * scipy.stats.t.ppf(0.975, 15)


def test_bands_are_the_same_for_any_number_of_features_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {name: of_means(RNG.standard_normal((8, 2, 20))) for name in "ab"}
    whole = band(parts, Level())
    monkeypatch.setattr("igc_dist.results.differences.AT_ONCE", 7)
    for name, half in band(parts, Level()).items():
        np.testing.assert_allclose(half, whole[name], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("n_folds", [8, 32])
@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_bands_hold_all_true_values_at_once(n_folds: int, alike: float) -> None:
    """In 95 % of repetitions (each output is one), for features that depend on each other or not."""
    rng, n, features = np.random.default_rng(1), 600, 50
    held = []
    for _ in range(3):
        shared = rng.standard_normal((n_folds, n, 1))
        values = np.sqrt(alike) * shared + np.sqrt(1 - alike) * rng.standard_normal((n_folds, n, features))
        found = of_means(values)
        held.append((np.abs(found.value) <= band({"x": found}, Level())["x"]).all(1))
    assert 0.93 <= np.mean(held) <= 0.97


@pytest.mark.parametrize("wrong", [{"level": 1.0}, {"fdr": 0.0}, {"level": 95.0}])
def test_levels_are_shares(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="give a number between 0 and 1"):
        Level(**wrong)
