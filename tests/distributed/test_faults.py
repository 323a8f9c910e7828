"""kill -9 at every named point, then the same run again on another number of ranks: the same bits, and no shard
twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import igc_dist
from igc_dist.faults import POINTS
from igc_dist.records import StoreError
from igc_dist.store import Store
from tests.ranks import Net, Rows, arrays, attribute, files, run_ranks, values

pytestmark = [pytest.mark.dist, pytest.mark.fault]

SETTINGS: dict[str, Any] = {"n": 24, "n_folds": 6, "micro_batch": 4}
FOLDS = 6
"""Shards of each pass: every shard of pass 1 passes `arrays` and `digest` once, every shard of pass 2 also
`compute`."""

KILLS = [
    # alone, a rank passes the points in a known order: the first time, in the middle, the last time
    *(
        (1, 0, point, count)
        for point, counts in (("compute", (1, 4)), ("arrays", (1, 9, 12)), ("digest", (1, 4, 12)))
        for count in counts
    ),
    *((1, 0, "barrier", count) for count in (1, 2)),
    *((1, 0, "gradient", count) for count in (1, 4)),
    (1, 0, "write", 20),  # after the documents, of which see `test_kill_among_the_documents`
    (1, 0, "finalize", 1),
    # with others: at the first pass of a shard, at the end of each pass, while rank 0 finalises
    *(
        (world, rank, point, 1)
        for world in (2, 3)
        for point in ("compute", "gradient", "arrays", "digest")
        for rank in (0, world - 1)
    ),
    *((world, world - 1, "write", 1) for world in (2, 3)),
    *((world, rank, "barrier", count) for world, rank, count in ((2, 0, 1), (2, 1, 2), (3, 2, 1), (3, 0, 2))),
    *((world, 0, "finalize", 1) for world in (2, 3)),
]
QUICK = {
    (1, 0, "arrays", 9),
    (1, 0, "barrier", 1),
    (1, 0, "finalize", 1),
    (1, 0, "write", 20),
    (2, 1, "gradient", 1),
    (2, 1, "compute", 1),
    (2, 0, "digest", 1),
    (2, 1, "barrier", 2),
    (3, 2, "arrays", 1),
}
"""What every run of the tests does; the others are marked slow."""


def run(path: Path, slow: list[int] | None) -> dict[str, bytes]:
    return attribute(path, slow=slow, **SETTINGS)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The arrays and the files of a run that nothing disturbs."""
    path = tmp_path_factory.mktemp("undisturbed") / "store.zarr"
    return values(run_ranks(1, run, path, None))[0], files(path)


def test_every_point_is_killed_at() -> None:
    """A new fault point must be added here too."""
    for world in (1, 2, 3):
        assert {point for w, _, point, _ in KILLS if w == world} == set(POINTS)
    assert {point for _, _, point, _ in QUICK} == set(POINTS)
    assert set(KILLS) >= QUICK


