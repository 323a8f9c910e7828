"""Which features of a map differ from zero, and their outline."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from igc_dist.report.contents import Floats
from igc_dist.statistics import benjamini_hochberg, p_values

RATE = 0.05
"""The false discovery rate."""
OUTLINE = "#111111"
WIDEST, SHARE, LEAST = 0.8, 0.12, 0.15
"""Points of the line: at most, of a cell's width, and at least. In smaller cells lines would hide what they border."""


def significant(values: Floats, errors: Floats | None, folds: Floats | None) -> np.ndarray | None:
    """Of each feature (O, *F) of these maps whether it differs from zero.

    ``t = value / SE`` against Student's t with one degree of freedom less than the output has folds, then Benjamini and
    Hochberg at a false discovery rate of 5 % over the features of each output. Where channels were summed, SE is an
    upper bound, so fewer are found. None without standard errors.
    """
    if errors is None or folds is None:
        return None
    freedom = np.maximum(folds - 1, 0).reshape(-1, *(1,) * (values.ndim - 1))
    p = p_values(values, errors, freedom)
    with np.errstate(invalid="ignore"):
        return np.stack([benjamini_hochberg(each.ravel()).reshape(each.shape) <= RATE for each in p])


def outline(axes: Axes, chosen: np.ndarray) -> None:
    """Draw the borders of the chosen cells (height, width) along their edges, unless cells are too small for it."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    room = axes.get_position().width * figure.get_size_inches()[0] * 72 / chosen.shape[1]
    if room * SHARE < LEAST:
        return
    whole = np.pad(chosen, 1)
    rows, columns = np.nonzero(whole[1:, 1:-1] != whole[:-1, 1:-1])
    level = np.stack([np.stack([columns, columns + 1], -1), np.stack([rows, rows], -1)], -1) - 0.5
    rows, columns = np.nonzero(whole[1:-1, 1:] != whole[1:-1, :-1])
    upright = np.stack([np.stack([columns, columns], -1), np.stack([rows, rows + 1], -1)], -1) - 0.5
    axes.add_collection(
        LineCollection([*level, *upright], colors=OUTLINE, linewidths=min(WIDEST, SHARE * room)), autolim=False
    )
