"""Rows that come in micro-batches are written in chunks of one size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Chunks:
    """Joins consecutive pieces of rows into chunks of `size` rows; the last may be shorter.

    `write(start, arrays)` is called once per chunk, with the number of its first row and one array per name. Rows end
    at `stop`. A piece that is a whole chunk is passed on without a copy; only one chunk is held.
    """

    write: Callable[[int, dict[str, np.ndarray]], None]
    size: int
    start: int
    stop: int
    _chunk: dict[str, np.ndarray] = field(default_factory=dict)
    _filled: int = 0

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
