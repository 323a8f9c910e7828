"""Ranks of one start agree on a name of their own, in a store that remembers other starts."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch.distributed as dist

from igc_dist.distributed.handshake import agree
from igc_dist.records import PeerError


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


@pytest.mark.parametrize(("rank", "missing"), [(0, "rank 1 did not come"), (1, "rank 0 did not come")])
def test_a_rank_that_does_not_come_is_named(rank: int, missing: str) -> None:
    with pytest.raises(PeerError, match=f"{missing} within 0 s.*run again to resume"):
        agree(dist.HashStore(), rank, 2, 0.3)
