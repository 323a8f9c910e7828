"""The page of several runs: a row for each with what differs, its numbers, cost and a small map; and differences."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from igc_dist import files, results
from igc_dist.records import ConfigError, IgcError, printable
from igc_dist.report.comparison import ABSENT, spec_differences
from igc_dist.report.contents import SUM, Floats, column, discreet, inputs, labels, main_map, mapping_of, number
from igc_dist.report.evidence import askable, consistent
from igc_dist.report.intervals import quantile
from igc_dist.report.maps import fold_features
from igc_dist.report.pictures import map_png
from igc_dist.report.plain_folder import write_table
from igc_dist.report.rendering import environment

KEYS = 6
"""The largest number of settings that a row says; all are in sweep.csv."""
OUTPUTS = 200
"""The largest number of outputs whose differences are listed."""


def write_sweep(trees: Mapping[str, xr.DataTree], folder: str | Path) -> Path:
    """Write sweep.html and sweep.csv about these stores, by their names, into a folder. Returns the page.

    A difference is from the first store, for the outputs that both have. Its 95 % interval is over the same folds where
    the runs share them (`results.paired_numbers`), else that of independent runs: of ``sqrt(SE^2 + SE'^2)`` and
    Student's t of the fewer folds.
    Raises `ConfigError` for fewer than two stores and for links, OSError for what cannot be written.
    """
    if len(trees) < 2:
        raise ConfigError(f"a page of several runs was given {', '.join(trees) or 'none'}: give two or more")
    trees = {printable(name): discreet(tree) for name, tree in trees.items()}
    folder = files.folder(os.path.expanduser(folder))
    changed = {key: values for key, values in spec_differences(trees).items() if not key.endswith("digest")}
    settings = [dict(zip(changed, values, strict=True)) for values in zip(*changed.values(), strict=True)]
    settings = settings or [{} for _ in trees]
    rows = [row_of(name, tree, said) for (name, tree), said in zip(trees.items(), settings, strict=True)]
    differences = [each for name in [*trees][1:] for each in differences_of(name, trees)]
    numbers = [head for head in rows[0] if head not in ("settings", "map")]
    lines = [[*(row[head] for head in numbers), *said.values()] for row, said in zip(rows, settings, strict=True)]
    write_table(folder / "sweep.csv", [*numbers, *changed], lines)
    page = (
        environment()
        .get_template("sweep.html.j2")
        .render(
            rows=rows,
            keys=KEYS,
            first=next(iter(trees)),
            differences=differences[:OUTPUTS],
            more=max(len(differences) - OUTPUTS, 0),
            what="sum of the map" if quantity(trees) == SUM else "correlation",
            number=number,
        )
    )
    return files.write(folder / "sweep.html", page.encode("utf-8", errors="backslashreplace"))


def row_of(name: str, tree: xr.DataTree, settings: Mapping[str, str]) -> dict[str, Any]:
    """A run: its numbers over outputs, and its map of the output with the largest correlation.

    `error`: the largest quadrature error, or mean residual of the maps of samples.
    """
    correlation, error = column(tree, "correlation"), column(tree, "quadrature_error")
    error = column(tree, "completeness_error") if error is None else error
    best = -1 if correlation is None or not np.isfinite(correlation).any() else int(np.nanargmax(correlation))
    cost, provenance = mapping_of(tree, "cost"), mapping_of(tree, "provenance")
    return {
        "run": name,
        "outputs": len(labels(tree)),
        "correlation": _of(np.nanmean, correlation),
        "correlation_se": _of(np.nanmedian, column(tree, "correlation_se")),
        "error": _of(np.nanmax, None if error is None else np.abs(error)),
        "gradients": int(cost.get("gradient_evaluations") or 0),
        "seconds": float(provenance.get("seconds") or np.nan),
        "best": labels(tree)[best] if best >= 0 else "",
        "map": small_map(tree, best),
        "settings": {key: value for key, value in settings.items() if value != ABSENT},
    }


def small_map(tree: xr.DataTree, place: int) -> str | None:
    """The main map for an output as a data URI, of the first input that has one of more than a number; else None."""
    for dataset in inputs(tree).values() if place >= 0 else ():
        if (name := main_map(dataset)) is None:
            continue
        values = fold_features(dataset[name].isel(output=[place]))[0][0]
        if values.ndim and np.isfinite(values).any():
            return "data:image/png;base64," + base64.b64encode(map_png(values)).decode("ascii")
    return None


def differences_of(name: str, trees: Mapping[str, xr.DataTree]) -> list[dict[str, Any]]:
    """A row for each output that a store has in common with the first one; `paired`: over the same folds."""
    (first, one), two = next(iter(trees.items())), trees[name]
    ours, theirs = labels(one), labels(two)
    what = quantity(trees)
    (before, se, t), (after, se2, t2) = [
        (column(tree, what), column(tree, f"{what}_se"), quantile(tree)) for tree in (one, two)
    ]
    places = [a for a, label in enumerate(ours) if label in theirs]
    if before is None or after is None or name == first or not places:
        return []
    others = [theirs.index(ours[a]) for a in places]
    gap, half = after[others] - before[places], np.full(len(places), np.nan)
    if se is not None and se2 is not None:
        half = np.fmax(t[places], t2[others]) * np.hypot(se[places], se2[others])
    found = paired_of(one, two, places, others, sums=what == SUM)
    if found is not None:
        half = np.where(np.isfinite(found), found, half)
    ends = zip(places, gap.tolist(), (gap - half).tolist(), (gap + half).tolist(), strict=True)
    paired = found is not None
    return [
        {"run": name, "output": ours[a], "gap": g, "low": lo, "high": hi, "paired": paired} for a, g, lo, hi in ends
    ]


def paired_of(one: xr.DataTree, two: xr.DataTree, places: list[int], others: list[int], *, sums: bool) -> Floats | None:
    """Half widths of intervals over the same folds; None where two results have no folds, or others."""
    if not all(askable(tree) and consistent(tree) for tree in (one, two)):
        return None
    try:
        found = results.paired_numbers(one, two, places, others, sums=sums)
    except IgcError:
        return None
    return None if found is None else found[1]


def quantity(trees: Mapping[str, xr.DataTree]) -> str:
    """What is compared: the correlation, or the sum of the map where all runs have the same correlations, as those of
    one model do whatever the method."""
    found = [column(tree, "correlation") for tree in trees.values()]
    same = all(
        one is not None and found[0] is not None and np.array_equal(one, found[0], equal_nan=True) for one in found
    )
    return SUM if same and all(column(tree, SUM) is not None for tree in trees.values()) else "correlation"


def _of(how: Any, values: Floats | None) -> float:
    return float(how(values)) if values is not None and np.isfinite(values).any() else float("nan")
