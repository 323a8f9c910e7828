"""Benches of a CUDA card: `python -m tests.benchmarks gpu [NAME...]`, most telling first. Reports of past
runs lie here, by card and date.

Each line is one of `measure.report`, with the card's name. What fails is a line too, and costs no other. A dry run
(`tests/card.py`) takes tiny sizes and nets; its numbers say nothing.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from tests.benchmarks.gpu import loops, runs
from tests.benchmarks.gpu.sizes import FULL, SHORT, TINY, Size
from tests.benchmarks.measure import Report
from tests.card import Card, card, dry

Bench = Callable[[Card, Size], Iterator[Report]]

BENCHES: dict[str, Bench] = {
    "walk_half": loops.half,
    "matmul": loops.matmul,
    "classes": runs.classes,
    "small_nets": loops.small_nets,
    "captum": runs.captum,
    "precisions": loops.precisions,
    "determinism": loops.determinism,
    "loader": runs.loader,
    "fold": loops.fold,
}
"""Every bench by its name."""


def measured(name: str, device: Card, size: Size) -> Iterator[Report]:
    """The lines of a bench."""
    try:
        for line in BENCHES[name](device, size):
            yield {**line, "card": device.name}
    except Exception as error:
        traceback.print_exc()
        yield {"bench": name, "failed": f"{type(error).__name__}: {error}"[:300], "bound": None, "card": device.name}
    device.empty()


def traced(name: str, device: Card, out: Path) -> None:
    """A trace of a short run of a bench, for chrome://tracing."""
    kinds = [ProfilerActivity.CPU] if device.dry else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=kinds) as profiler:
        for _ in measured(name, device, TINY if device.dry else SHORT):
            pass
    profiler.export_chrome_trace(str(out / f"{name}.trace.json.gz"))


def main(words: list[str]) -> int:
    """Run the benches named, or all. With `--out` they are traced instead, in a short form."""
    out = next((Path(word.partition("=")[2]) for word in words if word.startswith("--out=")), None)
    names = [word for word in words if not word.startswith("--")]
    if unknown := {*names} - {*BENCHES}:
        print(f"no bench {', '.join(sorted(unknown))}: choose from {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    if not dry() and not torch.cuda.is_available():
        print("torch finds no CUDA device: IGC_DRY_CARD=1 for a dry run on the CPU", file=sys.stderr)
        return 2
    device, broken = card(), False
    for name in names or BENCHES:
        began = time.monotonic()
        if out is not None:
            traced(name, device, out)
            continue
        for line in measured(name, device, TINY if device.dry else FULL):
            print(json.dumps(line, default=float), flush=True)
            broken |= "failed" in line
        print(json.dumps({"bench": name, "spent": round(time.monotonic() - began, 1)}), flush=True)
    return int(broken)
