"""Progress of the whole job, all ranks together: one bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from igc_dist.distributed import World

log = logging.getLogger(__name__)

EVERY = 30.0
"""Seconds between plain lines."""


class Meter:
    """Counts work in the counters that all ranks share, and shows it on rank 0."""

    def __init__(self, world: World, bar: Progress | None = None) -> None:
        self.world, self.bar = world, bar
        self.name, self.total, self.done, self.outputs, self.per_sample = "", 0, 0, 0.0, 1
        self.place = ""  # where this rank is, for those that wait for it
        self._line = self._started = time.monotonic()
        self._task: Any = None

    def start(self, name: str, total: int, done: int, outputs: float = 0, per_sample: int = 1) -> None:
        """Begin a pass of `total` shards of which `done` are done.

        Each row of a forward pass is `outputs` gradients on average (0: forward only), and `per_sample` rows make a sample (0: no
        rows are to come, and so there is no rate to show).
        """
        self.name, self.total, self.done, self.outputs, self.per_sample = name, total, done, outputs, per_sample
        self.place = name
        self._started = time.monotonic()
        if self.bar is not None:
            self._task = self.bar.add_task(name, total=total, completed=done, rate="")

    def rows(self, rows: int) -> None:
        """Rows of a forward pass are done; raises `Stopped` or `PeerError` when the run has to end."""
        self.world.count(f"rows/{self.name}", rows)
        self.world.watch(self.place)
        self.show()

    def shard(self) -> int:
        """A shard is committed; returns how many are, on all ranks together."""
        done = self.done + self.world.count(f"done/{self.name}", 1)
        self.show()
        return done

    def rates(self) -> dict[str, float]:
        """Samples and gradients per second of all ranks since the pass began."""
        rows = self.world.count(f"rows/{self.name}") / max(time.monotonic() - self._started, 1e-9)
        return {"samples_per_s": rows / max(self.per_sample, 1), "gradients_per_s": rows * self.outputs}

    def end(self) -> None:
        """The pass is over on all ranks."""
        self.show()
        if self.world.first:
            log.info("%s: %d shards in %.1f s%s", self.name, self.total, time.monotonic() - self._started, self._speed())

    def _speed(self) -> str:
        rates = self.rates()
        gradients = f", {rates['gradients_per_s']:,.0f} gradients/s" * bool(self.outputs)
        return gradients + f", {rates['samples_per_s']:,.1f} samples/s" * bool(self.per_sample)

    def show(self) -> None:
        """Refresh the bar, or print a line now and then."""
        if not self.world.first:
            return
        now = time.monotonic()
        if self.bar is None and now - self._line < EVERY:
            return
        done = self.done + self.world.count(f"done/{self.name}")
        if self.bar is not None:
            self.bar.update(self._task, completed=done, rate=self._speed().removeprefix(", "))
        else:
            self._line = now
            left = (now - self._started) * (self.total - done) / max(done - self.done, 1)
            log.info("%s: %d of %d shards%s, about %.0f s left", self.name, done, self.total, self._speed(), left)


@contextmanager
def metered(world: World, show: bool) -> Any:
    """A `Meter`: with a bar on rank 0 if `show` and stderr is a terminal."""
    console = Console(file=sys.stderr)
    if not (show and world.first and console.is_terminal):
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
