"""Claims with leases: the shard of a rank that fell silent is handed out again, and of all who then do it one contributes it.

Ranks claim shards from a counter in the process group's store. Whoever has nothing left to claim looks at the others: of a
rank that gave no sign of life for `World.lease` seconds the shard is done once more. A counter per lease says who was
first, the one who finished or the one who took over; so however late the silent rank wakes up, a shard has one contributor.
What both write are the same bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from igc_dist.distributed import World
from igc_dist.records import Superseded

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Claim:
    """Shard `number` of a phase, which this rank is to do; `generation` counts how often it was handed out before."""

    world: World
    phase: str
    turn: int
    number: int
    generation: int = 0

    @property
    def lease(self) -> str:
        """The counter that goes up when this claim ends: who finds 0 there ends it."""
        return f"lease/{self.phase}/{self.turn}/{self.generation}"

    def do(self, work: Callable[[], T]) -> T | None:
        """Do the shard. None if this rank was silent for so long that another does it, and contributes it."""
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
        """The next lease on this shard, if this rank is the one to have it."""
        if self.world.count(self.lease) or not self._ended():
            return None
        return replace(self, generation=self.generation + 1)

    def _ended(self) -> bool:
        return self.world.count(self.lease, 1) == 1


def claims(world: World, phase: str, pending: Sequence[int], while_waiting: Callable[[], None] = lambda: None) -> Iterator[Claim]:
    """Shards that this rank is to do, until all of `pending` are done by somebody. The list must be the same on all ranks.

    Raises what `World.wait` raises while others are busy.
    """
    while (turn := world.count(f"claim/{phase}", 1) - 1) < len(pending):
        yield Claim(world, phase, turn, pending[turn])
    taken: list[Claim] = []

    def ready() -> bool:
        if world.count(f"published/{phase}") < len(pending):
            taken.extend(islice(_abandoned(world, phase, pending), 1))  # what waits here is in nobody's beat: one at a time
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
    """Leases of ranks that are silent for too long, of those that nobody else took."""
    for rank, seconds, beat in world.silent():
        kind, _, rest = beat["held"].partition("/")
        if seconds <= world.lease or kind != "lease":
            continue
        of, turn, generation = rest.rsplit("/", 2)
        claim = Claim(world, phase, int(turn), pending[int(turn)], int(generation)).taken() if of == phase else None
        if claim is not None:
            log.warning("rank %d is silent for %.0f s at %s: rank %d does this shard", rank, seconds, beat["at"], world.rank)
            yield claim
