"""The maps that the page's script draws for an output that a reader chooses: coarse numbers, inside the page.

Shape legend: O outputs, F feature dimensions as drawn (length, or height x width).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from markupsafe import Markup

from igc_dist.records import printable
from igc_dist.report.contents import Floats, column, inputs, labels, main_map, scale_of, title_of
from igc_dist.report.intervals import interval, quantile
from igc_dist.report.maps import Maps, read_maps

BYTES = 2 * 2**20
"""Numbers of maps in a page, one byte each: outputs beyond it are in the figures and in the store."""
CELLS = 64
"""The largest height and width of a map in the page: larger ones are sums of square patches."""
STEPS = 127
"""Steps from zero to the largest magnitude of a map."""
UNDEFINED = -128

SCRIPT = Path(__file__).with_name("script.js")


def scripted(tree: xr.DataTree, groups: Iterable[str]) -> dict[str, Any]:
    """What the template needs for the script: its data, its text, and what may run."""
    text, source = script()
    return {"explored": embedded(explored(tree, groups)), "script": text, "script_source": source}


def explored(tree: xr.DataTree, groups: Iterable[str]) -> dict[str, Any]:
    """What the script knows of the main maps of these inputs: those of as many outputs as fit, the largest magnitude of
    each, and the same of the half widths of their 95 % intervals.

    A number v is kept as ``round(127 v / m)``, m the largest magnitude of its map, so it is off by 0.4 % of m at most.
    """
    every, total = inputs(tree), len(labels(tree))
    mains = [(group, name) for group in groups if (name := main_map(every[group])) is not None]
    reach, maps, left = quantile(tree), [], BYTES
    for group, name in mains:
        found = read_maps(tree, group, name, total)
        part, patch = patched(found)
        if part.values.ndim == 1:
            continue
        size = part.values[:1].size * (1 if part.errors is None else 2)
        count = min(total, left // len(mains) // size)
        values, most = coarse(part.values[:count])
        errors = None if part.errors is None else spread(part.errors[:count], reach[:count])
        maps.append(
            {
                "title": f"{title_of(name)} of {printable(group)}" if len(mains) > 1 else title_of(name),
                "unit": scale_of(name),
                "shape": part.values.shape[1:],
                "signed": part.signed,
                "patch": patch,
                "features": [printable(each) for each in part.features],
                "count": count,
                "values": values,
                "most": most,
                "errors": None if errors is None else errors[0],
                "widest": None if errors is None else errors[1],
                "sure": bits(part, count),
            }
        )
    return {"outputs": [printable(name) for name in labels(tree)], "maps": maps}


def patched(maps: Maps) -> tuple[Maps, int]:
    """The maps with at most 64 x 64 cells, and the side of the patches whose sums they are; 1 for the maps themselves.

    The standard error of a sum does not follow from those of its parts, so sums have none.
    """
    side = -(-max(maps.values.shape[1:], default=1) // CELLS)
    if maps.values.ndim != 3 or side == 1:
        return maps, 1
    _, height, width = maps.values.shape
    whole = np.pad(maps.values, ((0, 0), (0, -height % side), (0, -width % side)))
    summed = whole.reshape(len(whole), whole.shape[1] // side, side, -1, side).sum((2, 4))
    return Maps(maps.name, summed, None, maps.labels, maps.flags, [], maps.note), side


def coarse(values: Floats) -> tuple[str, list[float]]:
    """Numbers as signed bytes in base64, and the largest finite magnitude of each map, which is 127 of them."""
    known = np.where(np.isfinite(values), values, 0.0)
    most = np.abs(known).reshape(len(values), -1).max(1, initial=0.0)
    scale = np.where(most > 0, most, 1.0).reshape(-1, *(1,) * (values.ndim - 1))
    steps = np.where(np.isfinite(values), np.rint(STEPS * known / scale), UNDEFINED).astype(np.int8)
    return base64.b64encode(steps.tobytes()).decode("ascii"), [float(f"{each:.4g}") for each in most]


def bits(maps: Maps, count: int) -> str | None:
    """Of each cell of the first outputs whether it differs from zero (`Maps.sure`): eight in a byte, in base64."""
    if maps.errors is None or maps.folds is None:
        return None
    first = replace(maps, values=maps.values[:count], errors=maps.errors[:count], folds=maps.folds[:count])
    return None if first.sure is None else base64.b64encode(np.packbits(first.sure).tobytes()).decode("ascii")


def spread(errors: Floats, reach: Floats) -> tuple[str, list[float]]:
    """The half widths of intervals, likewise."""
    return coarse(errors * reach.reshape(-1, *(1,) * (errors.ndim - 1)))


def known(tree: xr.DataTree) -> list[dict[str, bool]]:
    """Of each output whether it has a correlation, and whether the interval of this excludes zero."""
    values = column(tree, "correlation")
    if values is None:
        return [{"defined": True, "significant": False}] * len(labels(tree))
    beyond = np.zeros(len(values), bool)
    if column(tree, "correlation_se") is not None:
        low, high = (end.values for end in interval(tree, "correlation"))
        beyond = (low > 0) | (high < 0)
    return [
        {"defined": bool(one), "significant": bool(two)} for one, two in zip(np.isfinite(values), beyond, strict=True)
    ]


def embedded(data: Any) -> Markup:
    """Data as JSON inside a page: it cannot end its element."""
    text = json.dumps(data, separators=(",", ":"))
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)


def script() -> tuple[Markup, str]:
    """The page's script, and the source that its content security policy allows: this script and no other."""
    text = SCRIPT.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return Markup(text), f"'sha256-{digest}'"
