"""The bytes of a store: objects by key, each replaced atomically.

This file has objects in memory, `folder.py` those in a folder, `remote.py` those of a service.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from igc_dist.records import StoreError
from igc_dist.store.guarded import Guarded, admit, root

S = TypeVar("S")
T = TypeVar("T")

LOCK = ".lock-"
"""Keys of a lock begin with it; they are not part of a store's content."""

BEACON = ".beacon"
"""Key of the status of a run (`igc_dist.store.beacon`); it is not part of the content either."""


class Objects(ABC):
    """The bytes of a store, each object replaced atomically."""

    path: Any
    """The place of the objects, for display; None: in memory."""

    @abstractmethod
    def get(self, key: str, most: int | None = None) -> bytes | None:
        """The bytes of an object, None if there is none.

        Raises `StoreError` for a key that leads out, for what is not a file, and, before it is read, for an object of
        more than `most` bytes: by default what a document or a chunk has at most.
        """

    def pieces(self, key: str) -> tuple[int, Iterable[bytes | memoryview]] | None:
        """The size of an object and its bytes in pieces, None if there is no such object.

        Each piece is valid until the next one is requested.
        """
        value = self.get(key)
        return None if value is None else (len(value), (value,))

    @abstractmethod
    def set(self, key: str, value: bytes) -> None:
        """Write an object; a reader sees the old bytes or the new ones."""

    @abstractmethod
    def create(self, key: str, value: bytes) -> bool:
        """Write a new object, whole or not at all. False if it exists; of simultaneous calls only one gets True."""

    @abstractmethod
    def drop(self, key: str) -> None:
        """Remove an object, if it exists."""

    @abstractmethod
    def keys(self, top: bool = False, without: Container[str] = ()) -> Iterable[str]:
        """Keys of all objects, without left-overs of interrupted writes.

        `top`: only keys without a folder. Keys in the folders `without` may be left out, if that saves a walk.
        """

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Bytes of all objects, by key.

        Raises `StoreError` for what no run writes: keys that lead out, documents that are too large.
        """

    def beginning(self, prefix: str) -> list[str]:
        """Keys without a folder that begin with `prefix`, sorted."""
        return sorted(key for key in self.keys(top=True) if key.startswith(prefix))

    def below(self, folder: str) -> Iterable[str]:
        """Keys of the objects in a folder and its subfolders: a listing, nothing is read."""
        return [key for key in self.keys() if key.startswith(f"{folder}/")]

    def names(self, without: Container[str] = ()) -> list[str]:
        """Sorted keys of objects outside the folders `without`, without left-overs, lock and beacon."""
        found = (key for key in self.keys(without=without) if not key.startswith((LOCK, BEACON)))
        return sorted(
            key for key in found if not any(key[:at] in without for at, letter in enumerate(key) if letter == "/")
        )

    def map(self, do: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
        """The results of `do` for the items, in order; computed in parallel if each object needs a round trip."""
        return map(do, items)

    def sweep(self, without: Container[str] = ()) -> None:  # noqa: B027 - where an object appears as a whole, nothing is left over
        """Remove left-overs of interrupted writes, except those of living processes. For the holder of the lock.

        Left-overs in the folders `without` stay for the next writer there.
        """

    def reader(self) -> Guarded:
        """What zarr may read of these objects, which may come from anybody: they are checked before they are read.

        Raises `StoreError` for what no run writes.
        """
        return admit(self, root(self))

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn an error of the system into a `StoreError` that says what is safe."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"store {self.path} cannot be written: {self._why(error)} (errno {error.errno}). Shards that were "
                "committed are safe: free space or give another store.path, and run again"
            ) from error

    def _why(self, error: OSError) -> str:
        return str(error.strerror or error)


class InMemory(Objects):
    """A dictionary of objects in this process."""

    def __init__(self) -> None:
        self.path = None
        self.memory: dict[str, bytes] = {}

    def get(self, key: str, most: int | None = None) -> bytes | None:
        return self.memory.get(key)

    def set(self, key: str, value: bytes) -> None:
        self.memory[key] = value

    def create(self, key: str, value: bytes) -> bool:
        new = bytes(bytearray(value))  # an object of its own: of simultaneous calls one keeps it
        return self.memory.setdefault(key, new) is new

    def drop(self, key: str) -> None:
        self.memory.pop(key, None)

    def keys(self, top: bool = False, without: Container[str] = ()) -> Iterable[str]:
        return [key for key in self.memory if not top or "/" not in key]

    def sizes(self) -> dict[str, int]:
        return {key: len(value) for key, value in self.memory.items()}
