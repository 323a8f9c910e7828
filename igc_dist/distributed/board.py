"""What ranks of one machine tell each other, without a port: a small database in a folder that only one user enters.

It serves the counters and messages of `World`, as the store of a process group does. torch's `FileStore` would do so
too, but it only grows, with each heartbeat of each rank.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

PATIENCE = 60.0
"""Seconds that a rank waits for the others, whose writes take microseconds."""


class Board:
    """Texts by name that all ranks of a run read and write. `run`: the number of the run in this group of ranks."""

    def __init__(self, path: Path, run: int) -> None:
        self._run = run
        with _told():
            # statements commit themselves; a process that is killed between two of them leaves a whole database
            self._file = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
            self._file.execute("PRAGMA synchronous=OFF")  # the board need not outlive the machine
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)  # the change to WAL does not wait for others: SQLite refuses it
                self._file.execute("PRAGMA journal_mode=WAL")
                self._file.execute("CREATE TABLE IF NOT EXISTS board (name TEXT PRIMARY KEY, value)")
            finally:
                os.close(folder)

    def set(self, name: str, value: str) -> None:
        """Write a text."""
        with _told():
            self._file.execute("REPLACE INTO board VALUES (?, ?)", (self._key(name), value))

    def get(self, name: str) -> bytes:
        """A text that is there (see `check`)."""
        with _told():
            ((value,),) = self._file.execute("SELECT value FROM board WHERE name = ?", (self._key(name),))
        return str(value).encode()

    def check(self, names: Sequence[str]) -> bool:
        """Whether all of the names are there."""
        with _told():
            where = "SELECT 1 FROM board WHERE name = ?"
            return all(self._file.execute(where, (self._key(name),)).fetchone() is not None for name in names)

    def add(self, name: str, step: int) -> int:
        """Add to a counter, which begins at 0; returns the new value."""
        key = self._key(name)
        look = "SELECT value FROM board WHERE name = ?"
        with _told():
            if step == 0:  # a look takes no lock
                found = self._file.execute(look, (key,)).fetchone()
                return 0 if found is None else int(found[0])
            with self._file:
                self._file.execute("BEGIN IMMEDIATE")
                more = "INSERT INTO board VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"
                self._file.execute(more, (key, step))
                ((value,),) = self._file.execute(look, (key,))
        return int(value)

    def compare_set(self, name: str, expected: str, value: str) -> None:
        """Write a text if the present one is `expected`; "" stands for none."""
        with _told():
            if expected:
                self._file.execute(
                    "UPDATE board SET value = ? WHERE name = ? AND value = ?", (value, self._key(name), expected)
                )
            else:
                self._file.execute("INSERT OR IGNORE INTO board VALUES (?, ?)", (self._key(name), value))

    def _key(self, name: str) -> str:
        return f"{self._run}/{name}"


@contextmanager
def _told() -> Iterator[None]:
    """Errors as those of torch's stores."""
    try:
        yield
    except sqlite3.Error as error:
        raise dist.DistStoreError(f"the board of the ranks: {error}") from error
