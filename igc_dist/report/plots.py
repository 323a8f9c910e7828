"""``tree.igc.plot``: the pictures of the page for Python, on axes of their own or of the user."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from igc_dist.records import ConfigError, near
from igc_dist.report.charts import (
    completeness_figure,
    completeness_on,
    convergence_figure,
    convergence_on,
    curves_of,
    gap_parts,
)
from igc_dist.report.contents import all_inputs, inputs, labels, main_map, map_names
from igc_dist.report.curves import curve_names, curves_figure, curves_on, scores_of
from igc_dist.report.drawing import MAP, draw_maps, draw_on
from igc_dist.report.maps import Maps, read_maps
from igc_dist.report.overlays import draw_overlay, overlay_of
from igc_dist.report.panels import house_style, name_lines
from igc_dist.report.ranked import ranked_figure, ranked_on, read_ranked
from igc_dist.report.selection import selected
from igc_dist.report.slicing import read_slices

Panels = Any
"""One axes, or an array of them."""


class Plots:
    """Pictures of a result, as ``tree.igc.plot``. Each method returns the axes it drew on.

    Without `ax` a figure of pyplot is made, laid out as on the page, and its axes are returned as an array. With `ax`,
    one axes or several, these are drawn on and returned; their figure and the settings of matplotlib stay as they were.
    `outputs`: names or numbers, in this order; without them, at most `max_outputs`, the first ones. `input`: the name
    of an input, the first one if None. Each method raises `ConfigError` for what the result does not have, and for a
    number of axes that does not fit.
    """

    def __init__(self, tree: xr.DataTree, fetch: Callable[[Any, list[int]], list[np.ndarray]]) -> None:
        """`fetch`: samples of some data, as an array (n, *P) for each input."""
        self._tree, self._fetch = tree, fetch

    def maps(
        self,
        name: str | None = None,
        *,
        input: str | None = None,
        outputs: Sequence[str | int] | None = None,
        max_outputs: int = 32,
        ax: Panels = None,
    ) -> Panels:
        """The maps of array `name` (the main one if None), one axes for each output, all on one scale.

        Without `ax`, each map is beside its standard error.
        """
        tree = selected(self._tree, outputs)
        group = self._mapped(input)
        known = map_names(inputs(tree)[group])
        name = name or main_map(inputs(tree)[group])
        if name not in known:
            raise ConfigError(f"input {group!r} has no array {name!r}{near(str(name), known)}: it has {_told(known)}")
        return _maps(read_maps(tree, group, name, _many(outputs, max_outputs)), ax)

    def slices(
        self,
        *,
        input: str | None = None,
        outputs: Sequence[str | int] | None = None,
        max_outputs: int = 8,
        ax: Panels = None,
    ) -> Panels:
        """The maps of at most four slices, all on one scale, then their differences from the first slice.

        Each output takes two axes less one for the number of slices times two.
        """
        tree = selected(self._tree, outputs)
        return _maps(read_slices(tree, self._mapped(input), _many(outputs, max_outputs)), ax)

    def completeness(
        self, *, outputs: Sequence[str | int] | None = None, max_outputs: int = 32, ax: Panels = None
    ) -> Panels:
        """Correlation and sum of the map of each output, the parts of their gap. One axes takes the first alone."""
        tree, most = selected(self._tree, outputs), _many(outputs, max_outputs)
        if (parts := gap_parts(tree)) is None:
            raise ConfigError("the maps of this method need not sum to the correlation: there is no completeness")
        with _style():
            if ax is None:
                return _panels(completeness_figure(tree, most, pyplot.figure))
            panels = _given(ax, {1, 1 + len(parts)})
            completeness_on(panels, tree, most)
        return ax

    def convergence(
        self, *, outputs: Sequence[str | int] | None = None, max_outputs: int = 32, ax: Panels = None
    ) -> Panels:
        """Correlation, sum of the map and distance to the final map over samples. One axes is for the first alone."""
        tree, most = selected(self._tree, outputs), _many(outputs, max_outputs)
        if not (series := curves_of(tree)):
            raise ConfigError("this result has no convergence: it needs the samples in two folds or more (n_folds)")
        with _style():
            if ax is None:
                return _panels(convergence_figure(tree, most, pyplot.figure))
            panels = _given(ax, {1, len(series)})
            convergence_on(panels, tree, most)
            name_lines(panels[0], labels(tree)[:most])
        return ax

    def segments(
        self,
        name: str | None = None,
        *,
        input: str | None = None,
        outputs: Sequence[str | int] | None = None,
        max_outputs: int = 32,
        top: int = 16,
        level: float = 0.95,
        ax: Panels = None,
    ) -> Panels:
        """Segments, bands or columns: the `top` of each output as bars by value, with intervals. An axes per output."""
        tree, group = selected(self._tree, outputs), self._mapped(input)
        ranked = read_ranked(
            tree, group, name or main_map(inputs(tree)[group]), _many(outputs, max_outputs), top, level
        )
        with _style():
            if ax is None:
                return _panels(ranked_figure(ranked, pyplot.figure))
            ranked_on(_given(ax, {len(ranked)}), ranked)
        return ax

    def overlay(
        self,
        data: Any,
        i: int,
        *,
        output: str | int | None = None,
        input: str | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Sample `i` of `data` in grey under its attribution, or under the map of the data set if none was kept.

        `data`: as for `igc_dist.attribute`; `i` is a place in it. `output`: the one with the largest target if None.
        Colours end at the 99th percentile of the magnitudes; where a value is small, the picture is seen.
        """
        group = self._input(input)
        drawn = overlay_of(self._tree, group, i, output)
        images, names = self._fetch(data, [i]), all_inputs(self._tree)
        if len(images) != len(names):
            raise ConfigError(f"samples of these data have {len(images)} inputs, those of the result {_told(names)}")
        with _style():
            ax = ax or pyplot.figure(figsize=(4.6, 4.2), layout="constrained").subplots()
            draw_overlay(ax, images[names.index(group)][0], drawn)
        return ax

    def curves(self, scores: xr.Dataset | None = None, *, level: float = 0.95, ax: Panels = None) -> Panels:
        """Curves of `scores` from `igc_dist.metrics.score` (those that the result holds, if None), an axes for each.

        Lines are means over samples with their intervals, one for each output.
        """
        scores = scores_of(self._tree) if scores is None else scores
        names = curve_names(scores)
        with _style():
            if ax is None:
                return _panels(curves_figure(scores, level, pyplot.figure))
            curves_on(_given(ax, {len(names)}), scores, level)
        return ax

    def _input(self, name: str | None) -> str:
        known = all_inputs(self._tree)
        if name is None and known:
            return known[0]
        if name not in known:
            raise ConfigError(f"input {name!r} is none of the result: it has {_told(known)}")
        return str(name)

    def _mapped(self, name: str | None) -> str:
        """An input that has maps over the data set."""
        if (group := self._input(name)) not in inputs(self._tree):
            raise ConfigError(f"input {group!r} has no maps over the data set, only attributions of samples: overlay()")
        return group


