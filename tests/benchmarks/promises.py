"""What many folds cost: files and bytes on disk, the time of a fold beside the model, and commands on such a store."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

import igc_dist
from igc_dist.cli import commands
from tests.benchmarks.measure import Report, busy, report, seconds

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
    """5,000 folds: at most 12,000 files, 60 MB and 4 ms a fold; `info` within 2 s, `verify` within 15 s. CPU times if
    the machine is busy."""
    with tempfile.TemporaryDirectory() as folder:
        few, many = Path(folder) / "few", Path(folder) / "many"
        attributed(Path(folder) / "warm", 2)
        kind = int(busy())
        base, whole = (seconds(lambda p=p, n=n: attributed(p, n)) for p, n in ((few, 32), (many, FOLDS)))
        files, folders, size = taken(many)
        grid = {"folds": FOLDS, "features": FEATURES, "outputs": OUTPUTS, "time": ("wall", "cpu")[kind]}
        yield report("promises/files", files, at_most=12_000, folders=folders, **grid)
        yield report("promises/disk_mb", size, at_most=60.0, **grid)
        each = 1000 * (whole[kind] - base[kind]) / (FOLDS - 32)
        yield report("promises/fold_ms", each, at_most=4.0, run_s=round(whole[kind], 1), **grid)
        for command, most in (("info", 2.0), ("verify", 15.0)):
            with contextlib.redirect_stdout(io.StringIO()):
                spent = seconds(lambda command=command: commands.call(command, [str(many)]))
            yield report(f"promises/{command}_s", spent[kind], at_most=most, **grid)
