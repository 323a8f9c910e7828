"""The owner of a file or lock: a process of a machine, and whether it still lives."""

from __future__ import annotations

import hashlib
import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@cache
def machine() -> str:
    """Twelve characters that two processes share only if each can find the other by its process number.

    A host's name is not enough: containers of one image share it but have their own process numbers, and after a boot
    the numbers begin again.
    """
    parts = [socket.gethostname()]
    for look in (lambda: Path("/proc/sys/kernel/random/boot_id").read_text(), lambda: os.readlink("/proc/self/ns/pid")):
        try:
            parts.append(look())
        except OSError:  # not Linux
            parts.append("")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Owner:
    """A process: host name, `machine`, process number, and start time.

    The start time is in clock ticks since boot, 0 if not known; it is needed because numbers are used again.
    """

    host: str
    machine: str
    pid: int
    began: int = 0

    @classmethod
    def this(cls) -> Owner:
        """This process."""
        return cls(socket.gethostname(), machine(), os.getpid(), _began(os.getpid()) or 0)

    @property
    def near(self) -> bool:
        """Whether it is, or was, a process of this machine, so that `lives` can tell."""
        return self.machine == machine()

    def lives(self) -> bool:
        """Whether this process of this machine lives: not ended, not a zombie, and its number is not reused."""
        if self.pid <= 0:
            return False
        if Path("/proc/self/stat").exists():
            began = _began(self.pid)
            return began is not None and self.began in (0, began)
        try:
            os.kill(self.pid, 0)
        except PermissionError:  # a process of another user
            return True
        except (OSError, OverflowError):
            return False
        return True


def _began(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process; None if there is no such process, or it is a zombie."""
    try:
        # fields after the command's name, which is in parentheses and may hold anything: state, ..., start time (fields
        # 3 and 22 of proc(5))
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])
