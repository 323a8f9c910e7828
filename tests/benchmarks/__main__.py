"""`python -m tests.benchmarks [names]`: one JSON line per number; exit code 1 if one misses its bound."""

from __future__ import annotations

import importlib
import sys

import torch

from tests.benchmarks.measure import show

NAMES = ("overhead", "throughput", "precision", "scaling", "memory", "cost", "store", "family", "forward_mode")


def main(names: list[str]) -> int:
    """Run the benchmarks named, or all."""
    for name in names:
        if name not in NAMES:
            print(f"no benchmark {name!r}: choose from {', '.join(NAMES)}", file=sys.stderr)
            return 2
    torch.set_num_threads(1)
    missed = []
    for name in names or NAMES:
        for line in importlib.import_module(f"tests.benchmarks.{name}").run():
            show(line)
            if not line["ok"]:
                missed.append(line["bench"])
    if missed:
        print(f"missed: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
