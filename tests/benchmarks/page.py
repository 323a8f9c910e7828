"""The page of the last results: a table of every line, and figures of error against gradients."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

from tests.benchmarks.measure import Report

HERE = Path(__file__).parent
RESULTS, PAGE, FIGURES = HERE / "results.json", HERE / "README.md", HERE / "figures"
SHOWN = ("bench", "value", "bound", "kind", "ok", "date", "curve", "ratios")
"""What of a line is in a column of its own, or too long for the table."""


def machine() -> dict[str, Any]:
    """What the numbers depend on: processor, cores, torch."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        cpu = ""
    return {
        "cpu": cpu or platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def saved() -> dict[str, Any]:
    """The last results, by machine and line; none if there are none."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {"machine": machine(), "lines": []}


def save(group: str, lines: Iterable[Report]) -> None:
    """Put the lines of one benchmark in the place of those it gave before. Lines of another machine are dropped."""
    old, here, lines = saved(), machine(), list(lines)
    new = {line["bench"] for line in lines}
    kept = (
        [line for line in old["lines"] if line["group"] != group and line["bench"] not in new]
        if old["machine"] == here
        else []
    )
    date = time.strftime("%Y-%m-%d")
    kept += [{"group": group, **line, "date": date} for line in lines]
    text = ",\n".join(json.dumps(line, default=float) for line in kept)  # a line of the file for each
    RESULTS.write_text(f'{{"machine": {json.dumps(here)}, "lines": [\n{text}\n]}}\n')


def details(line: Report) -> str:
    """What a line was measured on, short."""

    def short(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.4g}"
        if isinstance(value, dict):
            return " ".join(f"{key} {short(one)}" for key, one in value.items())
        return " ".join(map(short, value)) if isinstance(value, list) else str(value)

    parts = (
        f"{key.replace('_', ' ')} {short(value)}"
        for key, value in line.items()
        if key not in (*SHOWN, "group") and value != ""
    )
    return "; ".join(parts).replace("|", "/")


def bound(line: Report) -> str:
    return "" if line["bound"] is None else f"{line['kind']} {line['bound']:g}"


def figure(net: str, lines: list[Report]) -> Path:
    """Error against gradients of every design, on one net."""
    with mpl.rc_context({"font.size": 9}):
        drawing = Figure(figsize=(6.4, 4.2), dpi=100, layout="constrained")
        axes = drawing.subplots()
        for line in lines:
            gradients, errors = zip(*line["curve"], strict=True)
            axes.loglog(
                gradients,
                errors,
                marker="*" if len(errors) == 1 else "o",
                ms=10 if len(errors) == 1 else 4,
                label=name_of(line),
            )
        axes.set(
            xlabel="gradient evaluations",
            ylabel="error of IGC, relative rms",
            title=f"{net}: {lines[0]['samples']} images, 10 outputs",
        )
        axes.grid(alpha=0.3, which="both", lw=0.5)
        axes.legend(frameon=False, fontsize=8)
    FIGURES.mkdir(exist_ok=True)
    path = FIGURES / f"error_{net}.png"
    drawing.savefig(path, metadata={"Software": None})
    return path


def name_of(line: Report) -> str:
    name = line["bench"].split("/", 2)[2]
    return "grid, 8 x 64 (the original's defaults)" if name == "original" else name


SHARED = (
    "of 10 outputs only the forward is shared: at most 10 (F + V) / (F + 10 V), 1.8 where a backward costs as much as "
    "a forward; "
    "tried: channels_last"
)
WHY = {
    "outlook/digits/1": "three rates tell a small convolution too short (0.77 of its gradient in the fit), and passes "
    "of "
    "a run take longer than the least of five",
    "outlook/digits/2": "the same",
    "captum/ig/resnet64": SHARED,
    "captum/ig/vit64": SHARED,
    "zero_baseline_shifted/digits": "kinks near the baseline, all in the first of four strata; tried: offsets by the "
    "golden "
    "ratio "
    "in the order of the predictions, tent-folded offsets, more nodes",
    "zero_baseline_shifted/pooled": "the noise of drawn nodes; tried: the same",
    "one_hot_1000/n_others/time": "1,001 passes over 5 are at most 200, less what is not the net; tried: a partition "
    "in "
    "place "
    "of "
    "two "
    "sorts",
    "package_layout/digits": "near the bound, and higher on a busy machine",
}
"""Causes of bounds that may be missed, and what was tried."""


def write(names: tuple[str, ...]) -> None:
    """Write the page and its figures from the saved results; `names`: all benchmarks there are."""
    results = saved()
    at, lines = results["machine"], results["lines"]
    drawn: dict[str, list[Report]] = {}
    for line in lines:
        if "curve" in line:
            drawn.setdefault(line["bench"].split("/")[1], []).append(line)
    absent = [name for name in names if name not in {line["group"] for line in lines}]
    missed = [line["bench"] for line in lines if not line["ok"]]
    dates = sorted({line["date"] for line in lines})
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    text = [
        "# Benchmarks", "",
        "Written by `make bench` (`python -m tests.benchmarks page` writes it again from `results.json`); do not "
"edit.", "",
        f"{at['cpu']}, {at['cores']} cores, torch {at['torch']}, Python {at['python']}; measured {when}.",
        "One thread each, unless a line says otherwise. Ratios of times are of the minima of turns A B A B, on the "
"clock that the",
        "line names: `wall`, or `cpu` if the machine was busy. `value` is to keep the bound; lines without one are "
"printed only.", "",
        f"{len(lines)} lines, {sum(line['bound'] is not None for line in lines)} with a bound, missed: "
f"{', '.join(missed) or 'none'}.",
        f"Not run there: {', '.join(absent) or 'none'}.", "",
    ]  # fmt: skip
    if missed:
        text += ["Why, as far as is known:", "", *(f"* `{name}`: {WHY.get(name, 'not known')}" for name in missed), ""]
    if drawn:
        text += [
            "## Error against gradients",
            "",
            "Of the draws, for the data as they are: root mean square over three seeds.",
        ]
        text += [
            "`pairs` draw partners in groups of 64 to 127 samples: beyond 32 draws or so only their nodes are new.",
            "",
        ]
        text += [f"![{net}](figures/{figure(net, of_net).name})" for net, of_net in drawn.items()]
        text += ["", "| net | design | gradients: error, % |", "|---|---|---|"]
        for net, of_net in drawn.items():
            text += [
                f"| {net} | {name_of(line)} | {', '.join(f'{g:,}: {100 * e:.1f}' for g, e in line['curve'])} |"
                for line in of_net
            ]
        text.append("")
    for group in dict.fromkeys(line["group"] for line in lines):
        text += [f"## {group}", "", "| bench | value | bound | ok | details |", "|---|---|---|---|---|"]
        for line in (line for line in lines if line["group"] == group and "curve" not in line):
            ok = "" if line["bound"] is None else "yes" if line["ok"] else "**no**"
            text.append(f"| {line['bench']} | {line['value']:.4g} | {bound(line)} | {ok} | {details(line)} |")
        text.append("")
    PAGE.write_text("\n".join(text))
