"""What differs from zero on a map, and its outline: against scipy's test of one sample, and edges counted by hand."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import scipy.stats
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from igc_dist.report.drawing import draw_images
from igc_dist.report.explorer import bits
from igc_dist.report.maps import Maps
from igc_dist.report.significance import outline, significant


def test_features_are_those_of_a_t_test() -> None:
    """Values and errors are those of a mean over folds, so the p values are those of a test of one sample."""
    draw = np.random.default_rng(0)
    folds = draw.normal(size=(4, 2, 5, 6)) + np.linspace(0, 6, 30).reshape(5, 6)
    values, errors = folds.mean(0), folds.std(0, ddof=1) / 2
    p = scipy.stats.ttest_1samp(folds, 0.0).pvalue
    wanted = np.stack([scipy.stats.false_discovery_control(each.ravel()).reshape(5, 6) <= 0.05 for each in p])
    found = significant(values, errors, np.array([4.0, 4.0]))
    assert 0 < wanted.sum() < wanted.size
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("folds", [np.array([1.0]), np.array([0.0])])
def test_nothing_is_known_of_one_fold(folds: np.ndarray) -> None:
    assert not significant(np.ones((1, 4)), np.full((1, 4), 0.1), folds).any()


def test_what_has_no_error_is_not_outlined() -> None:
    """NaN, and features whose value never changes: they have no test, and do not count among the tests."""
    values = np.array([[5.0, 5.0, np.nan, 5.0]])
    errors = np.array([[0.1, 0.0, 0.1, np.nan]])
    assert significant(values, errors, np.array([8.0])).tolist() == [[True, False, False, False]]
    assert significant(values, None, np.array([8.0])) is None


def edges(axes: object) -> set[tuple[tuple[float, float], ...]]:
    (drawn,) = [each for each in axes.collections if isinstance(each, LineCollection)]
    return {tuple(map(tuple, each.tolist())) for each in drawn.get_segments()}


def test_the_outline_runs_along_the_edges() -> None:
    """Two cells side by side have six edges, in the coordinates of pixels."""
    axes = Figure().subplots()
    chosen = np.zeros((3, 4), bool)
    chosen[1, 1:3] = True
    outline(axes, chosen)
    level = {((x, y), (x + 1, y)) for x in (0.5, 1.5) for y in (0.5, 1.5)}
    assert edges(axes) == level | {((x, 0.5), (x, 1.5)) for x in (0.5, 2.5)}
    tiny = Figure().subplots()
    outline(tiny, np.ones((500, 500), bool))
    assert not tiny.collections  # lines would hide the cells


def maps(values: np.ndarray, name: str = "igc") -> Maps:
    errors = np.full(values.shape, 0.1)
    return Maps(name, values, errors, [str(k) for k in range(len(values))], [""] * len(values), [], "",
                folds=np.full(len(values), 8.0))  # fmt: skip


def test_each_output_has_its_own() -> None:
    values = np.zeros((2, 3, 3))
    values[0, 0, 0], values[1, 2, 1] = 4.0, -4.0
    panels = [axes for axes in draw_images(maps(values)).axes if axes.get_label() == "map"]
    assert len(edges(panels[0])) == len(edges(panels[1])) == 4
    assert ((-0.5, -0.5), (0.5, -0.5)) in edges(panels[0])
    assert ((0.5, 2.5), (1.5, 2.5)) in edges(panels[1])
    assert maps(values, "ig_std").sure is None  # a deviation is above zero anyway


def test_the_script_gets_the_same_cells() -> None:
    """Eight in a byte, the highest bit first, output after output."""
    values = np.where(np.random.default_rng(1).random((3, 5, 7)) < 0.5, 4.0, 0.0)
    packed = bits(maps(values), 2)
    assert packed is not None
    found = np.unpackbits(np.frombuffer(base64.b64decode(packed), np.uint8))[:70].reshape(2, 5, 7)
    np.testing.assert_array_equal(found, values[:2] > 0)
