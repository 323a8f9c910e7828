"""A run seen from another process: status, who fills the store, shards done, rate, time left, reports of ranks.

It only reads. Finished shards are counted by their digests in the store, so the count is right whoever wrote them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from igc_dist.distributed import GIB, Pulse, rate
from igc_dist.records import StoreError, printable, shown
from igc_dist.secrets import masked_text
from igc_dist.store import Objects, Phase, array_of, attributes, lock, objects_at, seen, unsealed

EVERY, LINES = 1.0, 10.0
"""Seconds between looks on a terminal, and between lines elsewhere."""

MOST = 32
"""The largest number of ranks in a table. If there are more, the slowest are shown."""

SHARE = 0.1
"""The largest part of the time that is spent on looking. A look at a store of 10,000 shards takes 0.1 s on a local
disk, and much longer on a remote one."""

WINDOW = 60.0
"""Seconds over which the rate is taken."""


@dataclass(frozen=True)
class View:
    """A store at one moment.

    It has the status, who fills the store (if anybody), shards done and in total by phase, and the report of the run.
    """

    status: str
    filling: str | None
    done: Mapping[str, int]
    of: Mapping[str, int]
    said: Mapping[str, Any]

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self.status in ("complete", "failed") or self.filling is None

    @property
    def now(self) -> str:
        """The current phase: the last one that has begun."""
        return next((name for name in reversed([*self.done]) if self.done[name]), next(iter(self.done), ""))


@dataclass
class Watcher:
    """Looks at a store repeatedly, to see whether its run is alive and how fast it is."""

    path: str | Path
    clock: Callable[[], float] = time.monotonic
    _beats: tuple[Any, float] = (None, 0.0)
    _seen: list[tuple[float, str, int]] = field(default_factory=list)

    def look(self) -> View:
        """Look at the store now. Raises `StoreError` if there is none and no process is about to make one."""
        objects = objects_at(self.path)
        filling = self._holder(objects)
        if filling is not None and unsealed(objects.get("zarr.json")) is None:
            return View("starting", filling, {}, {}, {})
        about = attributes(self.path, also="shards/zarr.json")
        phases = [Phase.read(phase) for phase in about["layout"]]
        done = {
            phase.name: sum(array_of(key) == phase.mark.path for key in objects.below(phase.mark.path))
            for phase in phases
        }
        said = seen(objects) if filling is not None else None
        view = View(
            printable(about.get("status")), filling, done, {phase.name: len(phase) for phase in phases}, said or {}
        )
        now = self.clock()
        self._seen = [(at, phase, n) for at, phase, n in self._seen if now - at <= WINDOW]
        self._seen.append((now, view.now, done.get(view.now, 0)))
        return view

    def _holder(self, objects: Objects) -> str | None:
        """Who fills the store. A process on another machine counts as alive while its lock is being renewed."""
        found = lock.holder(objects)
        if found is None:
            return None
        beat, now = (found.token, found.beat), self.clock()
        if self._beats[0] != beat:
            self._beats = beat, now
        return str(found) if found.owner.near or now - self._beats[1] <= lock.EXPIRY else None

    def pace(self, view: View) -> tuple[float, float | None]:
        """Shards per second of the current phase, over the last `WINDOW` seconds, and the seconds left in it.

        The seconds are None if they are not known.
        """
        same = [(at, n) for at, phase, n in self._seen if phase == view.now]
        (began, first), (at, last) = same[0], same[-1]
        speed = (last - first) / (at - began) if at > began else 0.0
        left = view.of[view.now] - last
        return speed, left / speed if speed > 0 else None


def line(watcher: Watcher, view: View) -> str:
    """A view as one line."""
    parts = [view.status, *(f"{name} {view.done[name]} of {view.of[name]} shards" for name in view.done)]
    if view.done and not view.ended:
        speed, left = watcher.pace(view)
        parts += [
            f"{speed:.3g} shards/s",
            "time left unknown" if left is None else f"about {_span(left)} left in {view.now}",
        ]
    ranks = _ranks(view)
    if ranks:
        silent = max(seconds for _, seconds in ranks.values())
        parts += [
            f"{len(ranks)} ranks",
            f"peak memory {max(p.peak for p, _ in ranks.values()) / GIB:.2f} GiB",
            f"silent {silent:.0f} s",
        ]
    return ", ".join(parts)


def table(watcher: Watcher, view: View) -> Group:
    """A view for a terminal."""
    head = Text(f"{watcher.path}: {view.status}" + ("" if view.filling is None else f", {view.filling}"))
    phases = Table("phase", "done", "of", "shards/s", "left")
    for name, done in view.done.items():
        speed, left = watcher.pace(view) if name == view.now and not view.ended else (0.0, None)
        phases.add_row(
            Text(name),
            f"{done:,}",
            f"{view.of[name]:,}",
            f"{speed:.3g}" if speed else "",
            "" if left is None else _span(left),
        )
    ranks = Table("rank", "at", "for", "shards", "samples/s", "data wait", "memory", "peak", "device peak", "silent")
    given = view.said.get("pass")
    of: Mapping[str, Any] = given if isinstance(given, dict) else {}
    slowest = sorted(_ranks(view).items(), key=lambda entry: rate(*entry[1]))
    for rank, (pulse, silent) in sorted(slowest[:MOST]):
        tally = pulse.tally
        per = _number(of.get("per_sample", 1)) or 1.0
        ranks.add_row(
            str(rank), Text(printable(pulse.shard or "waiting")), _span(pulse.seconds) if pulse.shard else "",
            f"{tally.shards:,}",
            f"{rate(pulse, silent) / per:,.1f}", f"{tally.waited / tally.busy if tally.busy > 0 else 0.0:.0%}",
            f"{pulse.resident / GIB:.2f} GiB", f"{pulse.peak / GIB:.2f} GiB",
            f"{pulse.device_peak / GIB:.2f} GiB" if pulse.device_peak else "", _span(silent),
        )  # fmt: skip
    if len(slowest) > MOST:
        ranks.caption = f"the slowest of {len(slowest)} ranks"
    return Group(head, phases, *([ranks] if ranks.row_count else []))


def _ranks(view: View) -> dict[int, tuple[Pulse, float]]:
    """The reports of the ranks, and how long each rank had been silent. Invalid entries of the file are left out."""
    found, ranks = {}, view.said.get("ranks")
    for rank, document in ranks.items() if isinstance(ranks, dict) else ():
        pulse = Pulse.read(document)
        if pulse is not None and str(rank).isdecimal():
            found[int(rank)] = pulse, _number(document.get("silent"))
    return dict(sorted(found.items()))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _span(seconds: float) -> str:
    whole = round(seconds)
    return (
        f"{whole} s"
        if whole < 120
        else f"{whole // 60} min"
        if whole < 7200
        else f"{whole // 3600} h {whole % 3600 // 60} min"
    )


def follow(path: str | Path, every: float | None = None, console: Console | None = None) -> int:
    """Show a store until its run ends. Returns 0 if the store is complete, or after Ctrl-C.

    Raises `StoreError` (exit code 2) if the run failed or nobody fills the store. On a terminal it renews a table,
    elsewhere it prints lines. `every`: seconds between looks.
    """
    screen, watcher = console or Console(), Watcher(path)
    every = every or (EVERY if screen.is_terminal else LINES)
    try:
        if not screen.is_terminal:
            view = _until_end(watcher, every, lambda view: print(shown(masked_text(line(watcher, view))), flush=True))
        else:
            with Live(console=screen, auto_refresh=False) as live:
                view = _until_end(watcher, every, lambda view: live.update(table(watcher, view), refresh=True))
    except KeyboardInterrupt:
        return 0
    if view.status == "complete":
        return 0
    why = attributes(path, also="shards/zarr.json").get("error")
    said = f"it failed ({printable(why)})" if view.status == "failed" else "nobody fills it"
    raise StoreError(f"store {path} is {view.status}, and {said}: run the same command again to go on")


def _until_end(watcher: Watcher, every: float, show: Callable[[View], None]) -> View:
    """Look and show until the run has ended. There are more looks than lines, so that the end is noticed soon."""
    shown = -every
    while True:
        began = time.monotonic()
        view = watcher.look()
        if view.ended or began - shown >= every:
            show(view)
            shown = began
        if view.ended:
            return view
        time.sleep(max(min(every, EVERY), (time.monotonic() - began) / SHARE))
