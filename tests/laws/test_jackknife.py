"""Laws of the jackknife: its standard errors are those of really leaving each fold out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

import igc_dist
from igc_dist.statistics import leave_one_out, standard_error
from tests import models
from tests.oracles import statistics as oracle


@given(groups=st.integers(2, 12), seed=st.integers(0, 1000))
def test_leave_one_out_leaves_one_out(groups: int, seed: int) -> None:
    """Prefix and suffix sums are the sums over all the others."""
    slots = np.random.default_rng(seed).standard_normal((groups, 2, 3))
    expected = [sum(slots[h] for h in range(groups) if h != g) for g in range(groups)]
    np.testing.assert_allclose(leave_one_out(slots), expected, rtol=1e-12, atol=1e-12)


def test_leaving_out_does_not_cancel() -> None:
    """A fold that is 1e16 times the others leaves no rounding behind when it is left out: nothing is subtracted."""
    slots = np.array([[1.0], [1e16], [2.0]])
    assert leave_one_out(slots).tolist() == [[1e16 + 2], [3.0], [1e16]]


def of_means(folds: Sequence[Sequence[int]], values: np.ndarray) -> np.ndarray:
    """The package's standard error of the mean of each column of `values`."""
    weight = np.array([[float(len(fold))] * values.shape[1] for fold in folds])
    sums = np.array([values[list(fold)].sum(0) for fold in folds])
    return standard_error(sums.sum(0) / weight.sum(0), leave_one_out(sums) / leave_one_out(weight), weight)


@given(sizes=st.lists(st.integers(1, 5), min_size=2, max_size=7), seed=st.integers(0, 1000))
def test_equals_brute_force_on_folds_of_any_size(sizes: list[int], seed: int) -> None:
    """The formula for unequal folds (Busing, Meijer, van der Leeden 1999), by leaving rows out one fold at a time."""
    values = np.random.default_rng(seed).standard_normal((sum(sizes), 2))
    edges = np.cumsum([0, *sizes])
    folds = [range(a, b) for a, b in pairwise(edges)]
    expected = oracle.jackknife(lambda rows: values[list(rows)].mean(0), folds)
    np.testing.assert_allclose(of_means(folds, values), expected, rtol=1e-9, atol=1e-12)


@given(groups=st.integers(2, 8), size=st.integers(1, 4), seed=st.integers(0, 1000))
def test_equal_folds(groups: int, size: int, seed: int) -> None:
    """For equal folds ``SE**2 = (G - 1) / G sum_g (t_(-g) - mean)**2``; with one row each, of a mean, the textbook s /
    sqrt(n)."""
    values = np.random.default_rng(seed).standard_normal((groups * size, 2))
    folds = [range(g * size, (g + 1) * size) for g in range(groups)]
    found = of_means(folds, values)
    expected = oracle.jackknife_of_equal_folds(lambda rows: values[list(rows)].mean(0), folds)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    if size == 1:
        np.testing.assert_allclose(found, values.std(0, ddof=1) / np.sqrt(groups), rtol=1e-9)


def test_what_is_not_defined_is_nan() -> None:
    """One fold, a NaN value, or a fold without which the value is NaN: no standard error. A fold of weight 0 does not
    count."""
    ones = np.ones((2, 2))
    assert np.isnan(standard_error(np.zeros(2), np.zeros((1, 2)), np.ones((1, 2)))).all()
    found = standard_error(np.array([np.nan, 1.0]), np.array([[1.0, np.nan], [1.0, 1.0]]), ones)
    assert np.isnan(found).all()
    weight = np.array([[1.0], [1.0], [0.0]])
    without = np.array([[2.0], [4.0], [3.0]])
    found = standard_error(np.array([3.0]), without, weight)
    np.testing.assert_allclose(
        found, oracle.jackknife_of_equal_folds(lambda rows: np.array([{0: 4.0, 1: 2.0}[rows[0]]]), [[0], [1]])
    )


def folds_of(tree: object, n_folds: int, n: int) -> list[list[int]]:
    """Rows of each fold, from the plan in the spec."""
    from igc_dist import seeds

    size = tree.attrs["spec"]["plan"]["fold_size"]  # type: ignore[attr-defined]
    order = seeds.generator(0, 0, "plan.folds").permutation(n)
    return [order[g * size : (g + 1) * size].tolist() for g in range(-(-n // size))]


def test_run_equals_running_again_without_each_fold() -> None:
    """Every standard error of a run is that of running again on the data without each fold, here folds of 3, 3, 3 and
    2."""
    n, model = 11, models.mlp(torch.nn.GELU)
    x, y = models.data(model, n)
    both = {"statistics": ["correlation", "autocorrelation", "moments"], "n_steps": 3}
    tree = igc_dist.attribute(model, (x, y), n_folds=4, **both)
    folds = folds_of(tree, 4, n)
    assert sorted(row for fold in folds for row in fold) == list(range(n))
    again: dict[tuple[int, ...], object] = {}

    def run(name: str, rows: Sequence[int]) -> np.ndarray:
        key = tuple(rows)
        if key not in again:
            again[key] = igc_dist.attribute(model, (x[list(rows)], y[list(rows)]), n_folds=1, **both)
        return again[key][name].values  # type: ignore[index]

    for name in ("x/igc", "x/igac", "x/ig_mean", "x/ig_std", "igc_sum", "igac_sum", "correlation", "baseline_term"):
        expected = oracle.jackknife(lambda rows, name=name: run(name, rows), folds)
        np.testing.assert_allclose(tree[f"{name}_se"], expected, rtol=1e-9, atol=1e-12, err_msg=name)


def test_class_in_a_single_fold_has_no_standard_error() -> None:
    """A class whose one sample is left out is constant there: NaN, not the quotient of two roundings."""
    model = models.mlp(torch.nn.GELU, n_out=3)
    x, _ = models.data(model, 30)
    label = torch.zeros(30, dtype=torch.long)
    label[7], label[::3] = 2, 1
    tree = igc_dist.attribute(model, (x, label), target="one_hot", n_folds=6, n_steps=2)
    assert np.isfinite(tree["x/igc"]).all()
    assert np.isfinite(tree["x/igc_se"][:2]).all()
    for name in ("x/igc_se", "igc_sum_se", "correlation_se"):
        assert np.isnan(tree[name][2]).all(), name