@contextmanager
def _style() -> Iterator[None]:
    """The page's style, which leaves the interactive mode as it is at the end.

    The backend of notebooks turns it on when the first figure is made; restored, later pictures would not be shown.
    """
    with house_style():
        yield
        interactive = matplotlib.is_interactive()
    matplotlib.interactive(interactive)


def _maps(maps: Maps, ax: Panels) -> Panels:
    with _style():
        if ax is None:
            return _panels(draw_maps(maps, pyplot.figure))
        draw_on(_given(ax, {1 if maps.values.ndim == 1 else len(maps.labels)}), maps)
    return ax


def _given(ax: Panels, fitting: set[int]) -> list[Axes]:
    panels = list(np.ravel(np.asarray(ax, dtype=object)))
    if len(panels) not in fitting or not all(isinstance(axes, Axes) for axes in panels):
        wanted = " or ".join(str(count) for count in sorted(fitting))
        raise ConfigError(
            f"ax holds {len(panels)}, this picture takes {wanted} matplotlib axes: give these or outputs="
        )
    return panels


def _panels(figure: Figure | None) -> Panels:
    """The axes of a figure that hold data."""
    assert figure is not None
    marked = [axes for axes in figure.axes if axes.get_label() == MAP]
    return np.array(marked or figure.axes, dtype=object)


def _many(outputs: Sequence[str | int] | None, most: int) -> int:
    return most if outputs is None else max(len(outputs), 1)


def _told(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
