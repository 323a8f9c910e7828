"""The shard of a silent rank is done by others, once, and the silent rank may wake up whenever it likes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from igc_dist.distributed import World, claims
from igc_dist.distributed.leases import Claim, _abandoned
from igc_dist.records import Superseded
from tests.commands import until
from tests.ranks import attribute, files, ranks, run_ranks, values

pytestmark = pytest.mark.dist


class Shared:
    """The process group's store, of ranks in one process."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def add(self, key: str, step: int) -> int:
        self.values[key] = str(int(self.values.get(key, b"0")) + step).encode()
        return int(self.values[key])

    def set(self, key: str, value: str) -> None:
        self.values[key] = value.encode()

    def get(self, key: str) -> bytes:
        return self.values[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self.values for key in keys)


def two() -> tuple[World, World]:
    store = Shared()
    return World(0, 2, store=store, lease=0.0), World(1, 2, store=store, lease=0.0)


def test_a_shard_that_is_done_is_not_taken() -> None:
    one, other = two()
    claim = next(claims(one, "phase", [7]))
    assert claim.do(lambda: True)
    assert Claim(other, "phase", 0, 7).taken() is None
    assert list(claims(other, "phase", [7])) == []


@pytest.mark.parametrize(("lease", "n"), [(60.0, 0), (0.0, 1)])
def test_a_shard_is_taken_from_a_silent_rank_only(lease: float, n: int) -> None:
    one, other = two()
    other.lease = lease

    def meanwhile() -> bool:
        list(_abandoned(other, "phase", [7]))  # the first look hears it
        assert len(list(_abandoned(other, "phase", [7]))) == n
        return True

    assert (next(claims(one, "phase", [7])).do(meanwhile) is None) == bool(n)


def test_of_two_who_do_a_shard_one_contributes_it() -> None:
    """One is silent in its shard; the other takes it; whoever ends first, it is the other's. And the next one may be
    silent too."""
    one, other = two()
    mine, done = next(claims(one, "phase", [7])), []

    def meanwhile() -> bool:
        taken = next(claims(other, "phase", [7]))
        assert (taken.number, taken.generation) == (7, 1)
        assert Claim(World(2, 3, store=one.store), "phase", 0, 7).taken() is None  # a third one comes too late
        again = taken.taken()  # as the third would, if the other were silent as well
        assert again is not None
        assert not taken.do(lambda: True)
        done.append(again.do(lambda: True))
        return True

    assert not mine.do(meanwhile)
    assert done == [True]
    assert list(claims(one, "phase", [7])) == list(claims(other, "phase", [7])) == []
    assert one.reissued == other.reissued == 1


def test_who_wakes_up_stops_at_the_next_micro_batch() -> None:
    """And forgets the lease: in the next shard it is not stopped again."""
    one, other = two()
    reached = []

    def work() -> bool:
        assert Claim(other, "phase", 0, 7).taken() is not None
        with pytest.raises(Superseded):
            one.watch("the next micro-batch", force=True)
        reached.append(1)
        one.watch("another one", force=True)
        return True

    assert not next(claims(one, "phase", [7])).do(work)
    one.watch("the next shard", force=True)
    assert reached == [1]


def sleeping(path: Path | None, marks: Path, **settings: Any) -> dict[str, bytes]:
    """Rank 1 stops in a shard, and is woken up when the others have done it."""
    from igc_dist.passes import ShardWalk

    whole, did = ShardWalk.__call__, []

    def shard(*args: Any) -> dict[str, Any]:
        if os.environ.get("RANK") == "1" and not did:
            (marks / "stopped").touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        did.append(args[-1])
        noted = whole(*args)
        if os.environ.get("RANK") == "0":
            (marks / f"did-{len(did)}").touch()
        return noted

    ShardWalk.__call__ = shard
    return attribute(path, n=7, timeout=30.0, lease=0.2, **settings)


@pytest.mark.fault
@pytest.mark.parametrize("in_memory", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_bits_do_not_change_when_a_rank_sleeps(in_memory: bool, tmp_path: Path) -> None:
    """Rank 0 does all four shards while rank 1 sleeps; then both end well, with the same files and results as alone."""
    attribute(tmp_path / "alone.zarr")
    with ranks(2, sleeping, None if in_memory else tmp_path / "two.zarr", tmp_path) as group:
        until(lambda: (tmp_path / "did-4").exists(), 30)
        group.send(1, signal.SIGCONT)
        found = values(group.ends(30))
    expected = values(run_ranks(1, attribute, None))[0] if in_memory else files(tmp_path / "alone.zarr")
    assert found[0] == found[1]
    assert (found[0] if in_memory else files(tmp_path / "two.zarr")) == expected
