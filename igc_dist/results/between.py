"""Differences between slices of a result, and the tree in which differences are told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from igc_dist.results.differences import Level, band, corrected, reach
from igc_dist.results.folds import Estimate, Folds
from igc_dist.results.stored import chosen


def between_slices(
    tree: xr.DataTree,
    slices: Sequence[str] | None = None,
    outputs: Sequence[str | int] | None = None,
    of: str | None = None,
    how: Level = Level(),  # noqa: B008 - it is frozen
) -> xr.DataTree:
    """How the maps of slices differ from the map of the first one, with intervals over the same folds.

    `tree`: a result of `attribute` or `open` that was run with slices. `slices`: their labels, the first is the one
    that others are compared with; None: all. `outputs`: names or numbers; None: all. `of`: the map, "igc" or another
    one with standard errors.

    Returns a tree with dimensions (pair, output). For the whole, ``correlation`` and ``igc_sum`` (of the map), and in
    the group of each input ``difference`` (pair, output, *features), which is that of a slice less that of the first.
    Each comes with ``_se``, ``_ci_low`` and ``_ci_high`` (Student's t), the map also with

    * ``band_low``, ``band_high``: a band that holds the true differences of all features of an output at once;
    * ``p``, ``p_holm``, ``p_fdr``: p values as they are, and corrected for all features of an output (of all inputs)
      after Holm and after Benjamini and Hochberg; NaN where nothing varies;
    * ``significant``: ``p_fdr <= how.fdr``; ``first``, ``second``: the two maps (of ``pair_first``, ``pair_second``).

    Raises `ConfigError` for names that are not there, and `StoreError` for a tree without the states of its folds.
    """
    folds = Folds(tree)
    name, numbers = folds.map_name(of), folds.slices(slices)
    (first, at), *others = numbers.items()
    pairs = [Pair(f"{other} - {first}", first, other) for other in numbers if other != first]

    def cut(places: Sequence[int]) -> list[tuple[Parts, Parts]]:
        found = folds.estimates(places, name, slices=True)
        one = {part: each[at] for part, each in found.items()}
        return [(one, {part: each[number] for part, each in found.items()}) for _, number in others]

    asked = Asked(folds, chosen(folds, outputs), cut)
    return asked.answer(
        pairs, how, {"question": "slices", "map": name, "paired": True, "pairing": "paired, over the same folds"}
    )


Parts = Mapping[str, Estimate]


@dataclass(frozen=True)
class Pair:
    """Two populations that are compared: `second` less `first`."""

    name: str
    first: str
    second: str


@dataclass(frozen=True)
class Asked:
    """Estimates of two populations for each pair, a few outputs at a time. `paired`: over the same folds."""

    folds: Folds
    outputs: Sequence[int]
    cut: Any
    paired: bool = True

    def answer(self, pairs: Sequence[Pair], how: Level, about: Mapping[str, Any]) -> xr.DataTree:
        """The tree of `between_slices` for these pairs."""
        columns: dict[str, list[np.ndarray]] = {}
        for places in self.folds.cuts(self.outputs):
            rows = [{**dict(self._compared(one, two, how))} for one, two in self.cut(places)]
            for path in rows[0]:
                columns.setdefault(path, []).append(np.stack([row[path] for row in rows]))
        whole = {path: np.concatenate(cuts, axis=1) for path, cuts in columns.items()}
        shapes = self.folds.plan.shapes
        dims_of = {"": (), **dict(zip(shapes.input_names, shapes.dims, strict=True))}
        coords = {
            "pair": [pair.name for pair in pairs],
            "output": self.folds.names[list(self.outputs)],
        }
        groups: dict[str, dict[str, Any]] = {group: {} for group in dims_of}
        groups[""] = {f"pair_{at}": ("pair", [getattr(pair, at) for pair in pairs]) for at in ("first", "second")}
        for path, values in whole.items():
            group, _, leaf = path.rpartition("/")
            groups[group][leaf] = (("pair", "output", *dims_of[group]), values)
        found = xr.DataTree.from_dict(
            {f"/{group}": xr.Dataset(arrays, coords | self._named(group)) for group, arrays in groups.items()}
        )
        found.attrs = {**about, "level": how.level, "fdr": how.fdr}
        return found

    def _named(self, group: str) -> dict[str, Any]:
        """The coordinates of the features of an input, where they have names."""
        its = self.folds.tree.children[group].coords if group else {}
        return {str(name): coordinate for name, coordinate in its.items() if name != "output"}

    def _compared(self, one: Parts, two: Parts, how: Level) -> Iterator[tuple[str, np.ndarray]]:
        """The arrays of one pair by their paths, (J,) and (J, *P)."""
        parts = {name: two[name].minus(one[name], self.paired) for name in two if name in one}
        for name in [name for name in parts if name not in self.folds.inputs]:
            yield from _numbers(name, parts.pop(name), how)
        tests, bands = corrected(parts), band(parts, how)
        for name, part in parts.items():
            yield from _numbers(f"{name}/difference", part, how)
            yield f"{name}/first", one[name].value
            yield f"{name}/second", two[name].value
            yield f"{name}/band_low", part.value - bands[name]
            yield f"{name}/band_high", part.value + bands[name]
            yield f"{name}/p", tests[name].p
            yield f"{name}/p_holm", tests[name].holm
            yield f"{name}/p_fdr", tests[name].fdr
            yield f"{name}/significant", tests[name].significant(how.fdr)


def _numbers(name: str, part: Estimate, how: Level) -> Iterator[tuple[str, np.ndarray]]:
    half = reach(part, how.level)
    yield name, part.value
    yield f"{name}_se", part.se
    yield f"{name}_ci_low", part.value - half
    yield f"{name}_ci_high", part.value + half