@pytest.mark.parametrize(
    ("world", "rank", "point", "count"),
    [pytest.param(*kill, marks=() if kill in QUICK else pytest.mark.slow) for kill in KILLS],
)
def test_kill_and_resume(world: int, rank: int, point: str, count: int, undisturbed: Any, tmp_path: Path) -> None:
    """The store is not complete after kill -9, and readers refuse it; the next run completes it to the same bytes, and
    does not write a committed shard again."""
    path = tmp_path / "store.zarr"
    # all others are slow, so that the one to be killed gets a shard
    slow = None if world == 1 else [r for r in range(world) if r != rank]
    ended = run_ranks(world, run, path, slow, IGC_FAULT=f"{point}:{rank}:{count}")
    assert ended[rank].code == -9, ended[rank].trace
    with pytest.raises(StoreError, match="running, not complete"):
        igc_dist.open(path)
    assert igc_dist.open(path, allow_partial=True) is not None
    half = Store.existing(path)
    assert any("not complete" in line for line in half.verify())
    done = {phase: [n for n in range(FOLDS) if half.is_done(phase, n)] for phase in half.phases}
    if world == 1 and point != "write":  # one shard at most is lost
        commits = {
            "compute": FOLDS + count - 1,
            "gradient": FOLDS + count - 1,
            "arrays": count - 1,
            "digest": count - 1,
            "barrier": FOLDS * count,
            "finalize": 2 * FOLDS,
        }
        assert sum(map(len, done.values())) == commits[point]
    safe = [
        key
        for phase, numbers in done.items()
        for n in numbers
        for key in (*half.phases[phase].keys(n), half.phases[phase].digest_key(n))
    ]
    written = {key: (path / key).stat().st_mtime_ns for key in safe}

    tree, stored = undisturbed
    again = {1: 2, 2: 3, 3: 1}[world]
    assert [found == tree for found in values(run_ranks(again, run, path, None))] == [True] * again
    assert {key: (path / key).stat().st_mtime_ns for key in safe} == written
    assert files(path) == stored
    assert arrays(igc_dist.open(path)) == tree
    assert Store.existing(path).verify() == []


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow), 5])
def test_kill_among_the_documents(count: int, undisturbed: Any, tmp_path: Path) -> None:
    """Half a document beside the store is no document, be it the first; nothing can be read yet, and the next run
    begins there."""
    path = tmp_path / "store.zarr"
    assert run_ranks(1, run, path, None, IGC_FAULT=f"write:0:{count}")[0].code == -9
    assert len([*path.rglob("*.partial")]) == 1
    with pytest.raises(StoreError, match="not a readable igc-dist store" if count == 1 else "running, not complete"):
        igc_dist.open(path)
    assert values(run_ranks(2, run, path, None)) == [undisturbed[0]] * 2
    assert files(path) == undisturbed[1]


class Counting(Net):
    """Counts the rows of its forward passes."""

    rows = 0

    def forward(self, x: Tensor) -> Tensor:
        Counting.rows += len(x)
        return super().forward(x)


def counted(path: Path) -> int:
    Counting.rows = 0
    igc_dist.attribute(Counting(), Rows(24), store=path, n_steps=4, n_folds=6, micro_batch=4, threads=1)
    return Counting.rows


def test_a_resumed_run_computes_only_what_is_missing(tmp_path: Path) -> None:
    """After a kill before the fourth shard of pass 2, three of six shards are walked; pass 1 and a complete store cost
    no sample."""
    whole = values(run_ranks(1, counted, tmp_path / "whole.zarr"))[0]
    look = values(run_ranks(1, counted, tmp_path / "whole.zarr"))[
        0
    ]  # complete: the first look at the model, nothing else
    # per fold of 4 samples: 4 nodes, and the one baseline once per run
    assert whole - look == 24 + 24 * 4 + 1
    assert run_ranks(1, counted, tmp_path / "half.zarr", IGC_FAULT="compute:0:4")[0].code == -9
    assert values(run_ranks(1, counted, tmp_path / "half.zarr"))[0] - look == 12 * 4 + 1


def test_any_number_of_kills(undisturbed: Any, tmp_path: Path) -> None:
    """Kills follow each other, each at another point of what is left; the bits stay."""
    path = tmp_path / "store.zarr"
    for world, wish in (
        (1, "arrays:0:3"),
        (1, "compute:0:2"),
        (2, "barrier:1:2"),
        (1, "finalize:0:1"),
        (3, "finalize:0:1"),
    ):
        assert -9 in [end.code for end in run_ranks(world, run, path, None, IGC_FAULT=wish)]
    assert values(run_ranks(2, run, path, None)) == [undisturbed[0]] * 2
    assert files(path) == undisturbed[1]


def test_faults_are_off_unless_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without IGC_FAULT, or for another rank or point, nobody is killed."""
    from igc_dist.faults import fault

    monkeypatch.delenv("IGC_FAULT", raising=False)
    for point in POINTS:
        fault(point)
    monkeypatch.setenv("IGC_FAULT", "compute:1:1")
    fault("compute")
    with pytest.raises(AssertionError):
        fault("no such point")
