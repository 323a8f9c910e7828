"""launch/slurm.sbatch on a real SLURM: the same bytes, back into the queue after SIGUSR1, arrays."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import igc_dist
from igc_dist.store import Store
from tests.commands import ROOT, TINY, command, until
from tests.launch.cluster import Cluster, cluster, missing
from tests.ranks import arrays, files

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(missing()), reason=missing() or "SLURM is there"),
]

PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
PAUSED = ("+data.build.slow=0", "+data.build.pause=0.2")


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    with cluster() as found:
        yield found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of one rank, without SLURM."""
    folder = tmp_path_factory.mktemp("alone")
    found = command(*TINY, "store.path=a.zarr", cwd=folder)
    assert found.returncode == 0, found.stderr
    return folder / "a.zarr"


def submit(slurm: Cluster, cwd: Path, *arguments: str, flags: tuple[str, ...] = (), **environ: str) -> str:
    """Submit the tiny problem on two tasks; returns the number of the job. It prints into out.txt."""
    ours = ["--parsable", "--ntasks-per-node=2", *([] if "--array=1-2" in flags else ["--output=out.txt"]), *flags]
    return slurm.call("sbatch", *ours, ROOT / "launch/slurm.sbatch", *TINY, *arguments, cwd=cwd, PATH=PATH, **environ)


def committed(path: Path) -> dict[Path, int]:
    """Digests of pass 2, and when they were written."""
    return {
        p: p.stat().st_mtime_ns
        for p in path.glob("shards/attribute/record/c.*")
        if p.is_file() and p.suffix != ".partial"
    }


def test_two_tasks_store_the_same_bytes(slurm: Cluster, alone: Path, tmp_path: Path) -> None:
    """sbatch and srun with two tasks, in one group of two: every file is that of one rank."""
    job = slurm.ended(submit(slurm, tmp_path, "store.path=a.zarr"))
    said = (tmp_path / "out.txt").read_text()
    assert (job["JobState"], job["ExitCode"]) == ("COMPLETED", "0:0"), said
    assert sorted(p.name for p in (tmp_path / "a.zarr.run/logs").glob("rank-*.log")) == ["rank-0.log", "rank-1.log"]
    assert said.count("IGC of 2 outputs") == 1, said
    assert files(tmp_path / "a.zarr") == files(alone)


@pytest.mark.fault
def test_sigusr1_requeues_and_the_job_goes_on(slurm: Cluster, alone: Path, tmp_path: Path) -> None:
    """As by --signal=USR1@300: the ranks leave with 75, the job comes back, keeps what it had, and ends with the same
    bytes."""
    path = tmp_path / "a.zarr"
    number = submit(slurm, tmp_path, "store.path=a.zarr", *PAUSED)
    until(lambda: committed(path))
    slurm.call("scancel", "--signal=USR1", number)
    until(lambda: slurm.job(number)["Restarts"] == "1")
    before = committed(path)
    assert 0 < len(before) < 8
    job = slurm.ended(number)
    said = (tmp_path / "out.txt").read_text()
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1"), said
    assert "stopped by a signal at" in said
    assert "back into the queue" in said
    assert before.items() <= committed(path).items()  # no shard was done twice
    assert files(path) == files(alone)
    assert arrays(igc_dist.open(path)) == arrays(igc_dist.open(alone))


@pytest.mark.fault
def test_a_signal_before_the_ranks_are_ready(slurm: Cluster, alone: Path, tmp_path: Path) -> None:
    """SIGUSR1 kills an interpreter that still imports: the job is requeued all the same."""
    number = submit(slurm, tmp_path, "store.path=a.zarr")
    until(lambda: "State=RUNNING" in slurm.call("scontrol", "-o", "show", "step", f"{number}.0", check=False))

    def told() -> bool:
        slurm.call("scancel", "--signal=USR1", number, check=False)  # one before the tasks are there goes unheard
        return slurm.job(number)["Restarts"] != "0"

    until(told)
    job = slurm.ended(number)
    said = (tmp_path / "out.txt").read_text()
    assert job["JobState"] == "COMPLETED", (
        said
    )  # the last signal may have met the second start, which then is requeued as well
    assert "User defined signal 1" in said
    assert files(tmp_path / "a.zarr") == files(alone)


@pytest.mark.fault
@pytest.mark.parametrize("way", ["cancel", "limit"])
def test_what_ends_for_good(slurm: Cluster, way: str, tmp_path: Path) -> None:
    """scancel is not answered by a requeue; after MAX_REQUEUES the job fails with 75. Either way the store resumes."""
    path = tmp_path / "a.zarr"
    number = submit(slurm, tmp_path, "store.path=a.zarr", *PAUSED, **({"MAX_REQUEUES": "0"} if way == "limit" else {}))
    until(lambda: committed(path))
    slurm.call("scancel", *(["--signal=USR1"] if way == "limit" else []), number)
    job = slurm.ended(number)
    assert job["Restarts"] == "0"
    if way == "limit":
        assert (job["JobState"], job["ExitCode"]) == ("FAILED", "75:0")
        assert "submit again to go on" in (tmp_path / "out.txt").read_text()
    else:
        assert job["JobState"] == "CANCELLED"
    assert 0 < len(Store.existing(path).pending("attribute")) < 8


def test_an_array_takes_its_lines_of_a_file(slurm: Cluster, alone: Path, tmp_path: Path) -> None:
    """Task N of an array runs with line N of SWEEP, quotes and all; one that has no line says which there are."""
    (tmp_path / "runs.txt").write_text("store.path='a b.zarr'\nstore.path=c.zarr seed=1\n")
    number = submit(slurm, tmp_path, flags=("--array=1-2",), SWEEP="runs.txt")
    until(lambda: {slurm.job(f"{number}_{n}")["JobState"] for n in (1, 2)} == {"COMPLETED"}, 100)
    assert files(tmp_path / "a b.zarr") == files(alone)
    assert igc_dist.open(tmp_path / "c.zarr").attrs["spec"] != igc_dist.open(alone).attrs["spec"]
    number = submit(slurm, tmp_path, flags=("--array=3", "--output=out.txt"), SWEEP="runs.txt")
    assert slurm.ended(f"{number}_3")["ExitCode"] == "2:0"
    assert re.search(r"SWEEP=runs.txt has no line 3: give --array=1-2", (tmp_path / "out.txt").read_text())
