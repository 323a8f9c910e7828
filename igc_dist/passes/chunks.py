"""Rows that come in micro-batches are written in chunks of one size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64


@dataclass
class Chunks:
    """Joins pieces of rows into chunks of `size` rows; the last may be shorter. Rows between them are `blank(n)`.

    `write(start, arrays)` is called once per chunk, with the number of its first row and one array per name. Rows end
    at `stop`. A piece that is a whole chunk is passed on without a copy; only one chunk is held.
    """

    write: Callable[[int, dict[str, np.ndarray]], None]
    size: int
    start: int
    stop: int
    blank: Callable[[int], dict[str, np.ndarray]] = lambda n: {}
    """Arrays of n rows that nobody has: for rows that are left out."""
    _chunk: dict[str, np.ndarray] = field(default_factory=dict)
    _filled: int = 0

    def put(self, places: Int64[np.ndarray, " n"], piece: dict[str, np.ndarray]) -> None:
        """Add rows at these places, ascending, after all earlier ones; `blank` rows where others are left out."""
        if places[-1] - places[0] < len(places):  # no gap, as most often
            self.fill(int(places[0]))
            self.add(piece)
            return
        for run in np.split(np.arange(len(places)), np.flatnonzero(np.diff(places) > 1) + 1):
            self.fill(int(places[run[0]]))
            self.add({name: values[run[0] : run[-1] + 1] for name, values in piece.items()})

    def fill(self, stop: int) -> None:
        """Add `blank` rows up to the row `stop`."""
        while (there := self.start + self._filled) < stop:
            self.add(self.blank(min(stop - there, self.size)))

    def add(self, piece: dict[str, np.ndarray]) -> None:
        """Add the next rows: arrays whose first axis is the row."""
        at, n = 0, len(next(iter(piece.values())))
        while at < n:
            room = min(self.size, self.stop - self.start)
            rows = slice(at, at + min(room - self._filled, n - at))
            self._take({name: values[rows] for name, values in piece.items()}, rows.stop - at, room)
            at = rows.stop

    def _take(self, rows: dict[str, np.ndarray], n: int, room: int) -> None:
        """Put n rows into the chunk at hand, which has `room` for this number of rows, and write it if it is full."""
        if n == room:
            chunk = rows
        else:
            if not self._filled:
                self._chunk = {name: np.empty((room, *some.shape[1:]), some.dtype) for name, some in rows.items()}
            chunk = self._chunk
            for name, some in rows.items():
                chunk[name][self._filled : self._filled + n] = some
        self._filled += n
        if self._filled == room:
            self._chunk, self._filled = {}, 0
            self.write(self.start, chunk)
            self.start += room
