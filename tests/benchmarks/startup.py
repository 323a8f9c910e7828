"""How long a door takes to open: CPU time of commands against that of imports that they need; and small calls."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import torch

import igc_dist
from tests.benchmarks.measure import ROOT, Report, report, seconds

ROUNDS = 7
OWN = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def compiled(folder: Path) -> None:
    """Keep the bytecode of both sides there, as an installed package has it, whatever the shell says of bytecode."""
    OWN.pop("PYTHONDONTWRITEBYTECODE", None)
    OWN["PYTHONPYCACHEPREFIX"] = str(folder)


def cpu(arguments: Sequence[str]) -> float:
    """CPU seconds, user and system, of a Python process from its start to its end."""
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT, env=OWN
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{arguments} ended with {process.returncode}: {said.decode()[-500:]}")
    return used.ru_utime + used.ru_stime


def pairs(one: Sequence[str], two: Sequence[str]) -> tuple[float, float]:
    """Least CPU time of each of two processes, in turns: other load only ever adds to it."""
    cpu(one), cpu(two)
    times = [(cpu(one), cpu(two)) for _ in range(ROUNDS)]
    return min(a for a, _ in times), min(b for _, b in times)


def small(calls: int = 20) -> list[float]:
    """Milliseconds of calls on 12 samples of 5 features, in memory, the first ones left out."""
    torch.manual_seed(0)
    net, x, y = torch.nn.Linear(5, 2), torch.randn(12, 5), torch.randn(12, 2)
    times = [seconds(lambda: igc_dist.attribute(net, (x, y), n_steps=4, n_folds=4, threads=1)) for _ in range(calls)]
    return [1000 * wall for wall, _ in times[2:]]


def run() -> Iterator[Report]:
    """`info` at most 1.3 times xarray, zarr and rich; `plan` at most 1.3 times torch, and a second."""
    with tempfile.TemporaryDirectory() as folder:
        compiled(Path(folder) / "bytecode")
        store = Path(folder) / "store.zarr"
        igc_dist.attribute(torch.nn.Linear(3, 2), (torch.randn(12, 3), torch.randn(12, 2)), n_steps=1, store=store)
        for command in (["info", str(store)], ["verify", "--quick", str(store)], ["--help"]):
            ours, theirs = pairs(["-m", "igc_dist", *command], ["-c", "import xarray, zarr, rich"])
            name = command[0].strip("-")
            bound = {"at_most": 1.3} if name == "info" else {}
            yield report(f"startup/{name}", ours / theirs, **bound, cpu_s=round(ours, 3), imports_s=round(theirs, 3))
        plan = ["plan", "quadrature.n_steps=32", f"hydra.run.dir={folder}/plan"]  # a pilot would be work, not a start
        ours, theirs = pairs(["-m", "igc_dist", *plan], ["-c", "import torch"])
        yield report("startup/plan", (ours - 1.0) / theirs, at_most=1.3, cpu_s=round(ours, 3), torch_s=round(theirs, 3))
    times = small()
    yield report("startup/small_call_ms", median(times), least_ms=round(min(times), 1), calls=len(times))
