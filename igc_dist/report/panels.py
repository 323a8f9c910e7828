"""What is drawn on one axes: a map, bars, curves, and the parts of completeness. The page and `plot` use the same.

Names are text of others, so no panel takes a "$" for mathematics, also where the axes are the user's.

Shape legend: O outputs drawn, K folds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogFormatter

from igc_dist.report.contents import Floats

WIDTH = 11.0  # inches of a full-width figure
MANY_BARS = 64  # longer features are drawn as an outline, as bars would be thinner than a pixel
ROUNDING = 1e-12  # a part of the gap below this is float64 rounding
NAMED_LINES = 10  # more outputs than this are drawn as one grey bundle with its median
POSITIVE, NEGATIVE, MISSING, HATCH = "#b2182b", "#2166ac", "#e4e4e4", "#a8a8a8"


@contextmanager
def house_style() -> Iterator[None]:
    """Use matplotlib's defaults with few changes, whatever the user's matplotlibrc says; restored afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "text.parse_math": False,  # a "$" in an output's name is a plain dollar sign
                "font.size": 9,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "hatch.linewidth": 0.6,
            }
        )
        yield


def draw_totals(axes: Axes, correlation: Floats, total: Floats, spread: Floats | None) -> None:
    """Correlation (circle, half of its 95 % interval) and sum of the map (cross), one row per output."""
    place = np.arange(total.size)
    if spread is not None:
        axes.hlines(place, correlation - spread, correlation + spread, color=NEGATIVE, linewidth=1)
    axes.plot(
        correlation, place, "o", color=NEGATIVE, mfc="white", markersize=7, label="correlation of prediction and target"
    )
    axes.plot(total, place, "x", color=POSITIVE, markersize=5, label="sum of the map")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8, borderaxespad=0)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def draw_part(axes: Axes, title: str, values: Floats) -> None:
    """One part of the gap as bars, one row per output. A part that is only rounding is labelled as zero."""
    entitle(axes, title, pad=6.0)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    if np.all(np.abs(np.nan_to_num(values)) < ROUNDING):
        axes.set(xlim=(-1, 1), xticks=[0])
        said = "zero, up to rounding" if np.isfinite(values).any() else "undefined"
        axes.text(
            0.5, 0.5, said, transform=axes.transAxes, ha="center", va="center", fontsize=8, backgroundcolor="white"
        )
        return
    axes.barh(np.arange(values.size), np.nan_to_num(values), color="#4d4d4d", height=0.6)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3))
    axes.locator_params(axis="x", nbins=4)


def draw_curves(axes: Axes, samples: Floats, values: Floats, *, logarithmic: bool) -> None:
    """Draw one line per output over its samples. Undefined values leave gaps.

    A few lines have colours and names; many lines are grey with their median.
    """
    few = values.shape[1] <= NAMED_LINES
    values = np.where(np.isfinite(values) & ~((values <= 0) & logarithmic), values, np.nan)
    marker = "." if len(values) <= 8 else ""
    for index in range(values.shape[1]):
        color, width = (f"C{index}", 1.4) if few else ("#bbbbbb", 0.7)
        axes.plot(samples[:, index], values[:, index], marker=marker, color=color, linewidth=width)
    known = np.isfinite(values).any(axis=1)
    if not few:
        axes.plot(np.median(samples[known], axis=1), np.nanmedian(values[known], axis=1), color=POSITIVE, linewidth=2)
    if logarithmic and known.any():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter())
    axes.grid(color="#dddddd", linewidth=0.6)


def name_lines(axes: Axes, names: Sequence[str], figure: Figure | None = None) -> None:
    """Names of the lines beside the axes, or at the edge of the figure, if they are few.

    Names are set afterwards, because matplotlib would hide a name that begins with an underscore.
    """
    if len(names) > NAMED_LINES:
        return
    handles, numbers = axes.get_lines()[-len(names) :], [str(index) for index in range(len(names))]
    if figure is not None:
        legend = figure.legend(handles, numbers, loc="outside right upper", frameon=False)
    else:
        legend = axes.legend(handles, numbers, loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)


def entitle(axes: Axes, text: str, size: float = 9.0, pad: float = 3.0) -> None:
    """A title at the left above a panel."""
    axes.set_title(text, loc="left", fontsize=size, pad=pad, parse_math=False)


def draw_image(axes: Axes, values: Floats, norm: Normalize, cmap: Colormap, flag: str = "") -> AxesImage:
    """A map (height, width), with its undefined cells hatched. `flag` says why a whole map is undefined."""
    height, width = values.shape
    square = 0.25 <= height / width <= 2.0
    image = axes.imshow(values, norm=norm, cmap=cmap, aspect="equal" if square else "auto")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=HATCH, linewidth=0.6)
    mark_missing(axes, values, flag)
    return image


