"""`python -m tests.benchmarks [names]`: one JSON line per number; exit code 1 if one misses its bound.

Lines are kept in results.json beside this file. A run of all, or the name `page`, writes the page from there.
"""

from __future__ import annotations

import importlib
import sys

import torch

from tests.benchmarks import page
from tests.benchmarks.measure import show

NAMES = (
    "overhead", "throughput", "precision", "scaling", "memory", "cost", "store", "family", "forward_mode", "accuracy",
    "coverage", "guided", "captum", "captum_suite", "ig2", "outlook", "resume", "startup", "promises", "metrics",
    "vision",
)  # fmt: skip


def main(names: list[str]) -> int:
    """Run the benchmarks named, or all; `gpu` with the names of its own, which are no part of the page."""
    if names[:1] == ["gpu"]:
        return int(importlib.import_module("tests.benchmarks.gpu").main(names[1:]))
    for name in names:
        if name not in (*NAMES, "page"):
            print(f"no benchmark {name!r}: choose from {', '.join(NAMES)}, page", file=sys.stderr)
            return 2
    torch.set_num_threads(1)
    missed = []
    for name in [name for name in names if name != "page"] if names else NAMES:
        lines = []
        for line in importlib.import_module(f"tests.benchmarks.{name}").run():
            show(line)
            lines.append(line)
            if not line["ok"]:
                missed.append(line["bench"])
        page.save(name, lines)
    if not names or "page" in names:
        page.write(NAMES)
    if missed:
        print(f"missed: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
