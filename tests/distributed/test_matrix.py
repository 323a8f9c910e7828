"""Every kind of fault at every named point, on one, two and three ranks: the right exit code in time, a message that
says which rank and which shard, and a store that goes on to the same bits. SIGKILL has a file of its own,
`test_faults.py`."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import igc_dist
from igc_dist.distributed import World
from igc_dist.faults import KINDS, ONLY, POINTS
from igc_dist.records import ConfigError
from igc_dist.store import Store
from tests.commands import until
from tests.ranks import Ended, arrays, attribute, files, ranks, run_ranks, values

pytestmark = [pytest.mark.dist, pytest.mark.fault]

SETTINGS: dict[str, Any] = {"n": 24, "n_folds": 6, "micro_batch": 4}
TIMEOUT = 3.0
"""fabric.timeout of the runs in which a rank hangs."""
BOUND = 20.0
"""Seconds in which any of these runs has to end, hanging ones after `TIMEOUT` more. They take about 1, and 5 where rank
0 lingers."""

CODES = {"exception": 1, "oom": 1, "sigterm": 75, "nan": 4, "enospc": 2, "slow": 0, "hang": 1}
IN_A_SHARD = ("compute", "gradient", "arrays", "digest", "write")

CASES = [
    (world, point, kind)
    for world in (1, 2, 3)
    for point in POINTS
    for kind in KINDS
    if kind != "kill" and ONLY.get(kind, point) == point
]  # fmt: skip
QUICK = {
    (2, "gradient", "nan"), (2, "write", "enospc"),
    (2, "compute", "exception"),
    (1, "arrays", "exception"), (1, "gradient", "oom"), (2, "digest", "oom"), (1, "digest", "sigterm"),
    (3, "compute", "sigterm"),
    (2, "barrier", "slow"), (2, "gradient", "hang"),
}  # fmt: skip
"""What every run of the tests does; the others are marked slow."""


def run(path: Path, slow: list[int] | None, timeout: float) -> dict[str, bytes]:
    return attribute(path, slow=slow, timeout=timeout, **SETTINGS)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], dict[str, bytes], Any]:
    """The arrays, the files and the tree of a run that nothing disturbs."""
    path = tmp_path_factory.mktemp("undisturbed") / "store.zarr"
    return values(run_ranks(1, run, path, None, 60.0))[0], files(path), igc_dist.open(path).load()


def disturbed(world: int, rank: int, point: str, kind: str, path: Path) -> list[Ended]:
    """The ends of a run with a fault. A rank that hangs is killed when the others have gone, as an agent does; alone,
    by two Ctrl-C."""
    # all others are slow, so that this one gets a shard of pass 2 where the point is in one
    slow = None if world == 1 else [r for r in range(world) if r != rank]
    # of writes, the first rank has more than 30 to do for documents; the others have only those of shards
    count = 38 if point == "write" and rank == 0 else 1
    timeout = TIMEOUT if kind == "hang" else 60.0
    with ranks(world, run, path, slow, timeout, IGC_FAULT=f"{point}:{rank}:{count}:{kind}") as group:
        if kind != "hang":
            return group.ends(BOUND)
        others = [process for r, process in enumerate(group.processes) if r != rank]
        if others:
            until(lambda: not any(process.is_alive() for process in others), BOUND + TIMEOUT)
            return group.ends(0.0)
        until(lambda: asleep(path), BOUND)
        for _ in range(2):
            group.send(0, signal.SIGINT)
            group.processes[0].join(0.2)
        return group.ends(BOUND)


def asleep(path: Path) -> bool:
    """Whether nothing is written any more."""
    before = files(path)
    time.sleep(0.5)
    return bool(before) and files(path) == before


def test_the_matrix_is_whole() -> None:
    """A new point or kind is in the matrix at once."""
    assert set(CASES) >= QUICK
    assert {kind for _, _, kind in QUICK} == {*KINDS} - {"kill"} == {*CODES}
    assert {point for _, point, _ in QUICK} >= {*POINTS} - {"finalize"}


@pytest.mark.parametrize(
    ("world", "point", "kind"), [pytest.param(*c, marks=() if c in QUICK else pytest.mark.slow) for c in CASES]
)
def test_fault_and_resume(world: int, point: str, kind: str, undisturbed: Any, tmp_path: Path) -> None:
    """Exit codes, messages, what the store says of itself, and the bits after another run on another number of
    ranks."""
    path = tmp_path / "store.zarr"
    rank = 0 if point == "finalize" else world - 1
    began = time.monotonic()
    ended = disturbed(world, rank, point, kind, path)
    assert time.monotonic() - began < BOUND + TIMEOUT
    codes, traces = [end.code for end in ended], [end.trace for end in ended]
    goes_on = kind == "slow" or (kind, point) == ("oom", "gradient")
    goes_on |= (kind, point) == ("oom", "write") and not any(
        codes
    )  # where it met a row of a sample, which is written inside the walk
    if goes_on:
        assert codes == [0] * world, traces
    elif kind == "hang":
        hung(world, rank, point, ended)
    elif kind == "sigterm" and point == "finalize":  # which may be done before anybody looks
        assert {*codes} <= {0, 75}, traces
    else:
        assert codes == [CODES[kind]] * world, traces
        told(world, rank, point, kind, ended)
    tree, stored, maps = undisturbed
    half = Store.existing(path)
    if not goes_on and not (kind == "sigterm" and point == "finalize"):
        assert any("not complete" in line for line in half.verify())
    if kind == "oom" and goes_on:  # in smaller micro-batches, whose rounding differs: it says so, and only there
        found = igc_dist.open(path)
        (retried,) = found.attrs["retried"]
        np.testing.assert_allclose(found["x/igc"].values, maps["x/igc"].values, rtol=1e-4, atol=1e-6)
        (path / half.phases["attribute"].digest_key(retried["shard"])).unlink()
    again = {1: 2, 2: 3, 3: 1}[world]
    assert [found == tree for found in values(run_ranks(again, run, path, None, 60.0))] == [True] * again
    assert files(path) == stored
    assert arrays(igc_dist.open(path)) == tree
    assert Store.existing(path).verify() == []


def test_a_rank_says_its_shard_until_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sign of life names the shard, not only the first, or a rank that hangs late in a long one could not be
    asked where."""
    places: list[str] = []
    monkeypatch.setattr(World, "watch", lambda self, where, force=False: places.append(where))
    attribute(None, n=4, n_folds=2, micro_batch=2)
    for phase in ("predict", "attribute"):
        assert {place for place in places if place.startswith(phase)} == {f"{phase} shard {n}" for n in (0, 1)}
    assert len(places) > 8


