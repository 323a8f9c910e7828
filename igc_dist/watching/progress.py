"""Progress of the whole job, all ranks together: one bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from igc_dist.distributed import GIB, Heard, Stragglers, World, measures, rate
from igc_dist.store import Store

if TYPE_CHECKING:
    from rich.progress import Progress

log = logging.getLogger(__name__)

EVERY = 30.0
"""Seconds between plain lines."""

LOOK = 2.0
"""Seconds between looks of rank 0 at the reports of the ranks. A look takes 0.2 ms, and 0.15 ms more for each other
rank. With more than 100 ranks there is a look every 20 ms times their number, so it takes less than 1 % of rank 0's
time."""


class Stopwatch:
    """Measures the seconds of the parts of a run. A part begins where the part before ends."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._part, self._since = "", time.monotonic()

    def enter(self, part: str) -> None:
        """Begin or continue a part; "" for none."""
        now = time.monotonic()
        if self._part:
            self.seconds[self._part] = self.seconds.get(self._part, 0.0) + now - self._since
        self._part, self._since = part, now


class Meter:
    """Counts work in counters that all ranks share, and shows it on rank 0."""

    def __init__(self, world: World, bar: Progress | None = None) -> None:
        self.world, self.bar = world, bar
        self.name, self.total, self.done, self.outputs, self.per_sample = "", 0, 0, 0.0, 1
        self.place = ""  # where this rank is, for the ranks that wait for it
        self.clock, self.stragglers = Stopwatch(), Stragglers()
        self.resumed: dict[str, int] = {}
        """The number of shards that were already done when a phase began."""
        self.heard: dict[str, tuple[Heard, int, float]] = {}
        """For each finished phase, on rank 0: the last reports of the ranks, rows per sample, gradients per row."""
        self.store: Store | None = None
        self.takeovers = 0  # locks of dead runs that were taken over
        self.opened: Callable[[], None] = lambda: None
        """Called when this run may fill the store. On rank 0."""
        self.tell: Callable[[Mapping[str, Any]], None] = lambda document: None
        """Called regularly with a document for other processes that watch. On rank 0."""
        self.passed: Callable[[str], None] = lambda name: None
        """Called after each forward pass."""
        self._look = time.monotonic() + LOOK
        self._line = self._started = time.monotonic()
        self._task: Any = None

    @property
    def phase(self) -> str:
        """The phase of the pass. With a budget, passes over different numbers of folds belong to one phase."""
        return self.name.split(" ")[0]

    def start(self, name: str, total: int, done: int, outputs: float = 0, per_sample: int = 1) -> None:
        """Begin a pass of `total` shards, of which `done` are already done.

        Each row of a forward pass needs `outputs` gradients on average (0: forward only). A sample has `per_sample`
        rows (0: there will be no rows, so no rate is shown).
        """
        self.name, self.total, self.done, self.outputs, self.per_sample = name, total, done, float(outputs), per_sample
        self.place = name
        self.resumed.setdefault(self.phase, done)
        self.clock.enter(self.phase)
        self.world.pulse.enter(self.phase)
        self._started = time.monotonic()
        if self.bar is not None:
            self._task = self.bar.add_task(name, total=total, completed=done, rate="")

    def rows(self, rows: int) -> None:
        """Count rows of a finished forward pass. Raises `Stopped` or `PeerError` when the run has to end."""
        self.world.count(f"rows/{self.name}", rows)
        self.world.pulse.rows(rows)
        self.passed(self.phase)
        self.world.watch(self.place)
        self.show()

    def shard(self, **noted: Any) -> None:
        """Count a committed shard of this rank; `noted` are the arguments of `Pulsing.done`."""
        self.world.pulse.done(**noted)
        done = self.done + self.world.count(f"done/{self.name}", 1)
        self.show()
        self.world.log({"shards_done": done, **self.rates()})

    def rates(self) -> dict[str, float]:
        """Samples and gradients per second of all ranks since the pass began."""
        rows = self.world.count(f"rows/{self.name}") / max(time.monotonic() - self._started, 1e-9)
        return {"images_per_s": rows / max(self.per_sample, 1), "grad_evals_per_s": rows * self.outputs}

    def arrive(self) -> None:
        """Note that this rank has no more shards, and send its report to the others."""
        if self.world.store is not None:
            self.world.watch(f"the end of {self.name}", force=True)
        pulse = self.world.pulse.now()
        tally, rows = pulse.tally, rate(pulse)
        per = [f"{rows * self.outputs:,.0f} gradients/s"] * bool(self.outputs)
        per += [f"{rows / max(self.per_sample, 1):,.1f} samples/s"] * bool(self.per_sample)
        per += [f"{tally.waited:.1f} s waiting for data", f"peak memory {pulse.peak / GIB:.2f} GiB"]
        per += [f"of the device {pulse.device_peak / GIB:.2f} GiB"] * bool(pulse.device_peak)
        log.info(
            "%s: rank %d did %d shards in %.1f s, %s",
            self.name,
            self.world.rank,
            tally.shards,
            tally.busy,
            ", ".join(per),
        )

    def end(self) -> None:
        """Note that the pass is over on all ranks."""
        self.show()
        if self.world.first:
            self.heard[self.phase] = (self.look(), self.per_sample, self.outputs)
            log.info(
                "%s: %d shards in %.1f s%s", self.name, self.total, time.monotonic() - self._started, self._speed()
            )

    def look(self) -> Heard:
        """Read the reports of the ranks, on rank 0.

        They are given to the loggers and to those that watch, and slow ranks are named.
        """
        heard, done = self.world.pulses(), self._done()
        for line in self.stragglers.of(heard):
            log.warning("%s", line)
        rates = self.rates()
        self.world.log({"shards_done": done, **rates, **measures(heard, self.per_sample, self.outputs)})
        ranks = {str(rank): {**asdict(pulse), "silent": silent} for rank, (pulse, silent) in heard.items()}
        pass_ = {
            "name": self.name,
            "total": self.total,
            "done": done,
            "per_sample": self.per_sample,
            "outputs": self.outputs,
        }
        self.tell({"pass": {**pass_, **rates}, "ranks": ranks})
        self._look = time.monotonic() + max(LOOK, self.world.size / 50)
        return heard

    def _done(self) -> int:
        return self.done + self.world.count(f"done/{self.name}")

    def _speed(self) -> str:
        rates = self.rates()
        gradients = f", {rates['grad_evals_per_s']:,.0f} gradients/s" * bool(self.outputs)
        return gradients + f", {rates['images_per_s']:,.1f} samples/s" * bool(self.per_sample)

    def show(self) -> None:
        """Refresh the bar, or regularly print a line."""
        if not self.world.first:
            return
        now = time.monotonic()
        if now > self._look:
            self.look()
        if self.bar is None and now - self._line < EVERY:
            return
        done = self._done()
        if self.bar is not None:
            self.bar.update(self._task, completed=done, rate=self._speed().removeprefix(", "))
        else:
            self._line = now
            left = (now - self._started) * (self.total - done) / max(done - self.done, 1)
            log.info("%s: %d of %d shards%s, about %.0f s left", self.name, done, self.total, self._speed(), left)


@contextmanager
def metered(world: World, show: bool) -> Any:
    """A `Meter`: with a bar on rank 0 if `show` and stderr is a terminal."""
    if not (show and world.first):
        yield Meter(world)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield Meter(world)
        return
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} shards"),
        TextColumn("{task.fields[rate]}"),
    ]
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, refresh_per_second=4) as bar:
        yield Meter(world, bar)
