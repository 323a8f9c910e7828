"""This rank among the others: counters, exchange, heartbeat.

There is no collective between the start of a pass and its end: ranks claim shards from a counter in the process group's
store, so a slow rank costs little. Every rank regularly reports where it is. Ranks that wait name a silent rank in
their error.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.numpy import load, save

from igc_dist import files
from igc_dist.distributed.alive import Alive
from igc_dist.distributed.pulse import Pulse, Pulsing
from igc_dist.distributed.reasons import together
from igc_dist.faults import fault
from igc_dist.records import PeerError, Stopped, Superseded, said
from igc_dist.secrets import masked_text

log = logging.getLogger(__name__)

LINGER, HASTE = 5.0, 3.0
"""Seconds that rank 0 waits for the others to notice that it ends: after an error, and after a signal."""

POLL = 0.05
"""Seconds between looks at the store while waiting. A look takes 25 us, so a waiting rank uses 0.05 % of a core."""


@dataclass
class World:
    """This rank among the others. Alone, `store` is None and every exchange is the identity.

    Where several ranks hold a model together (`replicas`), `rank` and `size` count replicas, and `member` the ranks of
    one, of which the leader is 0.
    """

    rank: int = 0
    size: int = 1
    member: int = 0
    members: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    loggers: Sequence[Any] = ()
    """Loggers of Lightning; rank 0 gives them metrics."""
    store: Any = None
    group: Any = None
    """The process group of this run, of the leaders."""
    whole: Any = None
    """The process group of all ranks."""
    replica: Any = None
    """The ranks with which this one holds the model, if there are several (`replicas.Replica`)."""
    silence: float = 1800.0
    """Seconds without a sign of life after which a rank counts as lost."""
    lease: float = 300.0
    """Seconds without a sign of life after which other ranks do the shard of a rank."""
    held: str = ""
    """The lease of this rank's current shard (`igc_dist.distributed.leases`)."""
    reissued: int = 0
    """The number of shards of silent ranks that others did; known at the end of a pass."""
    stopping: bool = False
    interrupted: bool = False
    """Whether it stops because of Ctrl-C."""
    early: bool = True
    """Nothing is written yet: a signal ends this rank wherever it is, not only where it looks for one."""
    done: bool = False  # signals are ignored now: others count on this rank and would fail if it left
    alive: Alive | None = None
    """Signs of life, without which a rank that waits would not learn that another one is gone."""
    steps: int = 0
    """How often this rank looked whether it may go on."""
    bereft: bool = False
    """Another rank is gone, but the store is complete: there is nobody and nothing to wait for."""
    attempt: int = 0  # the number of restarts; each restart begins its counters at 0
    pulse: Pulsing = field(default_factory=Pulsing)
    _beat: float = 0.0
    _counts: dict[str, int] = field(default_factory=dict)
    _heard: dict[int, tuple[bytes, float]] = field(default_factory=dict)

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes everything that is written once."""
        return self.rank == self.member == 0

    @property
    def process(self) -> int:
        """The number of this rank among those of all replicas."""
        return self.rank * self.members + self.member

    def count(self, name: str, step: int = 0) -> int:
        """Add to a counter that all ranks share; returns the new value."""
        name = f"{name}/{self.attempt}"
        if self.store is None:
            self._counts[name] = self._counts.get(name, 0) + step
            return self._counts[name]
        return int(self.store.add(name, step))

    def watch(self, where: str, force: bool = False) -> None:
        """Report where this rank is, at most once a second unless `force`.

        Raises `Stopped` after a signal to any rank, `PeerError` if another rank failed, and `Superseded` if this rank
        was silent for so long that another rank does its shard.
        """
        self.steps += 1
        if self.stopping and not self.done:
            if self.store is not None:
                self.store.set("stop", json.dumps(self.interrupted))
            raise Stopped(
                f"rank {self.process} stopped by a signal at {where}: shards that were committed are safe, run the "
                "same command again to go on",
                self.interrupted,
            )
        now = time.monotonic()
        if self.store is None or (now - self._beat < 1 and not force):
            return
        self._beat = now
        if self.member == 0:
            beat = {"n": self._next("beat"), "at": where, "held": self.held, "pulse": self.pulse.said()}
            self.store.set(f"beat/{self.rank}", json.dumps(beat))
        self.hearken(where)
        if self.held and self.count(self.held):
            log.warning("rank %d was silent for so long that another rank does what it is at: %s", self.rank, where)
            raise Superseded(where)

    def hearken(self, where: str) -> None:
        """Raise what another rank said before it ended: `PeerError`, or `Stopped`."""
        if self.store.check(["abort"]):
            rank, message, code = json.loads(self.store.get("abort"))
            if rank != self.process:
                raise PeerError(f"rank {rank} failed: {message}", code)
        if self.store.check(["stop"]):
            raise Stopped(
                f"rank {self.process} stops at {where}, since another rank was told to: run the same command again to "
                "go on",
                json.loads(self.store.get("stop")),
            )

    def abort(self, error: BaseException) -> None:
        """Tell the other ranks why this one fails, unless another rank failed before.

        Rank 0 may hold the store, so it gives the others time to read the reason.
        """
        if self.store is None:
            return
        with contextlib.suppress(Exception):
            if isinstance(error, Stopped):
                self.store.set("stop", json.dumps(error.interrupted))  # again: it may have been in a transaction
            else:
                words = masked_text(f"{type(error).__name__}: {said(error)}")
                text = json.dumps([self.process, words, getattr(error, "exit_code", 1)])
                self.store.compare_set("abort", "", text)
            self.store.set(f"left/{self.process}", "")
            self.leave()  # wakes ranks in an exchange while the store can tell them why
            linger = HASTE if isinstance(error, Stopped) else LINGER
            ended, until = self.count("ended", 1), time.monotonic() + linger
            while self.first and ended < self.size * self.members and time.monotonic() < until:
                time.sleep(POLL)
                ended = self.count("ended")

    def linked(self) -> AbstractContextManager[None]:
        """For code that uses the store of the ranks, which ends with the rank that holds it: raises `PeerError`."""
        return together(None, dist.DistError)

    def part(self) -> None:
        """The ranks part: from now on another may end before this one."""
        if self.alive is not None:
            self.alive.end()

    def leave(self) -> None:
        """Destroy the process group of this run, if it has one."""
        whole, self.whole, self.group = self.whole, None, None
        if whole is not None and dist.is_initialized():
            dist.destroy_process_group(whole)

    def meet(self, name: str, while_waiting: Callable[[], None] = lambda: None) -> None:
        """Wait for all ranks. If a rank fails or is silent, raises `PeerError` that names it and where it was."""
        fault("barrier")
        if self.store is None:
            return
        self.count(f"meet/{name}", self.member == 0)
        self.wait(lambda: self.count(f"meet/{name}") >= self.size, f"waiting at {name}", while_waiting)

    def wait(self, ready: Callable[[], bool], where: str, while_waiting: Callable[[], None] = lambda: None) -> None:
        """Wait until `ready()`, which depends on other ranks. Raises as `meet` does."""
        warned: set[int] = set()
        while not ready():
            time.sleep(POLL)
            while_waiting()
            self.watch(where)
            if self.alive is not None:
                self.alive.check()
            for rank, silent, beat in self.silent():
                last = beat["at"]
                if silent > self.silence:
                    raise PeerError(
                        f"rank {rank} is silent for {silent:.0f} s, last seen at {last}: it hangs or is gone; run "
                        "again to resume"
                    )
                if silent > self.silence / 10 and rank not in warned and self.first:
                    warned.add(rank)
                    log.warning("rank %d is silent for %.0f s, last seen at %s", rank, silent, last)

    def silent(self) -> Iterator[tuple[int, float, dict[str, Any]]]:
        """Yield every other rank, the seconds since its heartbeat changed, and its last heartbeat.

        The seconds are measured on this rank, because the clocks of nodes differ.
        """
        for rank in range(self.size):
            if rank != self.rank and self.store.check([f"beat/{rank}"]):
                beat, now = self.store.get(f"beat/{rank}"), time.monotonic()
                if self._heard.get(rank, (b"", 0.0))[0] != beat:
                    self._heard[rank] = beat, now
                yield rank, now - self._heard[rank][1], json.loads(beat)

    def pulses(self) -> dict[int, tuple[Pulse, float]]:
        """The last report of each rank, and the seconds since this rank saw it change."""
        heard = [] if self.store is None else self.silent()
        others = {rank: (Pulse.read(beat["pulse"]) or Pulse(), seconds) for rank, seconds, beat in heard}
        return dict(sorted({self.rank: (self.pulse.now(), 0.0), **others}.items()))

    def sum(self, array: np.ndarray) -> np.ndarray:
        """All-reduce by addition, in place. It is exact if each element is nonzero on at most one rank."""
        if self.store is not None:
            with together(self):
                dist.all_reduce(torch.from_numpy(array), op=dist.ReduceOp.SUM, group=self.group)
        return array

    def deal(self, hand: np.ndarray, sizes: Sequence[int], theirs: Sequence[int]) -> np.ndarray:
        """Exchange pieces of flat arrays between all ranks.

        `hand` holds a piece of ``sizes[r]`` numbers for each rank r. Returns the pieces for this rank, one after the
        other; the piece from rank r has ``theirs[r]`` numbers.
        """
        if self.store is None:
            return hand
        taken = torch.empty(sum(theirs), dtype=torch.float64)
        with together(self):
            dist.all_to_all_single(taken, torch.from_numpy(hand), [*theirs], [*sizes], group=self.group)
        return taken.numpy()

    def log(self, metrics: Mapping[str, int | float]) -> None:
        """Give metrics to the loggers, on rank 0. A logger that fails is left out from then on."""
        if self.first:
            step, left = self._next("log"), []
            for logger in self.loggers:
                aside = files.Aside(f"the log of {type(logger).__name__}", Exception)
                with aside.trying():
                    logger.log_metrics(metrics=dict(metrics), step=step)
                left += [logger] * (not aside.failed)
            self.loggers = left

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, as JSON."""
        return [value] if self.store is None else [json.loads(text) for text in self._texts(json.dumps(value).encode())]

    def gather_arrays(self, arrays: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """The arrays of all ranks by their names, in their order, as numbers in the format of safetensors."""
        if self.store is None:
            return [dict(arrays)]
        names = self.gather([*arrays])  # safetensors has an order of its own
        # safetensors writes memory as it lies, so an array in another order would come back mixed up
        texts = self._texts(save({str(n): np.asarray(array, order="C") for n, array in enumerate(arrays.values())}))
        return [
            {name: found[str(n)] for n, name in enumerate(its)}
            for its, found in zip(names, map(load, texts), strict=True)
        ]

    def _texts(self, mine: bytes) -> list[bytes]:
        """The bytes of all ranks. They travel as arrays, padded to the longest."""
        with together(self):
            lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
            dist.all_gather(lengths, torch.tensor([len(mine)]), group=self.group)
            longest = max(int(length) for length in lengths)
            texts = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
            padded = torch.frombuffer(bytearray(mine.ljust(longest)), dtype=torch.uint8)
            dist.all_gather(texts, padded, group=self.group)
        return [text[: int(length)].numpy().tobytes() for text, length in zip(texts, lengths, strict=True)]

    def share(self, make: Callable[[], Any]) -> Any:
        """The result of `make` on rank 0, as JSON. It goes through the store, so the others notice if rank 0 fails."""
        if self.store is None:
            return make()
        key = f"share/{self._next('share')}"
        if self.first:
            self.store.set(key, json.dumps(make()))
        self.wait(lambda: self.store.check([key]), "waiting for rank 0")
        return json.loads(self.store.get(key))

    def _next(self, name: str) -> int:
        self._counts[name] = self._counts.get(name, 0) + 1
        return self._counts[name]
