"""The place of a store (in memory, in a folder, or at a URL of an object store), and of its page and logs."""

from __future__ import annotations

import os
import re
from pathlib import Path

from igc_dist import files
from igc_dist.records import ConfigError, StoreError, check_asserts
from igc_dist.store.folder import Folder
from igc_dist.store.objects import InMemory, Objects
from igc_dist.store.remote import SCHEMES, Remote, check_url

_CRUSHED = re.compile(rf"({'|'.join(SCHEMES)}):/[^/]")


def located(path: str | Path) -> str | Path:
    """A URL, checked, or the path of a folder, with ``~`` as in a shell.

    Raises `ConfigError` for a URL that cannot be used, and for what is no name.
    """
    if not isinstance(path, str | os.PathLike) or not str(path).strip():
        raise ConfigError(f"store.path={path!r}: give the name of a folder or a URL, or null")
    if "://" in str(path):
        return check_url(str(path))
    if _CRUSHED.match(str(path)):
        raise ConfigError(
            f"store.path={path}: a URL has two slashes, which pathlib.Path makes one of: give it as a string"
        )
    where = Path(os.path.expanduser(path))
    return where if where.name not in ("", "..") else where.resolve()


def check_place(path: str | Path) -> None:
    """Raise `StoreError` if no store can be made in a folder, for what can be known without writing there.

    A store that is there may be complete, and is then only read.
    """
    where = located(path)
    if isinstance(where, Path) and not os.path.isfile(where / "zarr.json") and (why := files.hindrance(where)):
        raise StoreError(f"store {where} cannot be made: {why}. Give another store.path")


def objects_at(path: str | Path | None) -> Objects:
    """The objects of a store: in memory for None. Raises `ConfigError` for a URL or a Python that cannot be used."""
    check_asserts()
    if path is None:
        return InMemory()
    where = located(path)
    return Folder(where) if isinstance(where, Path) else Remote(where)


def name(path: str | Path) -> str:
    """The last part of a path or URL."""
    return str(path).rstrip("/").rpartition("/")[2]


def beside(path: str | Path, folder: Path | None = None) -> Path:
    """The folder for page and logs of a store.

    For a folder named store.zarr it is its parent; for another folder, NAME.run next to it. For a store at a URL it is
    `folder`, or ./NAME.run.
    """
    where = located(path)
    if isinstance(where, str):
        return folder or Path(f"{name(where)}.run")
    return where.parent if where.name == "store.zarr" else where.with_name(f"{where.name}.run")
