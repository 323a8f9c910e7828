"""Signs of life between ranks that no launcher of ours watches, as under srun: a rank that dies or is stopped is told.

A rank cannot tell by itself. Inside gloo, or while the store of the ranks does not answer, no code of Python's runs for
as long as the timeout of the group, half an hour. So one thread sends and looks for signs, and another looks at it.
Both count their own turns: a clock would also run while this process is stopped.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from igc_dist.records import PeerError

EVERY = 1.0
"""Seconds between two signs. To look for one takes 25 us."""

AFTER = 10.0
"""Seconds beyond the lease without a sign after which a rank is gone: its shard is another's by then."""

STUCK = 12
"""Turns without a step of this rank after which it is ended, once a rank that it may wait for is gone."""


class Alive:
    """The signs of life of this rank and of the others. `gone`: which rank gives none any more, for an error.

    `lease`: seconds of silence that are allowed. `steps`: a number that grows while this rank is not blocked.
    """

    def __init__(self, store: Any, rank: int, size: int, lease: float, steps: Callable[[], int]) -> None:
        self.gone = ""
        self._store, self._rank, self._size, self._steps = store, rank, size, steps
        self._patience, self._turns, self._ended = lease + AFTER, 0, threading.Event()
        for run in (self._beat, self._guard):
            threading.Thread(target=run, name=f"igc-dist alive {run.__name__}", daemon=True).start()

    def end(self) -> None:
        """The ranks part: silence is no fault from now on."""
        self._ended.set()

    def check(self) -> None:
        """Raise `PeerError` if a rank is gone: for a rank that waits for others."""
        if self.gone and not self._ended.is_set():
            raise PeerError(f"{self.gone}: run again to resume")

    def _beat(self) -> None:
        heard: dict[int, bytes] = {}
        silent: Counter[int] = Counter()
        while not self._ended.wait(EVERY):
            try:
                self._store.set(f"alive/{self._rank}", str(self._turns))
                for other in {*range(self._size)} - {self._rank}:
                    found = self._store.get(key) if self._store.check([key := f"alive/{other}"]) else b""
                    silent[other] = 0 if found != heard.get(other, b"") or not found else silent[other] + 1
                    heard[other] = found
            except dist.DistError:
                self.gone = "the process that holds the store of the ranks is gone (rank 0, or torchrun's agent)"
                return
            self._turns += 1
            late = [other for other, turns in silent.items() if turns * EVERY > self._patience]
            if late and not self.gone:
                self.gone = f"rank {late[0]} gave no sign of life for {self._patience:.0f} s: it died or was stopped"

    def _guard(self) -> None:
        """End this process if it is stuck for a rank that is gone, or for a store that does not answer."""
        seen, still, steps, stuck = 0, 0, 0, 0
        while not self._ended.wait(EVERY):
            seen, still = self._turns, still + 1 if seen == self._turns else 0
            if still * EVERY > self._patience and not self.gone:
                self.gone = "the process that holds the store of the ranks does not answer: it was stopped"
            now = self._steps()
            steps, stuck = now, stuck + 1 if self.gone and now == steps else 0
            if stuck > STUCK and not self._ended.is_set():
                os.write(2, f"igc-dist (rank {self._rank}): {self.gone}: run again to resume\n".encode())
                os._exit(PeerError("").exit_code)
