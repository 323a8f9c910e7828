"""The bytes of a store: objects by key, in a folder or in memory, each replaced atomically."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore, MemoryStore

from igc_dist.admission import check_document, check_key
from igc_dist.faults import fault
from igc_dist.owner import Owner, machine
from igc_dist.records import StoreError

LOCK = ".lock-"
"""Keys of a lock begin with it: they are no part of a store's content."""

_PARTIAL = re.compile(r"\.([0-9a-f]{12})-(\d+)-\d+\.partial$")

ABANDONED = 600.0
"""Seconds after which a half-written file of another machine is nobody's: no write takes so long, and no two clocks differ so much."""


class Objects:
    """The bytes below zarr: a folder or a dictionary of objects, each replaced atomically."""

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else Path(path)
        self.memory: dict[str, Any] = {}
        self._root = "" if self.path is None else str(self.path)
        self._folders: set[str] = set()  # that are known to be there, without what a dead process left in them
        self.zarr = MemoryStore(self.memory) if self.path is None else LocalStore(self.path)

    def get(self, key: str) -> bytes | None:
        """The bytes of an object, None if there is none. Raises `StoreError` for a key that leads out, and a document that is too large."""
        if self.path is None:
            value = self.memory.get(key)
            return None if value is None else value.to_bytes()
        check_key(key, self.path)
        name = f"{self._root}/{key}"  # a resume reads tens of thousands: a Path, or a buffer, takes as long as the file
        try:
            with open(name, "rb", buffering=0) as file:
                if key.endswith("zarr.json"):
                    check_document(os.fstat(file.fileno()).st_size, name)
                return file.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def set(self, key: str, value: bytes) -> None:
        """Write an object; a reader sees the old bytes or the new ones."""
        if self.path is None:
            self.memory[key] = default_buffer_prototype().buffer.from_bytes(value)
            return
        target = self._target(key)
        with _written(target, value) as partial:
            fault("write")
            os.replace(partial, target)

    def create(self, key: str, value: bytes) -> bool:
        """Write an object that is not there yet: whole or not at all. False if it is there; of many who try at once, one gets True."""
        if self.path is None:
            new = default_buffer_prototype().buffer.from_bytes(value)
            return self.memory.setdefault(key, new) is new
        target = self._target(key)
        with _written(target, value) as partial:
            try:
                os.link(partial, target)  # unlike a rename it refuses to replace, and unlike O_EXCL nobody sees half of it
            except FileExistsError:
                return os.stat(partial).st_nlink == 2  # over NFS, an answer that was lost makes the second try see the first
            except OSError:  # a file system without links
                return _exclusive(target, value)
        return True

    def _target(self, key: str) -> str:
        target = os.path.join(self._root, key)
        if (folder := os.path.dirname(target)) not in self._folders:
            try:
                os.makedirs(folder)
            except FileExistsError:  # of a shard that was not done, as it is written again
                for name in os.listdir(folder):
                    if _PARTIAL.search(name) and _orphaned(partial := Path(folder, name)):
                        partial.unlink(missing_ok=True)
            self._folders.add(folder)
        return target

    def beginning(self, prefix: str) -> list[str]:
        """Keys without a folder that begin with `prefix`, sorted."""
        try:
            names = [*self.memory] if self.path is None else os.listdir(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if name.startswith(prefix) and "/" not in name and not name.endswith(".partial"))

    def names(self, without: Container[str] = ()) -> list[str]:
        """All objects, sorted, but those in the folders `without`; left-overs of interrupted writes and the lock are not objects."""
        if self.path is None:
            return sorted(key for key in self.memory if not any(key[:at] in without for at, c in enumerate(key) if c == "/"))
        return sorted(key for key in self._files(without) if not key.endswith(".partial") and not key.startswith(LOCK))

    def _files(self, without: Container[str]) -> Iterator[str]:
        for folder, inner, names in os.walk(self._root):
            above = "" if folder == self._root else folder[len(self._root) + 1 :].replace(os.sep, "/") + "/"
            inner[:] = [name for name in inner if above + name not in without]
            yield from (above + name for name in names)

    def drop(self, key: str) -> None:
        """Remove an object."""
        if self.path is None:
            del self.memory[key]
        else:
            (self.path / key).unlink()

    def sweep(self, without: Container[str] = ()) -> None:
        """Remove left-overs of interrupted writes, but not what a living process is writing. For the one who holds the lock: files
        without a writer in their names are zarr's own, which only the holder of the lock makes. Those in the folders `without` are
        for whoever writes there again."""
        if self.path is not None:
            for key in self._files(without):
                if key.endswith(".partial") and _orphaned(partial := self.path / key):
                    partial.unlink(missing_ok=True)


@contextmanager
def _written(target: str, value: bytes) -> Iterator[str]:
    """A file beside `target` with these bytes, under a name that says who writes it; gone afterwards."""
    partial = f"{target}.{machine()}-{os.getpid()}-{threading.get_ident()}.partial"
    try:
        with open(partial, "wb") as file:
            file.write(value)
        yield partial
    finally:
        with suppress(OSError):  # a rename has taken it away; and the first error is the one to tell
            os.unlink(partial)


def _exclusive(target: str, value: bytes) -> bool:
    try:
        with open(target, "xb") as file:
            file.write(value)
    except FileExistsError:
        return False
    return True


def _orphaned(partial: Path) -> bool:
    """Whether nobody writes this file any more."""
    named = _PARTIAL.search(partial.name)
    if named is None:
        return True
    writer = Owner("", named[1], int(named[2]))
    try:
        return not writer.lives() if writer.near else time.time() - partial.stat().st_mtime > ABANDONED
    except FileNotFoundError:  # whole by now
        return False


@contextmanager
def explained(path: Any) -> Iterator[None]:
    """Turn the system's refusals into a `StoreError` that says what is safe."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"store {path} cannot be written: {error.strerror or error} (errno {error.errno}). Shards that were committed are safe: "
            "free space or give another store.path, and run again"
        ) from error
