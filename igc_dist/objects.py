"""The bytes of a store: objects by key, in a folder or in memory, each replaced atomically."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore, MemoryStore

from igc_dist.admission import check_document, check_key
from igc_dist.records import StoreError


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
                if key.endswith("zarr.json"):
                    check_document(os.fstat(file.fileno()).st_size, self.path / key)
                return file.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def set(self, key: str, value: bytes) -> None:
        """Write an object; a reader sees the old bytes or the new ones."""
        if self.path is None:
            self.memory[key] = default_buffer_prototype().buffer.from_bytes(value)
            return
        target = os.path.join(self.path, key)
        partial = f"{target}.{os.getpid()}.partial"
        if (folder := os.path.dirname(target)) not in self._folders:
            os.makedirs(folder, exist_ok=True)
            self._folders.add(folder)
        with open(partial, "wb") as file:
            file.write(value)
        os.replace(partial, target)

    def names(self) -> list[str]:
        """All objects, sorted; left-overs of interrupted writes are not objects."""
        if self.path is None:
            return sorted(self.memory)
        return sorted(p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file() and not p.name.endswith(".partial"))

    def drop(self, key: str) -> None:
        """Remove an object."""
        if self.path is None:
            del self.memory[key]
        else:
            (self.path / key).unlink()

    def sweep(self) -> None:
        """Remove left-overs of interrupted writes."""
        if self.path is not None:
            for partial in self.path.rglob("*.partial"):
                partial.unlink(missing_ok=True)


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
