"""The ranks among themselves: claims, exchange, heartbeats, and what they leave behind."""

from __future__ import annotations

import logging
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import igc_dist
from igc_dist.distributed import World, claims, joined
from igc_dist.distributed import world as distributed
from igc_dist.records import ConfigError, DataError, PeerError, Stopped, StoreError
from igc_dist.store import Store
from tests.commands import until
from tests.ranks import Net, Rows, attribute, ranks, run_ranks, values

pytestmark = pytest.mark.dist


ARRAYS = [
    np.array([[np.nan, -0.0], [np.inf, 1e-310]]).T,  # not in the order of C
    np.array([], np.int64),
    np.array(True),
]


def exchanged() -> dict[str, Any]:
    """What the ranks learn of each other in a few exchanges."""
    with joined(accelerator="cpu", timeout=60.0) as world:
        first, second = (
            [c.number for c in claims(world, *of) if c.do(lambda: True)]
            for of in (("a", list(range(100, 137))), ("b", [5, 7]))
        )
        slots = np.zeros(3)
        slots[world.rank] = 0.1 + world.rank
        found = {
            "rank": world.rank,
            "first": first,
            "second": second,
            "sum": world.sum(slots).tolist(),
            "gather": world.gather(world.rank * 10),
            "arrays": world.gather_arrays({f"{world.rank}/{n}": of for n, of in enumerate(ARRAYS[: world.rank + 1])}),
            "share": [world.share(lambda: ["rank", os.getpid()]), world.share(lambda: os.getpid())],
            "count": world.count("mine", 2),
            "size": world.size,
        }
        world.meet("counted")
        return {**found, "counted": world.count("mine")}


def test_exchange_over_ranks() -> None:
    """Each claim is given once; sums, objects and rank 0's word reach everybody; counters are shared."""
    found = values(run_ranks(3, exchanged))
    assert sorted(n for one in found for n in one["first"]) == list(range(100, 137))
    assert sorted(n for one in found for n in one["second"]) == [5, 7]
    assert [one["sum"] for one in found] == [[0.1, 1.1, 2.1]] * 3
    assert [one["gather"] for one in found] == [[0, 10, 20]] * 3
    for one in found:
        assert [[*arrays] for arrays in one["arrays"]] == [["0/0"], ["1/0", "1/1"], ["2/0", "2/1", "2/2"]]
        for arrays in one["arrays"]:
            for its, mine in zip(arrays.values(), ARRAYS, strict=False):
                assert (its.dtype, its.shape, its.tobytes()) == (mine.dtype, mine.shape, mine.tobytes())
    assert [one["share"] for one in found] == [found[0]["share"]] * 3
    assert [one["counted"] for one in found] == [6, 6, 6]
    assert [one["size"] for one in found] == [3, 3, 3]


def test_alone_every_exchange_is_the_identity() -> None:
    """One process needs no group: it claims everything in order, and hears itself."""
    world = World()
    assert [c.number for c in claims(world, "phase", [3, 1, 2]) if c.do(lambda: True)] == [3, 1, 2]
    assert [c.number for c in claims(world, "other", [4]) if c.do(lambda: True)] == [4]
    assert (world.share(lambda: {"a": 1}), world.gather(5), world.count("n", 3), world.count("n")) == (
        {"a": 1},
        [5],
        3,
        3,
    )
    np.testing.assert_array_equal(world.sum(np.arange(3.0)), np.arange(3.0))
    world.meet("end")
    assert not dist.is_initialized()
    world.stopping = True
    with pytest.raises(Stopped, match="stopped by a signal at here"):
        world.watch("here")


@pytest.mark.parametrize("interrupted", [False, True])
def test_all_ranks_know_whether_ctrl_c_stopped_one(interrupted: bool) -> None:
    store = dist.HashStore()
    one, other = World(0, 2, store=store), World(1, 2, store=store)
    one.stopping, one.interrupted = True, interrupted
    for world, words in ((one, "rank 0 stopped by a signal"), (other, "rank 1 stops at here")):
        with pytest.raises(Stopped, match=words) as found:
            world.watch("here", force=True)
        assert found.value.interrupted is interrupted


def traces() -> tuple[Any, ...]:
    """What a run may have left in the process: handlers, threads, a process group."""
    handlers = tuple(signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1))
    return (*map(str, handlers), torch.get_num_threads(), dist.is_initialized())


