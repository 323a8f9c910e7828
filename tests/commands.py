"""The command from outside, for tests: in a process of its own, which does not outlive the test."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALONE = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
    "IGC_FAULT",
)

SMALL = ("quadrature.n_steps=2", "target.outputs=[0,3]", "plan.n_folds=4", "report.enabled=false")
"""The demo at little cost."""

TINY = (
    "--allow-target", "tests.ranks.*", "model.build._target_=tests.ranks.Net", "data.build._target_=tests.ranks.Rows",
    "+data.build.n=24", "plan.n_folds=8", "plan.micro_batch=3", "quadrature.n_steps=4", "report.enabled=false",
)  # fmt: skip
"""The tiny problem of `ranks.py`, built by the command."""


def environment(**more: str) -> dict[str, str]:
    """Ours without the variables of a launcher; the package and the tests are found from any folder."""
    inherited = {name: value for name, value in os.environ.items() if name not in ALONE}
    path = os.pathsep.join(
        filter(None, (str(ROOT), inherited.get("PYTHONPATH")))
    )  # a machine may hold its packages there
    return {**inherited, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **more}


@contextmanager
def started(arguments: Sequence[str | Path], cwd: Path, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """``python -m igc_dist`` that runs; at the end it is asked to stop, then killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=cwd, env=environment(**environ), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()  # a launcher passes it on to its ranks
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        process.communicate()


def command(
    *arguments: str | Path, cwd: Path, timeout: float = 100.0, **environ: str
) -> subprocess.CompletedProcess[str]:
    """``igc-dist ARGUMENTS`` to its end."""
    return ended(["igc_dist", *arguments], cwd, timeout, **environ)


def torchrun(n: int, *arguments: str | Path, cwd: Path, timeout: float = 100.0) -> subprocess.CompletedProcess[str]:
    """``torchrun --nproc-per-node N -m igc_dist ARGUMENTS`` to its end."""
    flags = [
        "--nproc-per-node",
        str(n),
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "127.0.0.1:0",
        "--local-addr",
        "127.0.0.1",
    ]
    return ended(["torch.distributed.run", *flags, "-m", "igc_dist", *arguments], cwd, timeout)


def ended(
    arguments: Sequence[str | Path], cwd: Path, timeout: float, **environ: str
) -> subprocess.CompletedProcess[str]:
    """A module run to its end."""
    with started(arguments, cwd, **environ) as process:
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(list(map(str, arguments)), process.returncode, out, err)


def until(there: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something is there; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """The processes that a process has started. Needs Linux's /proc."""
    tasks = [task / "children" for task in Path(f"/proc/{pid}/task").iterdir()]
    return [int(child) for task in tasks for child in task.read_text().split()]


def below(pid: int) -> list[int]:
    """Those, and theirs."""
    return [found for child in children(pid) for found in (child, *below(child))]


def gone(pid: int) -> bool:
    """Whether a process has ended; its parent may not know it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
