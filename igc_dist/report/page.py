"""The report: one HTML file that contains its figures and its style, and loads nothing.

Every string from the store (output names, spec, provenance, reasons) goes through the template's autoescape.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from igc_dist import files
from igc_dist.records import printable
from igc_dist.report.answer import answer, command_of
from igc_dist.report.beside import Beside
from igc_dist.report.carriers import evidenced
from igc_dist.report.contents import (
    SUM,
    column,
    discreet,
    flatten,
    inputs,
    kept,
    labels,
    leaf,
    main_map,
    map_names,
    mapping_of,
    natural,
    number,
    skipped,
    span,
    sum_of,
    title_of,
)
from igc_dist.report.evidence import gather
from igc_dist.report.explorer import known, scripted
from igc_dist.report.features import feature_tables
from igc_dist.report.figures import MOST_INPUTS, draw_all, magnitudes
from igc_dist.report.intervals import interval
from igc_dist.report.judgement import verdicts
from igc_dist.report.notices import notices_of
from igc_dist.report.rendering import environment, image
from igc_dist.report.samples import draw_behind, draw_samples
from igc_dist.report.scores import metric_rows
from igc_dist.report.selection import selected
from igc_dist.report.slicing import slice_rows
from igc_dist.report.standing import AVOID, LOOK, TRUST, Standing, standings

TABLE_ROWS = 2000  # a page with more table rows opens slowly; the store has all rows
SKIPPED_ROWS = 200
SHAPES = 8
"""The largest number of inputs that the headline names."""
LISTED = 12
"""The largest number of outputs that a verdict names for a reason, and of reasons."""
SUMMARY = {
    "n": "n",
    "correlation": "correlation",
    "correlation_se": "SE of correlation",
    "rel_se": "SE of map / map",
    "draw_share": "of it from draws",
    "precision_error": "precision error",
    "failed": "not to tolerance",
    "igc_sum": "sum of map",
    "igc_sum_se": "SE of sum",
    "igc_sum_ci": "95 % interval",
    "baseline_term": "baseline term",
    "quadrature_error": "quadrature error",
    "target_mean": "target mean",
    "target_std": "target SD",
    "prediction_mean": "prediction mean",
    "prediction_std": "prediction SD",
}
IDENTITY = ("igc_sum", "correlation", "baseline_term", "quadrature_error")


def write_report(
    tree: xr.DataTree,
    folder: str | Path,
    max_outputs: int = 32,
    outputs: Sequence[str | int] | None = None,
    sort: str | None = None,
    beside: Beside = Beside(),  # noqa: B008 - it is frozen
) -> Path:
    """Draw the store `tree` and write `folder`/report.html with the same figures as PNG files in `folder`/figures.

    `outputs`, `sort`: see `selected`. At most `max_outputs` outputs are drawn in each figure, and its caption says how
    many were left out; tables list up to 2000. `beside`: pictures of samples, to be seen beside their maps and behind
    those of outputs, and where the run has left its account; without that, it is looked for in `folder`.
    Returns the path of the page. Raises `ConfigError` for a max_outputs below 1, for outputs that the store does not
    have and for a folder that is a link, OSError where the folder cannot be written.
    """
    folder, total = Path(os.path.expanduser(folder)), len(labels(tree))
    files.refuse_links(folder)
    evidence = gather(tree, outputs, sort) if beside.evidence is None else beside.evidence
    evident = evidenced(tree, evidence, beside.fetch)
    tree = discreet(selected(tree, outputs, sort))
    chosen = {} if outputs is None else {"outputs": f"{len(labels(tree)):,} of {total:,}"}
    judged = standings(tree)
    sizes = magnitudes(tree) if len(inputs(tree)) > MOST_INPUTS else {}
    drawings = draw_all(tree, folder / "figures", max_outputs)
    shown = draw_samples(tree, folder / "figures", beside.fetch)
    context = (
        scripted(tree, drawings.main)
        | evident
        | {
            "title": f"Report: {title_of(str(tree.attrs.get('method', 'attribution')))}",
            "facts": facts(tree) | chosen,
            "answer": answer(tree, judged),
            "verdicts": verdict_rows(tree, judged),
            "command": command_of(tree, beside.run or folder),
            "notices": notices_of(tree),
            "summary": summary_rows(tree, tuple(SUMMARY)),
            "identity": summary_rows(tree, IDENTITY) if column(tree, SUM) is not None else None,
            "metrics": metric_rows(tree, TABLE_ROWS),
            "slices": slice_rows(tree, TABLE_ROWS),
            "worst": {name: extreme(tree, name) for name in IDENTITY},
            "arrays": {
                group: [title_of(name) for name in map_names(dataset)] for group, dataset in inputs(tree).items()
            },
            "kinds": sorted({name for dataset in inputs(tree).values() for name in map_names(dataset)}),
            "per_sample": "samples" in tree.children,
            "drawings": drawings,
            "features": feature_tables(tree, [*drawings.main], max_outputs),
            "behind": draw_behind(tree, folder / "figures", beside.means, max_outputs),
            "samples": shown,
            "confident": any(each.confidence for each in shown),
            "samples_total": kept(tree).get("samples", 0),
            "sizes": sorted(
                ((printable(name), number(size)) for name, size in sizes.items() if name not in drawings.main),
                key=lambda row: natural(row[0]),
            ),
            "image": image,
            "skipped": skipped(tree)[:SKIPPED_ROWS],
            "skipped_total": len(tree.attrs.get("skipped", [])),
            "ranks": rank_rows(mapping_of(tree, "provenance").get("ranks")),
            "provenance": provenance_rows(tree),
            "spec": pretty(tree.attrs.get("spec", {})),
            "spec_hash": leaf(tree.attrs.get("spec_hash", "")),
            "more_rows": max(tree.sizes.get("output", 0) - TABLE_ROWS, 0),
        }
    )
    page = environment().get_template("template.html.j2").render(context)
    return files.write(folder / "report.html", page.encode("utf-8", errors="backslashreplace"))


def pretty(spec: Any) -> str:
    """Indented JSON without control characters."""
    return "\n".join(
        printable(line) for line in json.dumps(spec, indent=2, default=str, ensure_ascii=False).split("\n")
    )


def facts(tree: xr.DataTree) -> dict[str, str]:
    """The facts for the headline: what was attributed, over which data, and how."""
    spec, count = mapping_of(tree, "spec"), tree.sizes.get("output", 0)
    parts = {name: spec.get(name) for name in ("model", "data", "target", "baseline", "quadrature")}
    if isinstance(spec.get("attributor"), Mapping):
        parts["quadrature"] = parts["quadrature"] or spec["attributor"].get("quadrature")
    rows = {"method": title_of(str(tree.attrs.get("method", "unknown")))}
    rows |= {name: short for name, part in parts.items() if (short := name_of(part))}
    rows["samples"] = span(tree.data_vars["n"].values) if "n" in tree.data_vars else "unknown"
    rows["outputs"] = f"{count:,}"
    shapes = [f"{printable(name)} {shape_of(dataset)}" for name, dataset in inputs(tree).items()]
    more = [f"and {len(shapes) - SHAPES} more"] if len(shapes) > SHAPES else []
    rows["inputs"] = ", ".join([*shapes[:SHAPES], *more])
    rows["status"] = leaf(tree.attrs.get("status", "unknown"))
    return {name: value for name, value in rows.items() if value}


def shape_of(dataset: xr.Dataset) -> str:
    """The feature shape of an input, as 3 x 32 x 32."""
    name = main_map(dataset)
    sizes = [] if name is None else [str(dataset.sizes[dim]) for dim in dataset[name].dims if dim != "output"]
    return f"({' x '.join(sizes)})" if sizes else "(one number)"


def name_of(part: Any) -> str:
    """The short name of a part of the spec: its name, else its class, else its path; '' if it has none. The page prints
    the whole spec further below."""
    if isinstance(part, str):
        text = printable(part)
        return text if len(text) <= 90 else text[:89] + "…"
    if not isinstance(part, Mapping):
        return ""
    classes = [str(part[key]).rsplit(".", 1)[-1] for key in ("class", "kind", "_target_") if part.get(key)]
    return name_of(part.get("name") or next(iter(classes), None) or part.get("path") or part.get("module"))


def summary_rows(tree: xr.DataTree, names: tuple[str, ...]) -> dict[str, Any]:
    """The existing ones of the named root variables as a table: heads, and per output its label, numbers and flag.

    The 95 % interval of the sum follows from its standard error.
    """
    cells: dict[str, list[str]] = {}
    for name in names:
        if (values := column(tree, name)) is not None:
            cells[name] = [f"{value:.0f}" if name == "n" else number(value) for value in values.tolist()]
        elif name == "igc_sum_ci" and {"igc_sum", "igc_sum_se"} <= cells.keys():
            ends = zip(*(end.values.tolist() for end in interval(tree, sum_of(tree))), strict=True)
            cells[name] = [f"{number(low)} to {number(high)}" for low, high in ends]
    flags, more = verdicts(tree), known(tree)
    rows = [
        {"label": label, "numbers": [each[index] for each in cells.values()], "flag": flags[index]} | more[index]
        for index, label in enumerate(labels(tree)[:TABLE_ROWS])
    ]
    return {"heads": [SUMMARY[name] for name in cells], "rows": rows, "flagged": any(flags)}


def verdict_rows(tree: xr.DataTree, judged: Sequence[Standing]) -> list[dict[str, Any]]:
    """The verdicts, from the worst on, each with the outputs it is of, by their reasons."""
    rows = []
    for word in (AVOID, LOOK, TRUST):
        found: dict[str, list[str]] = {}
        for name, each in zip(labels(tree), judged, strict=True):
            if each.word == word:
                found.setdefault(", ".join(each.reasons), []).append(name)
        cases = [
            {"why": why, "names": names[:LISTED], "more": max(len(names) - LISTED, 0)}
            for why, names in list(found.items())[:LISTED]
        ]
        if found:
            rows.append({"word": word, "count": sum(map(len, found.values())), "cases": cases})
    return rows


def extreme(tree: xr.DataTree, name: str) -> str | None:
    """The largest finite magnitude of a root variable as text; None if there is none."""
    values = column(tree, name)
    known = np.empty(0) if values is None else np.abs(values[np.isfinite(values)])
    return number(float(known.max())) if known.size else None


def rank_rows(ranks: Any) -> dict[str, Any] | None:
    """A table of what every rank did, if the provenance has a record per rank."""
    records = list(ranks.values()) if isinstance(ranks, Mapping) else ranks
    if not isinstance(records, list) or not records or not all(isinstance(record, Mapping) for record in records):
        return None
    heads = list(dict.fromkeys(str(key) for record in records for key in record))
    return {
        "heads": [printable(head) for head in heads],
        "rows": [[leaf(record[head]) if head in record else "" for head in heads] for record in records],
    }


def provenance_rows(tree: xr.DataTree) -> dict[str, str]:
    """Where the numbers come from, with dotted keys.

    That is schema, hash, counts of kept shards and samples, the cost, and the provenance.
    """
    provenance = mapping_of(tree, "provenance")
    if rank_rows(provenance.get("ranks")) is not None:
        del provenance["ranks"]
    rows = {"schema": leaf(tree.attrs.get("schema", "")), "spec hash": leaf(tree.attrs.get("spec_hash", ""))}
    rows |= {f"{name} kept": f"{count:,}" for name, count in kept(tree).items()}
    rows |= flatten({"cost": tree.attrs["cost"]}) if tree.attrs.get("cost") else {}
    return rows | (flatten(provenance) if provenance else {})