def around(fail: bool) -> list[tuple[Any, ...]]:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    torch.set_num_threads(2)
    before = traces()
    try:
        with joined(accelerator="cpu", threads=1, timeout=60.0) as world:
            inside = traces()
            assert inside[-2:] == (1, world.size > 1)
            assert inside[:3] != before[:3]
            if fail:
                raise DataError("on every rank")
    except (DataError, PeerError):
        pass
    return [before, traces()]


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("fail", [False, True])
def test_a_run_leaves_the_process_as_it_was(n: int, fail: bool) -> None:
    """Signal handlers and the number of threads are restored, and the process group is destroyed, also after an
    error."""
    for before, after in values(run_ranks(n, around, fail)):
        assert before == after


def leaving(folder: Path) -> None:
    """Rank 0 is done, and waits for the other."""
    with joined(accelerator="cpu", timeout=60.0) as world:
        if world.first:
            (folder / "done").touch()
        else:
            until((folder / "go").exists)


def test_a_signal_while_ranks_leave_is_too_late(tmp_path: Path) -> None:
    """A rank that counts as there and then stops would take the store, or the barrier, from those that come after
    it."""
    with ranks(2, leaving, tmp_path) as group:
        until((tmp_path / "done").exists)
        group.send(0, signal.SIGTERM)
        group.processes[0].join(0.3)
        (tmp_path / "go").touch()
        assert [(end.code, end.error) for end in group.ends(60.0)] == [(0, "")] * 2


def exchanging(there: Path) -> None:
    """Rank 0 is told to stop when it counts as there, and rank 1 exchanges already."""
    with joined(accelerator="cpu", timeout=60.0) as world:
        world.meet("all")
        if world.first:
            there.touch()
            until(lambda: world.stopping)
            world.watch("between")
        world.sum(np.zeros(1))


def test_a_rank_that_stops_takes_those_with_it_that_exchange(tmp_path: Path) -> None:
    """They see a socket that closes, and look why: all end with 75, or a scheduler would take it for a failure."""
    with ranks(2, exchanging, tmp_path / "there") as group:
        until((tmp_path / "there").exists)
        group.send(0, signal.SIGTERM)
        assert [(end.code, end.error) for end in group.ends(60.0)] == [(75, "Stopped")] * 2


def in_a_group_of_ones_own(spawned: bool) -> list[Any]:
    """Two runs inside a process group that the caller made and goes on using.

    `spawned`: as in PyTorch's DDP tutorial, where no variable names the rank.
    """
    if spawned:
        at = f"tcp://127.0.0.1:{os.environ['MASTER_PORT']}"
        rank, size = int(os.environ.pop("RANK")), int(os.environ.pop("WORLD_SIZE"))
        for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT"):
            del os.environ[name]
        dist.init_process_group("gloo", init_method=at, rank=rank, world_size=size)
    else:
        dist.init_process_group("gloo")
    try:
        trees = [attribute(None), attribute(None, seed=1)]
        total = torch.ones(1)
        dist.all_reduce(total)
        with joined(accelerator="cpu", timeout=60.0) as world:
            return [*trees, total.item(), world.size, dist.is_initialized()]
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("spawned", [False, True])
def test_the_callers_process_group_is_used_and_kept(spawned: bool) -> None:
    """The second run finds nothing of the first in the group's store: neither claims nor counters."""
    expected = [attribute(None), attribute(None, seed=1)]
    assert values(run_ranks(2, in_a_group_of_ones_own, spawned)) == [[*expected, 2.0, 2, True]] * 2


def with_lightnings_variables() -> tuple[list[Any], bool]:
    """Rank, size, device and threads of a run, and whether the environment is as it was."""
    del os.environ["OMP_NUM_THREADS"]  # without it, Lightning's launcher sets the number of threads
    before = dict(os.environ)
    with joined(accelerator="cpu", threads=2, timeout=60.0) as world:
        found = [world.rank, world.size, str(world.device), torch.get_num_threads()]
    return found, dict(os.environ) == before


def test_only_our_own_settings_decide() -> None:
    """Lightning's command line sets variables that override what its Fabric is given: number of ranks, device."""
    theirs = {"DEVICES": "3", "ACCELERATOR": "cuda", "STRATEGY": "fsdp", "NUM_NODES": "2", "CLI_USED": "1"}
    found = run_ranks(2, with_lightnings_variables, **{f"LT_{name}": value for name, value in theirs.items()})
    assert values(found) == [([rank, 2, "cpu", 2], True) for rank in (0, 1)]


def test_an_accelerator_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"fabric.accelerator=tpu with fabric.strategy=auto cannot be used"):
        igc_dist.attribute(Net(), Rows(), accelerator="tpu")


