"""The ranks of one start find each other in a store that earlier starts may have used."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from igc_dist.records import PeerError

POLL = 0.02
"""Seconds between looks at the store."""


def agree(store: Any, rank: int, size: int, limit: float) -> str:
    """Agree on a name that all `size` ranks of this start share and that no other start used: a prefix in the store.

    torchrun's restart count cannot serve as such a name: an agent counts only the failures of its own ranks, so the
    counts of two nodes may differ. Rank 0 publishes a fresh name. Each other rank answers with a fresh word, and
    continues when rank 0 has repeated this word. So no rank follows the rank 0 of an earlier start. Raises `PeerError`
    if a rank does not come within `limit` seconds.
    """
    mine, until = uuid.uuid4().hex, time.monotonic() + limit
    if rank == 0:
        store.set("start", mine)
        words: dict[str, str] = {}
        for other in range(1, size):
            key = f"start/{mine}/{other}"
            while not store.check([key]):
                _wait(until, f"rank {other} did not come within {limit:.0f} s of rank 0")
            words[str(other)] = store.get(key).decode()
        store.set(f"start/{mine}", json.dumps(words))
        return mine
    while True:
        if store.check(["start"]):
            name = store.get("start").decode()
            store.set(f"start/{name}/{rank}", mine)
            if store.check([f"start/{name}"]) and json.loads(store.get(f"start/{name}")).get(str(rank)) == mine:
                return str(name)
        _wait(until, f"rank 0 did not come within {limit:.0f} s of rank {rank}")


def _wait(until: float, message: str) -> None:
    if time.monotonic() > until:
        raise PeerError(f"{message}: see the messages of its node; run again to resume")
    time.sleep(POLL)
