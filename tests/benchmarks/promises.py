"""What many folds, many inputs, tiny samples and small calls cost beside the model.

Each time is CPU time if the machine is busy; both are in the line.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import igc_dist
from igc_dist.cli import commands
from igc_dist.report import write_report
from igc_dist.run import Run
from tests.benchmarks.measure import Report, busy, report, seconds
from tests.benchmarks.memory import Added

FOLDS, FEATURES, OUTPUTS, NODES = 5000, 20, 3, 4
BLOCK = 4096


def attributed(path: Path, n_folds: int) -> None:
    """As many samples as there are folds at most, one in each micro-batch, so that the model does the same work."""
    draw = torch.Generator().manual_seed(0)
    net, x = torch.nn.Linear(FEATURES, OUTPUTS), torch.randn(FOLDS, FEATURES, generator=draw)
    y = torch.randn(FOLDS, OUTPUTS, generator=draw)
    igc_dist.attribute(net, (x, y), store=path, n_folds=n_folds, n_steps=NODES, micro_batch=NODES, threads=1)


def taken(path: Path) -> tuple[int, int, float]:
    """Files, folders, and MB in whole blocks."""
    files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    folders = sum(1 for _ in os.walk(path))
    blocks = sum(-(-file.stat().st_size // BLOCK) for file in files) + folders
    return len(files), folders, blocks * BLOCK / 1e6


def run() -> Iterator[Report]:
    """5,000 folds: at most 12,000 files, 60 MB and 4 ms a fold; `info` within 2 s, `verify` within 15 s.

    A call of 12 samples: 40 ms. Pass 2 of 200,000 samples of 4 features: 2.5 s. The page of 300 inputs: 15 s, 10 MB.
    """
    yield small_call()
    yield tiny_samples()
    yield from many_inputs()
    yield from many_folds()


def small_call(rounds: int = 30) -> Report:
    """A call of 12 samples of 5 features, after the first ones: with a pilot, in memory. The fastest of some."""
    draw = torch.Generator().manual_seed(0)
    net, x, y = torch.nn.Linear(5, 2), torch.randn(12, 5, generator=draw), torch.randn(12, 2, generator=draw)
    times = [seconds(lambda: igc_dist.attribute(net, (x, y))) for _ in range(rounds)][3:]
    wall, cpu = (1000 * min(each) for each in zip(*times, strict=True))
    return report("promises/small_call_ms", cpu if busy() else wall, at_most=40.0, wall=wall, cpu=cpu, samples=12)


def tiny_samples() -> Report:
    """Pass 2 of 200,000 samples of 4 features and 3 outputs, on one core."""
    draw, spent = torch.Generator().manual_seed(0), []
    net, x, y = torch.nn.Linear(4, 3), torch.randn(200_000, 4, generator=draw), torch.randn(200_000, 3, generator=draw)
    walk = Run.attribute

    def attribute(self: Run) -> Any:
        passed = []
        spent.append(seconds(lambda: passed.append(walk(self))))
        return passed[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "attribute", attribute)
        igc_dist.attribute(net, (x, y), threads=1)
    wall, cpu = spent[0]
    return report("promises/tiny_pass2_s", cpu if busy() else wall, at_most=2.5, wall=wall, cpu=cpu, samples=len(x))


def many_inputs() -> Iterator[Report]:
    """The page of a model of 300 inputs: its time, and its size with its figures."""
    net, n = Added(2), Added.n_inputs
    data = tuple(torch.randn(24, 4) for _ in range(n)), torch.randn(24, 2)
    with tempfile.TemporaryDirectory() as folder:
        store, page = Path(folder) / "store", Path(folder) / "page"
        igc_dist.attribute(net, data, store=store, n_folds=8, n_steps=NODES)
        tree = igc_dist.open(store)
        wall, cpu = seconds(lambda: write_report(tree, page))
        files, folders, size = taken(store)
        yield report("promises/page_s", cpu if busy() else wall, at_most=15.0, wall=wall, cpu=cpu, inputs=n)
        yield report("promises/page_mb", taken(page)[2], at_most=10.0, inputs=n)
        yield report("promises/inputs_files", files, folders=folders, store_mb=size, inputs=n)


def many_folds() -> Iterator[Report]:
    """As many folds as there are samples."""
    with tempfile.TemporaryDirectory() as folder:
        few, many = Path(folder) / "few", Path(folder) / "many"
        attributed(Path(folder) / "warm", 2)
        kind = int(busy())
        base, whole = (seconds(lambda p=p, n=n: attributed(p, n)) for p, n in ((few, 32), (many, FOLDS)))
        files, folders, size = taken(many)
        grid = {"folds": FOLDS, "features": FEATURES, "outputs": OUTPUTS, "time": ("wall", "cpu")[kind]}
        grid |= {"whole": whole, "base": base}
        yield report("promises/files", files, at_most=12_000, folders=folders, **grid)
        yield report("promises/disk_mb", size, at_most=60.0, **grid)
        each = 1000 * (whole[kind] - base[kind]) / (FOLDS - 32)
        yield report("promises/fold_ms", each, at_most=4.0, **grid)
        for command, most in (("info", 2.0), ("verify", 15.0)):
            with contextlib.redirect_stdout(io.StringIO()):
                spent = seconds(lambda command=command: commands.call(command, [str(many)]))
            yield report(f"promises/{command}_s", spent[kind], at_most=most, **grid)