class Broken(Rows):
    """One rank cannot read its data after the first look; the others read slowly, and would go on for a minute."""

    def __init__(self, rank: int, error: Exception) -> None:
        super().__init__(24, slow=1 - rank, pause=0.3)
        self.rank, self.error, self.reads = rank, error, 0

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.reads += 1
        if self.reads > 30 and int(os.environ["RANK"]) == self.rank:
            raise self.error
        return super().__getitem__(index)


def broken(path: Path, rank: int, error: Exception) -> None:
    igc_dist.attribute(Net(), Broken(rank, error), store=path, n_steps=2, n_folds=24, threads=1)


@pytest.mark.parametrize(("rank", "error"), [(1, RuntimeError("the disk is on fire")), (0, DataError("no picture"))])
def test_an_exception_on_one_rank_ends_the_others(rank: int, error: Exception, tmp_path: Path) -> None:
    """The others hear of it soon, name the rank and its words, and leave with its exit code; the store resumes."""
    ended = run_ranks(2, broken, tmp_path / "a.zarr", rank, error)
    told = ended[1 - rank]
    assert (ended[rank].error, ended[rank].code) == ("DataError", 3)
    assert (told.error, told.code) == ("PeerError", 3), told.trace
    assert re.search(f"rank {rank} failed: DataError: .*{error}", told.message)
    assert told.seconds - ended[rank].seconds < 10
    assert any("not complete" in line for line in Store.existing(tmp_path / "a.zarr").verify())


def test_a_refusal_of_the_store_reaches_every_rank(tmp_path: Path) -> None:
    """Only rank 0 looks at the store; the others leave with its reason and its exit code too."""
    path = tmp_path / "a.zarr"
    attribute(path, n=7)
    ended = run_ranks(3, attribute, path, 23)
    assert [(end.error, end.code) for end in ended] == [("StoreError", 2), ("PeerError", 2), ("PeerError", 2)]
    assert "rank 0 failed: StoreError" in ended[2].message
    assert "data.n: 7 in the store, 23 asked for" in ended[2].message


def silent(rank: int, where: str) -> None:
    """A rank stops at some place: it neither ends nor speaks."""
    distributed.LINGER = 0.5
    with joined(accelerator="cpu", timeout=60.0) as world:
        world.silence = 2.0
        logging.basicConfig(filename=os.environ["LOG"])
        if where == "share" and world.rank == rank:
            os.kill(os.getpid(), signal.SIGSTOP)
        world.share(lambda: 1)
        for claim in claims(world, "phase", list(range(4))):
            claim.do(lambda: os.kill(os.getpid(), signal.SIGSTOP) if world.rank == rank else time.sleep(0.2))
        world.meet("phase")


@pytest.mark.fault
@pytest.mark.parametrize("where", ["share", "claim"])
def test_a_silent_rank_is_named(where: str, tmp_path: Path) -> None:
    """A rank that hangs, before its first claim or in a shard, is first warned about and then named, not waited for."""
    with ranks(2, silent, 1, where, LOG=str(tmp_path / "log")) as group:
        group.processes[0].join(30)
        group.kill()
        ended = group.ends(1.0)
    assert ended[0].error == "PeerError", ended[0].trace
    last = "the first look" if where == "share" else "phase shard"
    assert re.search(rf"rank 1 is silent for \d+ s, last seen at {last}", ended[0].message)
    assert "rank 1 is silent for" in (tmp_path / "log").read_text()


def hangs(path: Path) -> None:
    distributed.LINGER = 0.5
    attribute(path, n=24, slow=1, timeout=6.0, n_folds=6)


@pytest.mark.fault
@pytest.mark.slow
def test_a_stopped_rank_does_not_hold_a_run_longer_than_its_timeout(tmp_path: Path) -> None:
    """SIGSTOP of a rank in the middle of a run: the other names it within the timeout that was asked for, and leaves; a
    rerun completes."""
    path = tmp_path / "a.zarr"
    with ranks(2, hangs, path) as group:
        deadline = time.monotonic() + 30
        while not list(path.glob("shards/*/record/c.*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        group.send(1, signal.SIGSTOP)
        group.processes[0].join(30)
        group.kill()
        ended = group.ends(1.0)
    assert (ended[0].error, ended[0].code) == ("PeerError", 1), ended[0].trace
    assert re.search(r"rank 1 is silent for \d+ s", ended[0].message)
    with pytest.raises(StoreError, match="not complete"):
        igc_dist.open(path)
    assert attribute(path, n=24, n_folds=6) == attribute(None, n=24, n_folds=6)


def test_peer_errors_carry_the_exit_code_of_the_rank_that_failed() -> None:
    assert (PeerError("rank 1 failed", 4).exit_code, PeerError("rank 1 is silent").exit_code) == (4, 1)
