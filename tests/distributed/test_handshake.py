"""Ranks of one start agree on a name of their own, in a store that remembers other starts."""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch.distributed as dist

from igc_dist.distributed import environments, handshake
from igc_dist.distributed.handshake import agree, meet
from igc_dist.records import ConfigError, PeerError
from tests.ranks import free_port


def start(store: dist.Store, order: list[int], pause: float = 0.0, limit: float = 20.0) -> list[str]:
    """The names that the ranks of one start arrive at, when they come in this order."""
    with ThreadPoolExecutor(len(order)) as pool:
        coming: dict[int, Future[str]] = {}
        for rank in order:
            coming[rank] = pool.submit(agree, store, rank, len(order), limit)
            time.sleep(pause)
        return [future.result() for future in coming.values()]


def test_each_start_has_a_name_of_its_own() -> None:
    """In any order of arrival, also when the others find rank 0 of an earlier start and its words first."""
    store = dist.HashStore()
    found = [start(store, order, pause=0.1) for order in ([0, 1, 2], [2, 1, 0], [1, 0], [1, 2, 0], [0])]
    assert all(len(set(names)) == 1 for names in found), found
    assert len({names[0] for names in found}) == len(found)


def test_a_start_that_died_half_way_is_not_joined() -> None:
    """Rank 0 had published a name and heard one of two: the next start has another."""
    store = dist.HashStore()
    with ThreadPoolExecutor(2) as pool:
        died = [pool.submit(agree, store, rank, 3, 0.5) for rank in (0, 1)]
    assert [type(future.exception()) for future in died] == [PeerError, PeerError]
    half = store.get("start").decode()
    names = start(store, [1, 2, 0], pause=0.1)
    assert len(set(names)) == 1
    assert names[0] != half


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_does_not_come_is_named(
    rank: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Soon in the log and at last in the error, and where it was expected."""
    monkeypatch.setattr(handshake, "NOTICE", 0.1)
    missing = f"rank {1 - rank} of WORLD_SIZE=2 at host:1"
    with pytest.raises(PeerError, match=f"{missing} did not come within 0 s of rank {rank}.*run again.*unset RANK"):
        agree(dist.HashStore(), rank, 2, 0.3, "host:1")
    assert [record.getMessage()[: len(missing) + 17] for record in caplog.records] == [
        f"rank {rank} waits for {missing}"
    ]


def test_a_machine_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Rank 1 cannot reach the store of rank 0; rank 0 cannot open it, as another program has the port."""
    monkeypatch.setattr(handshake, "NOTICE", 0.1)
    port = free_port()
    with pytest.raises(PeerError, match=f"rank 0 of WORLD_SIZE=2 at 127.0.0.1:{port} did not come"):
        meet("127.0.0.1", port, 1, 2, 0.3)
    assert f"rank 1 waits for rank 0 of WORLD_SIZE=2 at 127.0.0.1:{port}" in caplog.text
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigError, match=r"rank 0 of 2 cannot use .* set MASTER_ADDR .* to a free port"):
            meet("127.0.0.1", other.getsockname()[1], 0, 2, 5.0)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"SLURM_NTASKS": "2"}, "srun --ntasks-per-node=N .SLURM_NTASKS is 2.*unset SLURM_NTASKS"),
        ({"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}, "SLURM_PROCID. is not set.*srun"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "rank 2 of 2 ranks cannot be, they are 0 to 1.*unset RANK"),
        ({"RANK": "0", "WORLD_SIZE": "two"}, "'two'.*unset RANK and WORLD_SIZE"),
        ({"TORCHELASTIC_RUN_ID": "left"}, "RANK. is not set.*torchrun or srun, or unset TORCHELASTIC_RUN_ID"),
    ],
)
def test_variables_that_name_no_rank(variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a launcher's variables end in one sentence that says what to start, or what to unset."""
    for name in [name for name in os.environ if name.startswith(environments.HINTS)]:
        monkeypatch.delenv(name)
    assert (environments.environment(), environments.rank()) == (None, 0)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=words):
        environments.environment()


TASK = {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("more", "rank", "size"),
    [
        ({"SLURM_JOB_NAME": "train"}, 3, 4),
        ({"SLURM_JOB_NAME": "bash"}, 0, 1),
        ({"SLURM_JOB_NAME": "train", "RANK": "1", "WORLD_SIZE": "2"}, 1, 2),
        ({"SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, 0, 1),
    ],
    ids=["a task", "a shell of an interactive job", "torchrun inside of a job", "a job of one task"],
)
def test_a_task_of_slurm_is_a_rank(more: dict[str, str], rank: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(environments.HINTS)]:
        monkeypatch.delenv(name)
    for name, value in {**TASK, **more}.items():
        monkeypatch.setenv(name, value)
    found = environments.environment()
    assert (environments.rank(), 1 if found is None else found.world_size()) == (rank, size)


def test_who_runs_alone_in_a_job_of_slurm_learns_what_to_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """The script of a job, started without srun, counts as its first task."""
    for name in [name for name in os.environ if name.startswith(environments.HINTS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_NTASKS", "2")
    with pytest.raises(PeerError, match=r"rank 1 of WORLD_SIZE=2 did not come .* unset SLURM_NTASKS$"):
        agree(dist.HashStore(), 0, 2, 0.1)
