"""Claims with leases: the shard of a silent rank is done again, and exactly one rank contributes it.

Ranks claim shards from a counter in the process group's store. A rank with nothing left to claim watches the others: if
a rank gives no sign of life for `World.lease` seconds, its shard is done again. A counter per lease tells who was
first: the rank that finished, or the rank that took over. So a shard has one contributor, even if the silent rank wakes
up late. Both ranks write the same bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from igc_dist.distributed.world import World
from igc_dist.records import Superseded

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Claim:
    """A claim of this rank on shard `number` of a phase. `generation`: how often the shard was handed out before."""

    world: World
    phase: str
    turn: int
    number: int
    generation: int = 0

    @property
    def lease(self) -> str:
        """The counter that is raised when this claim ends. The rank that finds 0 there ends the claim."""
        return f"lease/{self.phase}/{self.turn}/{self.generation}"

    def do(self, work: Callable[[], T]) -> T | None:
        """Do the shard. Returns None if this rank was silent for so long that another rank does and contributes it."""
        where = f"{self.phase} shard {self.number}"
        self.world.held = self.lease
        self.world.pulse.begin(where)
        try:
            self.world.watch(where, force=True)
            result = work()
        except Superseded:
            self.world.pulse.drop()
            return None
        finally:
            self.world.held = ""
        if not self._ended():
            self.world.pulse.drop()
            return None
        self.world.count(f"published/{self.phase}", 1)
        return result

    def taken(self) -> Claim | None:
        """Take over this shard: the next claim on it, or None if another rank was faster."""
        if self.world.count(self.lease) or not self._ended():
            return None
        return replace(self, generation=self.generation + 1)

    def _ended(self) -> bool:
        return self.world.count(self.lease, 1) == 1


def claims(
    world: World, phase: str, pending: Sequence[int], while_waiting: Callable[[], None] = lambda: None
) -> Iterator[Claim]:
    """Yield claims on shards for this rank to do, until all ranks together have done all of `pending`.

    `pending` must be the same on all ranks. Raises what `World.wait` raises while others are busy.
    """
    while (turn := world.count(f"claim/{phase}", 1) - 1) < len(pending):
        yield Claim(world, phase, turn, pending[turn])
    taken: list[Claim] = []

    def ready() -> bool:
        if world.count(f"published/{phase}") < len(pending):
            taken.extend(
                islice(_abandoned(world, phase, pending), 1)
            )  # one at a time, as a waiting claim is in no rank's heartbeat
            return bool(taken)
        return True

    while True:
        world.wait(ready, f"waiting at {phase}", while_waiting)
        if not taken:
            world.reissued = world.count("reissued")
            return
        world.count("reissued", 1)
        yield taken.pop()


def _abandoned(world: World, phase: str, pending: Sequence[int]) -> Iterator[Claim]:
    """Claims on the shards of ranks that are silent for too long, unless another rank took them."""
    for rank, seconds, beat in world.silent():
        kind, _, rest = beat["held"].partition("/")
        if seconds <= world.lease or kind != "lease":
            continue
        of, turn, generation = rest.rsplit("/", 2)
        claim = Claim(world, phase, int(turn), pending[int(turn)], int(generation)).taken() if of == phase else None
        if claim is not None:
            log.warning(
                "rank %d is silent for %.0f s at %s: rank %d does this shard", rank, seconds, beat["at"], world.rank
            )
            yield claim