def symmetric_norm(values: Floats) -> Normalize:
    """The colour scale -m .. m, where m is the largest finite |value| (1 if none), so that zero is in the middle."""
    limit = largest(values)
    return Normalize(-limit, limit)


def positive_norm(values: Floats) -> Normalize:
    """The colour scale 0 .. m, where m is the largest finite value, for standard errors and deviations."""
    return Normalize(0.0, largest(values))


def largest(values: Floats) -> float:
    """The largest finite magnitude, or 1 if no value is finite or all are zero, because a scale needs a width."""
    magnitude = np.abs(values[np.isfinite(values)])
    top = float(magnitude.max()) if magnitude.size else 0.0
    return top if top > np.finfo(np.float64).tiny else 1.0


def colours(name: str) -> Colormap:
    """A colour map that leaves undefined cells transparent, so that the hatching below is visible."""
    return matplotlib.colormaps[name].with_extremes(bad=(0, 0, 0, 0))


def axes_at(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes placed in inches from the upper left corner."""
    wide, high = figure.get_size_inches()
    return figure.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))


def scale_beside(panels: Sequence[Axes], norm: Normalize, cmap: Colormap, title: str) -> None:
    """A colour bar to the right of axes that somebody else laid out."""
    bar = panels[0].figure.colorbar(ScalarMappable(norm, cmap), ax=list(panels))
    bar.set_label(title, parse_math=False)


def draw_scale(figure: Figure, place: int, panels: int, norm: Normalize, cmap: Colormap, title: str) -> None:
    """A horizontal colour bar at the top of the figure, in the `place`-th of `panels` equal parts."""
    part = min(float(figure.get_size_inches()[0]), WIDTH) / panels
    axes = axes_at(figure, place * part + 0.3, 0.27, min(part - 0.7, 3.4), 0.13)
    limits = [float(bound) for bound in norm.inverse(np.array([0.0, 1.0]))]
    bar = figure.colorbar(ScalarMappable(norm, cmap), cax=axes, orientation="horizontal")
    bar.set_ticks(sorted({0.0, *limits}))
    bar.ax.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    bar.ax.tick_params(labelsize=8, length=2)
    axes.set_title(title, fontsize=9, loc="left", pad=4)


def mark_missing(axes: Axes, values: Floats, flag: str) -> None:
    """Hatch undefined cells of an image. If a whole map is undefined, also write the reason."""
    undefined = ~np.isfinite(values)
    if not undefined.any():
        return
    if values.ndim == 2:
        axes.add_patch(hatching(axes))
    if undefined.all():
        reason = (flag or "no finite value").replace(", ", "\n").replace(" ", "\n")
        style = {"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": "none", "alpha": 0.9}
        axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", va="center", fontsize=7.5, bbox=style)


def hatching(axes: Axes) -> Rectangle:
    """The hatched background for undefined cells, as large as the axes and below everything."""
    return Rectangle(
        (0, 0), 1, 1, transform=axes.transAxes, facecolor=MISSING, edgecolor=HATCH, hatch="////", linewidth=0, zorder=-1
    )


def bars_with_errors(axes: Axes, values: Floats, errors: Floats | None) -> None:
    """Draw bars in the colours of the maps, with whiskers of a length and hatched gaps.

    Many bars are drawn as an outline, with the whiskers as a band.
    """
    place, edges = np.arange(values.size), np.arange(values.size + 1) - 0.5
    low, high = (values, values) if errors is None else (values - errors, values + errors)
    if values.size > MANY_BARS:
        axes.stairs(np.maximum(values, 0), edges, fill=True, color=POSITIVE)
        axes.stairs(np.minimum(values, 0), edges, fill=True, color=NEGATIVE)
        axes.fill_between(place, low, high, step="mid", color="black", alpha=0.3, linewidth=0)
    else:
        axes.bar(place, values, color=np.where(values < 0, NEGATIVE, POSITIVE).tolist())
        axes.vlines(place, low, high, color="black", linewidth=1)
    gaps = np.where(np.isfinite(values), np.nan, 1.0)
    if np.isfinite(gaps).any():
        whole = axes.get_xaxis_transform()
        axes.stairs(
            gaps,
            edges,
            fill=True,
            transform=whole,
            facecolor=MISSING,
            edgecolor=HATCH,
            hatch="////",
            linewidth=0,
            zorder=-1,
        )
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xlim(-0.8, values.size - 0.2)


def heading(label: str) -> str:
    """The title of an output's panel. A bare number gets a word in front that says what it counts."""
    return short(whole_heading(label))


def whole_heading(label: str) -> str:
    """The same in full, for a panel of any size."""
    return f"output {label}" if label.isdigit() else label


def short(text: str, limit: int = 26) -> str:
    """Text shortened to fit above a panel. The tables have the full text."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
