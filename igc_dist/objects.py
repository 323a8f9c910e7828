"""The bytes of a store: objects by key, in a folder or in memory, each replaced atomically."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
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

BEACON = ".beacon"
"""What a run says of itself (`igc_dist.beacon`): no part of the content either."""

_PARTIAL = re.compile(r"\.([0-9a-f]{12})-(\d+)-\d+\.partial$")

ABANDONED = 600.0
"""Seconds after which a half-written file of another machine is nobody's: no write takes so long, and no two clocks differ so much."""


class Objects:
    """The bytes below zarr: a folder or a dictionary of objects, each replaced atomically."""

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else Path(path)
        self.memory: dict[str, Any] = {}
        self._folders: set[str] = set()  # that are known to be there
        self.zarr = MemoryStore(self.memory) if self.path is None else LocalStore(self.path)

    def get(self, key: str) -> bytes | None:
        """The bytes of an object, None if there is none. Raises `StoreError` for a key that leads out, and a document that is too large."""
        if self.path is None:
            value = self.memory.get(key)
            return None if value is None else value.to_bytes()
        check_key(key, self.path)
        try:
            with open(self.path / key, "rb") as file:
                if key.endswith("zarr.json") or key.startswith("."):
                    check_document(os.fstat(file.fileno()).st_size, self.path / key)
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
        target = os.path.join(self.path or "", key)
        if (folder := os.path.dirname(target)) not in self._folders:
            os.makedirs(folder, exist_ok=True)
            self._folders.add(folder)
        return target

    def beginning(self, prefix: str) -> list[str]:
        """Keys without a folder that begin with `prefix`, sorted."""
        try:
            names = [*self.memory] if self.path is None else os.listdir(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if name.startswith(prefix) and "/" not in name and not name.endswith(".partial"))

    def below(self, folder: str) -> list[str]:
        """Objects in a folder and in its folders, in no order: a listing, nothing is read."""
        if self.path is None:
            return [key for key in self.memory if key.startswith(f"{folder}/")]
        found = ((at, name) for at, _, files in os.walk(self.path / folder) for name in files if not name.endswith(".partial"))
        return [os.path.relpath(os.path.join(at, name), self.path) for at, name in found]

    def names(self) -> list[str]:
        """All objects, sorted; left-overs of interrupted writes, the lock and the beacon are not objects."""
        if self.path is None:
            return sorted(self.memory)
        found = (p for p in self.path.rglob("*") if p.is_file() and not p.name.endswith(".partial"))
        return sorted(key for p in found if not (key := p.relative_to(self.path).as_posix()).startswith((LOCK, BEACON)))

    def drop(self, key: str) -> None:
        """Remove an object."""
        if self.path is None:
            del self.memory[key]
        else:
            (self.path / key).unlink()

    def sweep(self) -> None:
        """Remove left-overs of interrupted writes, but not what a living process is writing. For the one who holds the lock: files
        without a writer in their names are zarr's own, which only the holder of the lock makes."""
        if self.path is not None:
            for partial in self.path.rglob("*.partial"):
                if _orphaned(partial):
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
