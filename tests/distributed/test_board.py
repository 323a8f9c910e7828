"""The board of the ranks of one machine answers as torch's stores do."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch.distributed as dist

from igc_dist.distributed.board import Board


def test_as_a_store_of_torch(tmp_path: Path) -> None:
    """The same answers to the same calls, in the order in which `World` makes them."""

    def answers(store: Board | dist.Store) -> list[object]:
        found: list[object] = [store.check(["abort"]), store.add("seen", 0), store.add("seen", 2), store.add("seen", 3)]
        store.compare_set("abort", "", "first")
        store.compare_set("abort", "", "second")
        found += [store.get("abort"), store.check(["abort", "seen"]), store.check(["abort", "other"])]
        store.compare_set("abort", "first", "third")
        store.set("other", "é")
        store.set("other", "{}")
        return [*found, store.get("abort"), store.get("other"), store.add("seen", 0)]

    assert answers(Board(tmp_path / "board", 1)) == answers(dist.HashStore())


def test_runs_do_not_see_each_other(tmp_path: Path) -> None:
    first, second = Board(tmp_path / "board", 1), Board(tmp_path / "board", 2)
    first.add("n", 5)
    assert (Board(tmp_path / "board", 1).add("n", 0), second.add("n", 0)) == (5, 0)


def test_each_number_is_given_once(tmp_path: Path) -> None:
    boards = [Board(tmp_path / "board", 1) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        given = [*pool.map(lambda board: [board.add("next", 1) for _ in range(25)], boards)]
    assert sorted(n for its in given for n in its) == [*range(1, 101)]


def opened(start: float, path: Path) -> int:
    """Open a board at a given time, and count there."""
    time.sleep(max(0.0, start - time.time()))
    return Board(path, 1).add("n", 1)


def test_ranks_may_open_it_at_the_same_moment(tmp_path: Path) -> None:
    """The first one lays it out; SQLite would tell the others at once that it is locked."""
    with ProcessPoolExecutor(4, multiprocessing.get_context("fork")) as pool:
        for n in range(20):
            found = [pool.submit(opened, time.time() + 0.01, tmp_path / str(n)) for _ in range(4)]
            assert sorted(each.result() for each in found) == [1, 2, 3, 4]


def test_a_board_that_is_gone_is_an_error_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "board").write_bytes(b"no database" * 100)
    with pytest.raises(dist.DistStoreError, match="board of the ranks"):
        Board(tmp_path / "board", 1)
