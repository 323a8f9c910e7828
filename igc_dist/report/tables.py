"""Tables for the terminal: the summary of a run, the content of a store, the differences between stores.

Names from a store are printed literally, without markup and control characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Group
from rich.table import Table
from rich.text import Text

from igc_dist.records import printable
from igc_dist.report.comparison import check_comparable, map_differences, spec_differences
from igc_dist.report.contents import (
    Floats,
    column,
    discreet,
    flatten,
    inputs,
    kept,
    labels,
    leaf,
    mapping_of,
    number,
    skipped,
    span,
    title_of,
)
from igc_dist.report.judgement import judged, verdicts
from igc_dist.report.scores import score_columns

SKIPPED = 3
"""The largest number of samples that were left out and are named in a summary."""


def table(title: str, heads: Mapping[str, bool], caption: str = "") -> Table:
    """An empty table. `heads` tells for each column whether it holds numbers."""
    made = Table(
        title=Text(title), title_justify="left", caption=Text(caption) if caption else None, caption_justify="left"
    )
    for head, numeric in heads.items():
        made.add_column(Text(head), justify="right" if numeric else "left", overflow="fold")
    return made


def add(made: Table, *cells: str, style: str = "") -> None:
    """Add a row of plain text."""
    made.add_row(*[Text(cell) for cell in cells], style=style)


def summary_table(tree: xr.DataTree, max_rows: int = 64) -> Table:
    """The summary of a run, per output.

    Columns are n, correlation, sum of IGC, quadrature error and standard error (of the sum, else of the correlation).
    Numbers that a method does not have get no column. A last column names constant targets and predictions, and large
    quadrature errors. The caption says what to do about them, how many outputs beyond `max_rows` are left out, and
    names the first samples that were left out.
    """
    method = title_of(str(discreet(tree).attrs.get("method", "igc")))
    heads = {"correlation": "correlation", "igc_sum": f"sum of {method}", "quadrature_error": "quadrature error"}
    spread = "correlation_se" if column(tree, "igc_sum_se") is None else "igc_sum_se"
    heads[spread] = "standard error of sum" if spread == "igc_sum_se" else "standard error of correlation"
    columns = {head: values for name, head in heads.items() if (values := column(tree, name)) is not None}
    names, reasons = labels(tree), verdicts(tree)
    left = len(names) - max_rows
    captions = [f"{left} of {len(names)} outputs are left out"] if left > 0 else []
    if lost := skipped(tree):
        named = "; ".join(f"sample {index}: {reason}" for index, reason in lost[:SKIPPED])
        what = "1 sample was" if len(lost) == 1 else f"{len(lost):,} samples were"
        captions.append(f"{what} left out: {named}" + ("; ..." if len(lost) > SKIPPED else ""))
    captions += [f"{kind.capitalize()}. {text}" for kind, text in judged(tree)]
    flag = {"flag": False} if any(reasons) else {}
    made = table(
        f"{method} of {len(names)} outputs",
        {"output": False, "n": True, **dict.fromkeys(columns, True), **flag},
        "\n".join(captions),
    )
    counts = column(tree, "n")
    for index, name in enumerate(names[:max_rows]):
        count = "" if counts is None else f"{counts[index]:.0f}"
        numbers = [number(float(values[index])) for values in columns.values()]
        add(made, name, count, *numbers, *([reasons[index]] if flag else []), style="yellow" if reasons[index] else "")
    return made


def scores_table(tree: xr.DataTree, max_rows: int = 64) -> Table | None:
    """The scores of the metrics, a row for each and a column per output; None without metrics."""
    columns, names = score_columns(tree), labels(tree)[:max_rows]
    if not columns:
        return None
    made = table(f"metrics of {len(labels(tree))} outputs", {"metric": False, **dict.fromkeys(names, True)})
    for name, cells in columns.items():
        add(made, name, *cells[:max_rows])
    return made


def info(tree: xr.DataTree, filling: str | None = None) -> Group:
    """The state and content of a store.

    Shows its status, who is `filling` it, schema, method, spec hash and counts, then its arrays, spec and provenance.
    """
    tree, head = discreet(tree), table("store", {"": False, "value": False})
    for name in ("status", "schema", "method", "spec_hash"):
        add(head, name.replace("_", " "), leaf(tree.attrs.get(name, "(absent)")))
        if name == "status" and filling is not None:
            add(head, "being filled by", printable(filling))
    counts = column(tree, "n")
    add(head, "samples", "(absent)" if counts is None else span(counts))
    add(head, "outputs", f"{len(labels(tree)):,}")
    add(head, "skipped samples", f"{len(tree.attrs.get('skipped', [])):,}")
    budget = mapping_of(tree, "budget")
    if budget:
        add(head, "folds", leaf(f"{budget.get('folds')} of {budget.get('of')} ({budget.get('reason')})"))
        if budget.get("advice"):
            add(head, "accuracy", leaf(budget["advice"]))
    if tree.attrs.get("fallback"):
        add(head, "precision", leaf(f"fell back to {tree.attrs['fallback']}"))
    again = tree.attrs.get("retried", [])
    some = ", ".join(f"shard {entry['shard']} at {' x '.join(map(str, entry['micro_batch']))}" for entry in again[:4])
    add(
        head,
        "out of memory",
        leaf(f"{len(again):,} shards walked in smaller micro-batches: {some}{', ...' * (len(again) > 4)}")
        if again
        else "none",
    )
    for name, count in ({"shards": 0, "samples": 0} | kept(tree)).items():
        add(head, f"{name} kept", f"{count:,}")
    return Group(
        head, arrays_table(tree), *[mapping_table(name, mapping_of(tree, name)) for name in ("spec", "provenance")]
    )


def arrays_table(tree: xr.DataTree) -> Table:
    """Every array of the root, the inputs and the convergence: dimensions, shape, type, bytes when read."""
    made = table("arrays", {"array": False, "dimensions": False, "shape": False, "type": False, "MiB": True})
    groups = {"": tree.to_dataset(), **inputs(tree)}
    if "convergence" in tree.children:
        groups["convergence"] = tree["convergence"].to_dataset()
    for group, dataset in groups.items():
        for name, array in sorted(dataset.data_vars.items(), key=lambda item: str(item[0])):
            dims = ", ".join(printable(dim) for dim in array.dims)
            shape = " x ".join(map(str, array.shape))
            add(made, printable(f"{group}/{name}"), dims, shape, str(array.dtype), f"{array.nbytes / 2**20:.3f}")
    return made


def mapping_table(title: str, values: Mapping[str, Any]) -> Table:
    """Nested mappings with dotted keys."""
    made = table(title, {"key": False, "value": False})
    for key, value in (flatten(values) if values else {}).items():
        add(made, key, value)
    return made


def compare(trees: Mapping[str, xr.DataTree]) -> Group:
    """How stores differ from the first store: keys of the spec, correlation and sum per output, and every shared map.

    Raises `ConfigError` for fewer than two stores, for outputs that differ or are in another order, and for maps of
    different shapes.
    """
    check_comparable(trees)
    trees = {name: discreet(tree) for name, tree in trees.items()}
    names = [printable(name) for name in trees]
    changed = spec_differences(trees)
    specs = table("spec", {"key": False, **dict.fromkeys(names, False)})
    for key, values in changed.items():
        add(specs, key, *values)
    return Group(specs if changed else Text("The specs are the same."), outputs_table(trees), maps_table(trees))


def outputs_table(trees: Mapping[str, xr.DataTree]) -> Table:
    """Correlation and sum of the map per output and store. The caption has the largest change from the first store."""
    columns: dict[str, Floats] = {}
    changes: list[str] = []
    for name, title in (("correlation", "correlation"), ("igc_sum", "sum")):
        found = {store: values for store, tree in trees.items() if (values := column(tree, name)) is not None}
        columns |= {f"{title} {printable(store)}": values for store, values in found.items()}
        gaps = np.array([np.abs(values - next(iter(found.values()))) for values in list(found.values())[1:]])
        if np.isfinite(gaps).any():
            changes.append(f"largest change of {title}: {number(float(np.nanmax(gaps)))}")
    made = table("outputs", {"output": False, **dict.fromkeys(columns, True)}, "; ".join(changes))
    for index, label in enumerate(labels(next(iter(trees.values())))):
        add(made, label, *[number(float(values[index])) for values in columns.values()])
    return made


def maps_table(trees: Mapping[str, xr.DataTree]) -> Table:
    """Every shared map array of each store against the first."""
    (first, one), *others = trees.items()
    words = ("largest difference", "relative rms", "correlation", "in standard errors", "NaN in one only")
    heads = {"array": False, "store": False, **dict.fromkeys(words, True), "same bits": False}
    made = table(
        f"maps against {printable(first)}", heads, "in standard errors: largest |difference| / sqrt(se1^2 + se2^2)"
    )
    for store, two in others:
        for path, gap in map_differences(one, two).items():
            numbers = [number(value) for value in (gap.largest, gap.relative, gap.correlation, gap.in_errors)]
            add(made, printable(path), printable(store), *numbers, str(gap.lone_nans), "yes" if gap.same_bits else "no")
    if not made.row_count:
        made.caption = Text("The stores have no map array in common.")
    return made
