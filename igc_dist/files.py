"""Files that are written beside others' files: a draft under a random name, then a rename; never through a link.

What is only useful, as logs and pages, is written by `Aside`.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from igc_dist.records import ConfigError, StoreError

log = logging.getLogger(__name__)

FLAGS = os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
MOST = 1 << 26
"""The largest file that is read as a whole, in bytes."""


def folder(path: str | Path, *names: str) -> Path:
    """Make a folder, if it is missing. Raises `ConfigError` if it is a link, or if one of these names in it is."""
    found = Path(path)
    refuse_links(found, *names)
    found.mkdir(parents=True, exist_ok=True)
    return found


def refuse_links(path: str | Path, *names: str) -> None:
    """Raise `ConfigError` if a path is a link, or one of these names in it: what is written would land elsewhere."""
    for one in (Path(path), *(Path(path, name) for name in names)):
        if one.is_symlink():
            raise ConfigError(f"{one} is a link, and nothing is written through links: give {os.path.realpath(one)}")


@contextmanager
def draft(path: str | Path) -> Iterator[Path]:
    """An empty file beside `path` to be filled; it takes the place of `path` at the end, or goes after an error.

    Its name begins with a random part and ends as that of `path`. A link at `path` is replaced, not followed. Raises
    `ConfigError` if the folder is a link.
    """
    target = Path(path)
    refuse_links(target.parent)
    part = target.with_name(f".{secrets.token_hex(8)}.{target.name}")
    os.close(os.open(part, os.O_WRONLY | os.O_EXCL | FLAGS, 0o666))
    try:
        yield part
        os.replace(part, target)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def write(path: str | Path, value: bytes) -> Path:
    """Replace a file by these bytes, at once. Raises as `draft`, and OSError."""
    with draft(path) as part:
        part.write_bytes(value)
    return Path(path)


def create(path: str, value: bytes) -> None:
    """Write a new file. Raises FileExistsError if there is one, or a link."""
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags | FLAGS, 0o666)) as file:
        file.write(value)


def add_to(path: str, flags: int) -> int:
    """An opener for files that are added to. Raises `ConfigError` for a link, also a hard one, and for a device."""
    refuse_links(path)
    opened = os.open(path, flags | FLAGS | os.O_NONBLOCK, 0o666)
    found = os.fstat(opened)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(opened)
        raise ConfigError(f"{path} has other names, or is no file: remove it")
    return opened


def read(path: str | Path) -> bytes:
    """The bytes of a file. Raises OSError for what is no file, and for one of more than 64 MiB."""
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(opened, "rb") as file:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST:
            raise OSError(f"{path} is no file of at most {MOST >> 20} MiB")
        return file.read(MOST)


def cache() -> Path:
    """The folder of what is remembered on this machine: ``$XDG_CACHE_HOME/igc-dist``, or below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "igc-dist"


def hindrance(path: str | Path) -> str:
    """Why no file or folder can be made at or in a path; "" if it looks possible. Nothing is written to find out."""
    found = Path(path).absolute()
    while not os.path.lexists(found):
        found = found.parent
    if not found.is_dir():
        return f"{found} is no folder"
    if os.access(found, os.W_OK | os.X_OK):
        return ""
    fixed = os.statvfs(found).f_flag & os.ST_RDONLY
    return f"{found} is on a read-only file system" if fixed else f"this user may not write to {found}"


def missing(path: str | Path) -> list[Path]:
    """The folders of a path that are not there, the innermost first."""
    found = Path(path).absolute()
    return [one for one in (found, *found.parents) if not os.path.lexists(one)]


class Aside:
    """What is written beside the results, as logs and pages: if it fails, that is one warning, and the run goes on.

    `what`: its name in the warning. `kinds`: the errors that it may have.
    """

    def __init__(self, what: object, *kinds: type[Exception]) -> None:
        self.what, self.kinds = what, kinds or (OSError, ConfigError, StoreError)
        self.failed = False

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Do what is in the block, as far as it can be done. Only the first failure is told."""
        try:
            yield
        except self.kinds as error:
            first, self.failed = not self.failed, True  # noted first, as the warning may fail in the same way
            if first:
                why = getattr(error, "strerror", None) or str(error) or type(error).__name__
                log.warning("%s cannot be written (%s): the run goes on without it", self.what, why)
