"""An export that any program opens: pictures as PNG, numbers as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from igc_dist import files
from igc_dist.records import printable
from igc_dist.report.contents import Floats, flags, inputs, labels, map_names
from igc_dist.report.figures import plain
from igc_dist.report.maps import fold_features
from igc_dist.report.pictures import image_png, map_png
from igc_dist.report.rows import Fetch, Row, rows_of


def write(tree: xr.DataTree, folder: Path, fetch: Fetch | None) -> Path:
    """``outputs.csv`` with a row per output, and ``maps/INPUT/ARRAY-PLACE.png`` with the numbers as CSV beside it.

    Where attributions of samples are kept: ``samples.csv``, ``samples/INDEX-map.png``, ``.csv`` and ``-image.png``.

    A CSV of a map has a line for each row of pixels, or one line; channels are summed. Returns the folder.
    """
    write_outputs(tree, folder)
    for group, dataset in inputs(tree).items():
        for name in map_names(dataset):
            values, _ = fold_features(dataset[name])
            made = files.folder(folder / "maps") and files.folder(folder / "maps" / plain(group))
            for place, each in enumerate(values):
                write_map(made / f"{plain(name)}-{place:04d}", each)
    if "samples" in tree.children:
        write_samples(rows_of(tree, fetch), folder)
    return folder


def write_outputs(tree: xr.DataTree, folder: Path) -> None:
    """All results that have one number per output."""
    names = [str(name) for name, array in tree.data_vars.items() if array.dims == ("output",)]
    columns = [np.asarray(tree[name].values).tolist() for name in names]
    rows = zip(range(tree.sizes["output"]), labels(tree), flags(tree), *columns, strict=True)
    write_table(folder / "outputs.csv", ["place", "output", "flag", *names], rows)


def write_samples(rows: Iterable[Row], folder: Path) -> None:
    """A line per sample, and its pictures."""
    made, lines = files.folder(folder / "samples"), []
    for row in rows:
        stem = f"{row.index:06d}"
        write_map(made / f"{stem}-map", row.map)
        if row.image is not None:
            files.write(made / f"{stem}-image.png", image_png(row.image))
        best = row.order[0]
        lines.append(
            [
                row.index,
                row.output,
                row.target,
                float(row.predictions[row.place]),
                row.names[best],
                float(row.predictions[best]),
                row.confidence,
                row.residual,
                f"samples/{stem}-map.png",
                "" if row.image is None else f"samples/{stem}-image.png",
            ]
        )
    heads = ["index", "output", "target", "prediction", "largest", "largest_prediction", "confidence", "residual"]
    write_table(folder / "samples.csv", [*heads, "map", "image"], lines)


def write_map(stem: Path, values: Floats) -> None:
    """A map as ``STEM.png`` and ``STEM.csv``."""
    files.write(stem.with_name(f"{stem.name}.png"), map_png(values))
    write_table(stem.with_name(f"{stem.name}.csv"), None, np.atleast_2d(values).tolist())


def write_table(path: Path, heads: Sequence[str] | None, rows: Iterable[Sequence[Any]]) -> None:
    """A CSV in UTF-8. Numbers keep all their digits; nothing is written for None, ``nan`` for what is undefined."""
    held = io.StringIO()
    table = csv.writer(held, lineterminator="\n")
    if heads:
        table.writerow(heads)
    table.writerows([printable(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    files.write(path, held.getvalue().encode())
