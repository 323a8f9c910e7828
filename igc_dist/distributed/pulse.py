"""Reports that each rank sends with its heartbeat, and what rank 0 computes from them.

That is rates, memory, skew and slow ranks.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from statistics import median
from typing import Any

from igc_dist.model import memory

SLOW = 3.0
"""A rank is slow if its shard takes this many times as long as the shards of others."""

LEAST = 5.0
"""Seconds below which no shard counts as slow: the times of very short shards differ a lot, which is no problem."""

REMEMBERED = 64
"""The number of last shards of a rank over which the median time is taken."""

GIB = 2**30


@dataclass
class Tally:
    """What a rank has done in a phase.

    `busy`: seconds inside shards. `waited`: the part of them spent waiting for data. `typical`: median seconds of its
    last shards. `lost`: samples left out. `retried`: shards that ran out of memory. `residual`: the worst completeness
    of a shard.
    """

    shards: int = 0
    rows: int = 0
    busy: float = 0.0
    waited: float = 0.0
    typical: float = 0.0
    lost: int = 0
    retried: int = 0
    residual: float = 0.0


@dataclass
class Pulse:
    """The report of a rank on itself. Memory in bytes: host now, host peak, and device peak (0 without a device)."""

    phase: str = ""
    shard: str = ""
    """The current shard; empty between shards."""
    seconds: float = 0.0
    """Seconds since the current shard began."""
    resident: int = 0
    peak: int = 0
    device_peak: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)

    @property
    def tally(self) -> Tally:
        """The tally of the current phase."""
        return self.tallies.get(self.phase, Tally())

    @classmethod
    def read(cls, document: Any) -> Pulse | None:
        """A pulse from JSON. None if the document is no pulse, because anybody may have written the file."""
        try:
            tallies = {str(name): _typed(Tally, tally) for name, tally in document["tallies"].items()}
            return _typed(cls, {**document, "tallies": tallies})
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            return None


def _typed(kind: Any, document: Mapping[str, Any]) -> Any:
    """Make the dataclass, with all values converted to the types of its defaults."""
    bare = kind()
    return kind(**{each.name: type(getattr(bare, each.name))(document[each.name]) for each in fields(kind)})


class Pulsing:
    """This rank's own pulse during its work. `rows` costs 0.2 us, `done` 6 us, and `said` 100 us, once a second."""

    def __init__(self) -> None:
        self.waiting: Callable[[], float] = lambda: 0.0
        """Returns the total seconds that this rank waited for data."""
        self._pulse, self._since, self._waited = Pulse(), 0.0, 0.0
        self._took: deque[float] = deque(maxlen=REMEMBERED)

    def enter(self, phase: str) -> None:
        """Begin a phase, or continue it."""
        if phase != self._pulse.phase:
            self._took.clear()
        self._pulse.phase = phase
        self._pulse.tallies.setdefault(phase, Tally())

    def begin(self, shard: str) -> None:
        """Begin a shard."""
        self._pulse.shard, self._since, self._waited = shard, time.monotonic(), self.waiting()

    def rows(self, rows: int) -> None:
        """Count rows of a finished forward pass."""
        if self._pulse.phase:
            self._pulse.tallies[self._pulse.phase].rows += rows

    def done(self, lost: int = 0, retried: bool = False, residual: float = 0.0) -> None:
        """The current shard is committed. The arguments are described in `Tally`."""
        tally, seconds = self._pulse.tallies[self._pulse.phase], time.monotonic() - self._since
        self._took.append(seconds)
        self._pulse.shard = ""
        tally.shards += 1
        tally.busy += seconds
        tally.waited += self.waiting() - self._waited
        tally.typical = median(self._took)
        tally.lost += lost
        tally.retried += retried
        tally.residual = max(tally.residual, residual)

    def drop(self) -> None:
        """Forget the current shard: another rank does it now."""
        self._pulse.shard = ""

    def now(self) -> Pulse:
        """A copy of the pulse at this moment."""
        pulse = replace(self._pulse, tallies={phase: replace(tally) for phase, tally in self._pulse.tallies.items()})
        pulse.seconds = time.monotonic() - self._since if pulse.shard else 0.0
        pulse.resident, pulse.peak = memory.resident(), memory.resident_peak()
        torch = sys.modules.get("torch")  # a process that only reads pulses has not loaded torch
        if torch is not None and torch.cuda.is_initialized():
            pulse.device_peak = torch.cuda.max_memory_allocated()
        return pulse

    def said(self) -> dict[str, Any]:
        """The pulse as JSON."""
        return asdict(self.now())


