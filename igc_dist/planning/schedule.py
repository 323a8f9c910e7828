"""The schedule of a pass: which rank takes which shard, and when the last shard is done. The claims are simulated."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """How ranks shared the shards: `seconds` until the last one was done; shards and busy seconds of each rank."""

    seconds: float
    shards: tuple[int, ...]
    busy: tuple[float, ...]

    @property
    def used(self) -> float:
        """Fraction of the time in which the ranks had work."""
        return sum(self.busy) / (self.seconds * len(self.busy)) if self.seconds else 1.0


def scheduled(seconds: Iterable[float], ranks: int) -> Schedule:
    """The schedule of ranks that claim shards from a counter: the first free rank takes the next shard."""
    free = [(0.0, rank) for rank in range(ranks)]
    shards = [0] * ranks
    for each in seconds:
        at, rank = heapq.heappop(free)
        shards[rank] += 1
        heapq.heappush(free, (at + each, rank))
    busy = {rank: at for at, rank in free}
    return Schedule(max(busy.values()), tuple(shards), tuple(busy[rank] for rank in range(ranks)))
