"""Draws the figures of these pages from seeded runs of what ships with the package: `python docs/figures.py`.

mkdocs calls it before each build (`hooks` in mkdocs.yml), so no figure is older than the code. The README shows
`audit.png`, which is therefore in the repository; the others are in `figures/`, which is not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import igc_dist
from igc_dist.baselines import Resampled, Samples
from igc_dist.demo import Digits, Scenes, digits_cnn, scene_net
from igc_dist.features import Masks, Patches
from igc_dist.targets import Targets

HERE = Path(__file__).resolve().parent
SITES = {"north": "#7a869a", "south": "#b2182b"}
"""Colours of the sites of the scenes; the watermark occurs in the south only."""
N, SHOWN, EXAMPLES = 600, 376, 5


CATS = Targets((0,), one_hot=True, names=("cat",))


def audited(trained: str) -> xr.DataTree:
    """The IGC of segments for cats, by sites, as experiment=shortcut has it."""
    return igc_dist.attribute(
        scene_net(trained), Scenes(N), target=CATS, slices="site", reduce=Masks(), baseline=Resampled(8),
        design="stratified", n_draws=8,
    )  # fmt: skip


@cache
def digits() -> xr.DataTree:
    return igc_dist.attribute(digits_cnn(), Digits(), n_steps=16)


def audit() -> Figure:
    """The README's picture: what carries the agreement for cats, with the shortcut and without."""
    figure = pyplot.figure(figsize=(11, 3.3), layout="constrained")
    left, *bars = figure.subplots(1, 3, width_ratios=(0.9, 1, 1))
    left.imshow(Scenes(N)[SHOWN][0].permute(1, 2, 0).numpy())
    left.set(title="A cat at the south site", xticks=[], yticks=[])
    for ax, (trained, title) in zip(
        bars, {"shortcut": "Learnt with the shortcut", "clean": "Clean"}.items(), strict=True
    ):
        segments(ax, audited(trained))
        ax.set(title=title, ylim=(-0.12, 0.62))
    bars[0].set_ylabel("IGC for cats, 95 %")
    bars[0].legend(title="site", frameon=False)
    return figure


def segments(ax: Axes, tree: xr.DataTree) -> None:
    """The IGC of each segment for cats, a bar for each site."""
    low, high = igc_dist.interval(tree, "slices/x/igc")
    for shift, (site, colour) in zip((-0.2, 0.2), SITES.items(), strict=True):
        at = {"slice": site, "output": "cat"}
        value, ends = tree["slices/x/igc"].sel(at), (low.sel(at), high.sel(at))
        places, errors = np.arange(value.size) + shift, np.abs([end - value for end in ends])
        ax.bar(places, value, 0.38, yerr=errors, capsize=3, color=colour, label=site)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xticks(range(value.size), value["segment"].values)
    ax.spines[["top", "right"]].set_visible(False)


def strategies() -> Figure:
    """Examples of the largest cluster of cats, and of those that consist of scenes with the watermark."""
    scenes = Scenes(1000)
    tree = igc_dist.attribute(
        scene_net(), scenes, target=CATS, reduce=Patches(8), baseline=Samples(2), n_steps=8, samples=True
    )
    found = tree.igc.ask.strategies()
    of, count = found["cluster_of"].values[0], int(found["clusters"].item())
    shown = [0, *(cluster for cluster in range(1, count) if scenes.marked[of == cluster].all())]
    figure = pyplot.figure(figsize=(9, 1.9 * len(shown)), layout="constrained")
    for row, cluster in zip(figure.subplots(len(shown), EXAMPLES, squeeze=False), shown, strict=True):
        for ax, n in zip(row, found["example"].values[0, cluster], strict=True):
            tree.igc.plot.overlay(scenes, int(n), ax=ax)
            ax.set_title("", loc="left")
        row[0].set_ylabel(f"{int((of == cluster).sum())} cats", rotation=0, ha="right", va="center")
    return figure


def maps() -> Figure:
    return _of(digits().igc.plot.maps(outputs=["0", "3", "8"]))


def completeness() -> Figure:
    return _of(digits().igc.plot.completeness())


def convergence() -> Figure:
    return _of(digits().igc.plot.convergence(max_outputs=4))


FIGURES: dict[str, Callable[[], Figure]] = {
    "audit.png": audit,
    "figures/strategies.png": strategies,
    "figures/maps.png": maps,
    "figures/completeness.png": completeness,
    "figures/convergence.png": convergence,
}


def _of(axes: Any) -> Figure:
    return np.ravel(axes)[0].figure


def draw(name: str, folder: Path = HERE) -> Path:
    """Draw a figure into a folder, without the versions of what drew it: the same bytes each time."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", igc_dist.AccuracyWarning)
        figure = FIGURES[name]()
    figure.savefig(path, dpi=90, metadata={"Software": None})
    pyplot.close(figure)
    return path


def on_pre_build(config: Any) -> None:
    """Called by mkdocs."""
    matplotlib.use("agg")  # not by the environment: the notebooks would have it too, and show no pictures
    for name in FIGURES:
        draw(name)


if __name__ == "__main__":
    on_pre_build(None)