Heard = Mapping[int, tuple[Pulse, float]]
"""By rank, its last report and the seconds since then."""


def rate(pulse: Pulse, silent: float = 0.0) -> float:
    """Rows per second of work of a rank in its phase, including the current shard."""
    busy = pulse.tally.busy + (pulse.seconds + silent if pulse.shard else 0.0)
    return pulse.tally.rows / busy if busy > 0 else 0.0


def skew(heard: Heard) -> float:
    """The rate of the slowest rank over the median rate, of ranks that have worked; 1 if all are alike."""
    rates = [rate(pulse, silent) for pulse, silent in heard.values() if pulse.tally.busy > 0 or pulse.shard]
    middle = median(rates) if rates else 0.0
    return min(rates) / middle if middle > 0 else 1.0


def typical(heard: Heard, phase: str) -> float | None:
    """Median seconds of a shard of a phase over all ranks.

    None until two shards are done, because the first one includes the warm-up.
    """
    tallies = [pulse.tallies[phase] for pulse, _ in heard.values() if phase in pulse.tallies]
    ordered, n = sorted((t.typical, t.shards) for t in tallies if t.shards), sum(t.shards for t in tallies)
    passed = 0
    for seconds, shards in ordered:
        passed += shards
        if n >= 2 and 2 * passed >= n:
            return seconds
    return None


class Stragglers:
    """Reports slow ranks, once per shard. Silent ranks are not slow: the ranks that wait for them report them."""

    def __init__(self) -> None:
        self.told: dict[tuple[int, str], str] = {}

    def of(self, heard: Heard) -> list[str]:
        """A line for each rank that has become slow since the last call."""
        lines = []
        usual_of = {phase: typical(heard, phase) for phase in {pulse.phase for pulse, _ in heard.values()}}
        for rank, (pulse, silent) in heard.items():
            usual, seconds = usual_of[pulse.phase], pulse.seconds + silent
            if (
                not pulse.shard
                or usual is None
                or seconds <= max(LEAST, SLOW * usual)
                or (rank, pulse.shard) in self.told
            ):
                continue
            line = f"rank {rank} is slow: {seconds:.3g} s on {pulse.shard}, others take {usual:.2g} s"
            self.told[rank, pulse.shard] = line
            lines.append(line)
        return lines


def measures(heard: Heard, per_sample: int, outputs: float) -> dict[str, float]:
    """The metrics of each rank and of all ranks, for loggers.

    A row of the phase needs `outputs` gradients on average, and a sample has `per_sample` rows.
    """
    tallies = [tally for pulse, _ in heard.values() for tally in pulse.tallies.values()]
    found = {"rank_skew": skew(heard), "nonfinite_count": sum(t.lost for t in tallies)}
    found["completeness_rel"] = max((t.residual for t in tallies), default=0.0)
    for rank, (pulse, silent) in heard.items():
        tally, rows = pulse.tally, rate(pulse, silent)
        mine = {"shards_done": tally.shards, "memory_peak_gib": pulse.peak / GIB}
        mine |= {"images_per_s": rows / max(per_sample, 1), "grad_evals_per_s": rows * outputs}
        mine |= {"data_wait_frac": tally.waited / tally.busy if tally.busy > 0 else 0.0}
        mine |= {"gpu_mem_peak_gib": pulse.device_peak / GIB} if pulse.device_peak else {}
        found |= {f"{name}/rank_{rank}": value for name, value in mine.items()}
    return found
