"""A store in a folder: each object is a file, written beside its place under the name of its writer, then renamed."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from igc_dist import files
from igc_dist.faults import fault
from igc_dist.records import StoreError
from igc_dist.store.admission import check_key, check_size
from igc_dist.store.objects import Objects
from igc_dist.store.owner import Owner, machine

PIECE = 1 << 18
"""Bytes that are hashed at a time: the buffer stays in the cache. To read 64 MB as a whole and then hash it takes 1.7
times as long."""

GONE = "store {} was removed while a run filled it: run the same command again"

_PARTIAL = re.compile(r"\.([0-9a-f]{12})-(\d+)-\d+\.partial$")

ABANDONED = 600.0
"""Seconds after which a half-written file of another machine is abandoned: no write takes so long, and no two clocks
differ so much."""


class Folder(Objects):
    """A folder of files."""

    path: Path

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._root = str(self.path)
        self._folders: set[str] = set()  # folders known to exist, without left-overs of dead processes
        self._there = False  # whether the folder itself was: it is made once

    def get(self, key: str, most: int | None = None) -> bytes | None:
        if (found := self._opened(key, most)) is None:
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

    def _opened(self, key: str, most: int | None = None) -> tuple[FileIO, int] | None:
        """A file and its size. A resume opens tens of thousands; a Path or a buffer would double the time."""
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
            check_size(found.st_size, key, self._root, most)
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
                # unlike a rename, a link does not replace; unlike with O_EXCL, nobody sees half a file
                os.link(partial, target)
            except FileExistsError:
                # if an answer is lost over NFS, the second try finds the file of the first
                return os.stat(partial).st_nlink == 2
            except OSError:  # a file system without links
                return _exclusive(target, value)
        return True

    def _target(self, key: str) -> str:
        target = os.path.join(self._root, key)
        if (folder := os.path.dirname(target)) not in self._folders:
            within = os.path.relpath(folder, self._root)
            if os.path.realpath(folder) != os.path.normpath(os.path.join(os.path.realpath(self._root), within)):
                raise StoreError(f"{folder} is or was reached by a link: nothing is written through it, remove it")
            if self._there and not os.path.isdir(self._root):
                raise StoreError(GONE.format(self._root))
            try:
                os.makedirs(folder)
            except FileExistsError:  # of an unfinished shard, which is written again
                for name in os.listdir(folder):
                    if _PARTIAL.search(name) and _orphaned(partial := Path(folder, name)):
                        partial.unlink(missing_ok=True)
            self._folders.add(folder)
            self._there = True
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

    def _why(self, error: OSError) -> str:
        """A disk may have space but no inodes, of which each file and folder takes one: the system says the same."""
        why = super()._why(error)
        if error.errno == errno.ENOSPC:
            with suppress(OSError):
                disk = os.statvfs(self.path)
                if disk.f_files and not disk.f_favail:
                    why += ": no inodes are left, the disk can take no more files and folders"
        return why

    def sizes(self) -> dict[str, int]:
        return _sizes(self.path) if self.path.is_dir() else {}

    def sweep(self, without: Container[str] = ()) -> None:
        """A half-written file without a writer in its name is of an earlier version, and only the holder of the lock
        makes some."""
        for key in self._files(without):
            if key.endswith(".partial") and _orphaned(partial := self.path / key):
                partial.unlink(missing_ok=True)


def _sizes(path: Path) -> dict[str, int]:
    """Sizes of all files, by key.

    Raises `StoreError` for links that lead out, for what is not a file, and for documents that are too large.
    """
    sizes, folders, inside, cut = {}, [str(path)], os.path.realpath(path), len(str(path)) + 1
    while folders:
        with os.scandir(folders.pop()) as found:
            for entry in found:
                if entry.is_symlink():
                    real = os.path.realpath(entry.path)
                    # isfile is false for a link to itself, for which other functions raise
                    if not real.startswith(inside + os.sep) or not os.path.isfile(real):
                        raise StoreError(
                            f"{entry.path} is a link that leads out of the store, or to no file: do not use this store"
                        )
                if entry.is_dir():
                    folders.append(entry.path)
                elif entry.is_file():
                    with suppress(FileNotFoundError):  # a write that is complete by now
                        sizes[entry.path[cut:]] = entry.stat().st_size
                else:
                    raise StoreError(f"{entry.path} is neither a file nor a folder: do not use this store")
    for key, size in sizes.items():
        if key.endswith("zarr.json"):
            check_size(size, key, path)
    return sizes


def _at_once(name: str, flags: int) -> int:
    """Open a file without blocking, even if it is a pipe without a writer."""
    return os.open(name, flags | os.O_NONBLOCK)


def _pieces(file: FileIO) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(PIECE))
    with file:
        while size := file.readinto(buffer):
            yield buffer[:size]


@contextmanager
def _written(target: str, value: bytes) -> Iterator[str]:
    """A file beside `target` with these bytes. Its name contains the writer; it is removed afterwards."""
    partial = f"{target}.{machine()}-{os.getpid()}-{secrets.randbits(62)}.partial"
    try:
        files.create(partial, value)
        yield partial
    finally:
        with suppress(OSError):  # a rename has removed it; and only the first error must be raised
            os.unlink(partial)


def _exclusive(target: str, value: bytes) -> bool:
    try:
        files.create(target, value)
    except FileExistsError:
        return False
    return True


def _orphaned(partial: Path) -> bool:
    """Whether no process writes this file any more."""
    named = _PARTIAL.search(partial.name)
    if named is None:
        return True
    writer = Owner("", named[1], int(named[2]))
    try:
        return not writer.lives() if writer.near else time.time() - partial.stat().st_mtime > ABANDONED
    except FileNotFoundError:  # its write is complete by now
        return False
