"""The bytes of a store: objects by key, each replaced atomically. Here in memory and in a folder; `remote.py` has those of a service."""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

from zarr.abc.store import Store as ZarrStore
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore, MemoryStore

from igc_dist.admission import Guarded, admit, check_document, check_key, files
from igc_dist.faults import fault
from igc_dist.owner import Owner, machine
from igc_dist.records import StoreError

S = TypeVar("S")
T = TypeVar("T")

LOCK = ".lock-"
"""Keys of a lock begin with it: they are no part of a store's content."""

BEACON = ".beacon"
"""What a run says of itself (`igc_dist.beacon`): no part of the content either."""

PIECE = 1 << 18
"""Bytes that are hashed at a time: the buffer stays in the cache. To read 64 MB as a whole, and then hash them, takes 1.7 times as long."""

_PARTIAL = re.compile(r"\.([0-9a-f]{12})-(\d+)-\d+\.partial$")

ABANDONED = 600.0
"""Seconds after which a half-written file of another machine is nobody's: no write takes so long, and no two clocks differ so much."""


class Objects(ABC):
    """The bytes below zarr, each object replaced atomically."""

    path: Any
    """Where they lie, for people; None: in memory."""
    zarr: ZarrStore

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """The bytes of an object, None if there is none. Raises `StoreError` for a key that leads out, for what is no file, and for a
        document that is too large."""

    def pieces(self, key: str) -> tuple[int, Iterable[bytes | memoryview]] | None:
        """The size of an object, and its bytes in pieces, each of them good until the next is asked for; None if there is none."""
        value = self.get(key)
        return None if value is None else (len(value), (value,))

    @abstractmethod
    def set(self, key: str, value: bytes) -> None:
        """Write an object; a reader sees the old bytes or the new ones."""

    @abstractmethod
    def create(self, key: str, value: bytes) -> bool:
        """Write an object that is not there yet: whole or not at all. False if it is there; of many who try at once, one gets True."""

    @abstractmethod
    def drop(self, key: str) -> None:
        """Remove an object, if it is there."""

    @abstractmethod
    def keys(self, top: bool = False, without: Container[str] = ()) -> Iterable[str]:
        """Keys of all objects, without left-overs of interrupted writes; `top`: of those without a folder. Those in the folders `without`
        may be left out, where that saves a walk through them."""

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Bytes of all objects, by key. Raises `StoreError` for what no run writes: keys that lead out, documents that are too large."""

    def beginning(self, prefix: str) -> list[str]:
        """Keys without a folder that begin with `prefix`, sorted."""
        return sorted(key for key in self.keys(top=True) if key.startswith(prefix))

    def below(self, folder: str) -> Iterable[str]:
        """Keys of the objects in a folder and in its folders: a listing, nothing is read."""
        return [key for key in self.keys() if key.startswith(f"{folder}/")]

    def names(self, without: Container[str] = ()) -> list[str]:
        """Objects that are not in the folders `without`, sorted; left-overs of interrupted writes, lock and beacon are no objects."""
        found = (key for key in self.keys(without=without) if not key.startswith((LOCK, BEACON)))
        return sorted(key for key in found if not any(key[:at] in without for at, letter in enumerate(key) if letter == "/"))

    def map(self, do: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
        """What `do` gives for each item, in their order: several at a time where an object is a round trip away."""
        return map(do, items)

    def sweep(self, without: Container[str] = ()) -> None:  # noqa: B027 - where an object appears as a whole, nothing is left over
        """Remove left-overs of interrupted writes, but not what a living process is writing. For the one who holds the lock. Those in
        the folders `without` are for whoever writes there again."""

    def reader(self) -> ZarrStore:
        """These objects for zarr, from anybody: looked at before they are read. Raises `StoreError` for what no run writes."""
        return Guarded(self.zarr, admit(self.path, self.sizes(), lambda key: self.get(key) or b""))

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn the system's refusals into a `StoreError` that says what is safe."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"store {self.path} cannot be written: {error.strerror or error} (errno {error.errno}). Shards that were committed are "
                "safe: free space or give another store.path, and run again"
            ) from error


class InMemory(Objects):
    """A dictionary of objects, of this process."""

    def __init__(self) -> None:
        self.path = None
        self.memory: dict[str, Any] = {}
        self.zarr = MemoryStore(self.memory)

    def get(self, key: str) -> bytes | None:
        value = self.memory.get(key)
        return None if value is None else value.to_bytes()

    def set(self, key: str, value: bytes) -> None:
        self.memory[key] = default_buffer_prototype().buffer.from_bytes(value)

    def create(self, key: str, value: bytes) -> bool:
        new = default_buffer_prototype().buffer.from_bytes(value)
        return self.memory.setdefault(key, new) is new

    def drop(self, key: str) -> None:
        self.memory.pop(key, None)

    def keys(self, top: bool = False, without: Container[str] = ()) -> Iterable[str]:
        return [key for key in self.memory if not top or "/" not in key]

    def sizes(self) -> dict[str, int]:
        return {key: len(value) for key, value in self.memory.items()}

    def reader(self) -> ZarrStore:
        return self.zarr  # nobody else's


class Folder(Objects):
    """A folder of files."""

    path: Path

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._root = str(self.path)
        self._folders: set[str] = set()  # that are known to be there, without what a dead process left in them
        self.zarr = LocalStore(self.path)

    def get(self, key: str) -> bytes | None:
        if (found := self._opened(key)) is None:
            return None
        with found[0] as file:
            return file.read()

    def pieces(self, key: str) -> tuple[int, Iterable[bytes | memoryview]] | None:
        if (found := self._opened(key)) is None:
            return None
        file, size = found
        if size > PIECE:
            return size, _pieces(file)
        with file:
            text = file.read()
        return len(text), (text,)

    def _opened(self, key: str) -> tuple[FileIO, int] | None:
        """A file and its size. A resume opens tens of thousands: a Path, or a buffer, takes as long as the file."""
        check_key(key, self.path)
        name = f"{self._root}/{key}"
        try:
            file = FileIO(name, opener=_at_once)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        try:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):  # a device may never end
                raise StoreError(f"{name} is no file: the store is damaged or hostile, do not use it")
            if key.endswith("zarr.json") or key.startswith("."):
                check_document(found.st_size, name)
        except BaseException:
            file.close()
            raise
        return file, found.st_size

    def set(self, key: str, value: bytes) -> None:
        target = self._target(key)
        with _written(target, value) as partial:
            fault("write")
            os.replace(partial, target)

    def create(self, key: str, value: bytes) -> bool:
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

    def drop(self, key: str) -> None:
        (self.path / key).unlink(missing_ok=True)

    def keys(self, top: bool = False, without: Container[str] = ()) -> Iterable[str]:
        try:
            found = (entry.name for entry in os.scandir(self.path) if entry.is_file()) if top else self._files(without)
            return [key for key in found if not key.endswith(".partial")]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def below(self, folder: str) -> Iterable[str]:
        return [f"{folder}/{key}" for key in self._files((), f"{self._root}/{folder}") if not key.endswith(".partial")]

    def _files(self, without: Container[str], root: str | None = None) -> Iterator[str]:
        root = root or self._root
        for folder, inner, names in os.walk(root):
            above = "" if folder == root else folder[len(root) + 1 :].replace(os.sep, "/") + "/"
            inner[:] = [name for name in inner if above + name not in without]
            yield from (above + name for name in names)

    def sizes(self) -> dict[str, int]:
        return files(self.path) if self.path.is_dir() else {}

    def sweep(self, without: Container[str] = ()) -> None:
        """Files without a writer in their names are zarr's own, which only the holder of the lock makes."""
        for key in self._files(without):
            if key.endswith(".partial") and _orphaned(partial := self.path / key):
                partial.unlink(missing_ok=True)


def _at_once(name: str, flags: int) -> int:
    """Open a file, or a pipe, whoever does not write to it."""
    return os.open(name, flags | os.O_NONBLOCK)


def _pieces(file: FileIO) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(PIECE))
    with file:
        while size := file.readinto(buffer):
            yield buffer[:size]


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