def told(world: int, rank: int, point: str, kind: str, ended: list[Ended]) -> None:
    """The rank that fails says which it is and where; so do the others, of it."""
    if kind == "sigterm":
        assert f"rank {rank} stopped by a signal at" in ended[rank].message
        assert all("another rank was told to" in end.message for r, end in enumerate(ended) if r != rank)
        return
    place = "shard" if point in IN_A_SHARD else "the end of predict" if point == "barrier" else "finalize"
    assert f"[at rank {rank}, " in f"[{ended[rank].trace.splitlines()[-1]}"
    assert place in ended[rank].trace.splitlines()[-1]
    for r, end in enumerate(ended):
        if r != rank:
            assert end.error == "PeerError"
            assert f"rank {rank} failed: {ended[rank].error}" in end.message
            assert place in end.message
    if kind == "nan":
        assert ended[rank].message.startswith("sample ")
    if kind == "enospc":
        assert "No space left on device" in ended[rank].message
        assert "Shards that were committed are safe: free space" in ended[rank].message


def hung(world: int, rank: int, point: str, ended: list[Ended]) -> None:
    """Those that wait name the rank that hangs, and its shard."""
    if world == 1:
        assert ended[0].error == "KeyboardInterrupt", ended[0].trace
    for r, end in enumerate(ended):
        if r != rank:
            assert (end.error, end.code) == ("PeerError", 1), end.trace
            assert f"rank {rank} " in end.message
            assert TIMEOUT < end.seconds < BOUND
            if point in IN_A_SHARD:
                assert "shard" in end.message


@pytest.mark.parametrize(
    "text",
    [
        "compute",
        "compute:0",
        "no:0:1",
        "compute:a:1",
        "compute:0:-1",
        "compute:0:1:maim",
        "compute:0:1:nan",
        "digest:0:1:enospc",
        "a:b:c:d:e",
    ],
)
def test_a_fault_that_cannot_be_read_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt fault would test nothing."""
    from igc_dist.faults import fault

    monkeypatch.setenv("IGC_FAULT", text)
    with pytest.raises(ConfigError, match=r"expected point:rank:count\[:kind\].*compute.*sigterm"):
        fault("compute")
