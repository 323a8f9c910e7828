"""Where a store lies, as a user says it: nowhere (in memory), in a folder, or at a URL of an object store; and what lies beside it."""

from __future__ import annotations

import re
from pathlib import Path

from igc_dist.objects import Folder, InMemory, Objects
from igc_dist.records import ConfigError
from igc_dist.remote import SCHEMES, Remote, check_url

_CRUSHED = re.compile(rf"({'|'.join(SCHEMES)}):/[^/]")


def located(path: str | Path) -> str | Path:
    """A URL, checked, or the path of a folder. Raises `ConfigError` for a URL that cannot be used."""
    if "://" in str(path):
        return check_url(str(path))
    if _CRUSHED.match(str(path)):
        raise ConfigError(f"store.path={path}: a URL has two slashes, which pathlib.Path makes one of: give it as a string")
    return Path(path)


def objects_at(path: str | Path | None) -> Objects:
    """The objects of a store: in memory for None. Raises `ConfigError` for a URL that cannot be used."""
    if path is None:
        return InMemory()
    where = located(path)
    return Folder(where) if isinstance(where, Path) else Remote(where)


def name(path: str | Path) -> str:
    """The last part of a path or URL."""
    return str(path).rstrip("/").rpartition("/")[2]


def beside(path: str | Path, folder: Path | None = None) -> Path:
    """The folder for page and logs of a store: its own if it is called store.zarr, else NAME.run next to it; what is stored at a URL
    has them in `folder`, or in ./NAME.run."""
    where = located(path)
    if isinstance(where, str):
        return folder or Path(f"{name(where)}.run")
    return where.parent if where.name == "store.zarr" else where.with_name(f"{where.name}.run")
