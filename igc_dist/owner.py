"""Who writes: a process of a machine, and whether it still lives."""

from __future__ import annotations

import hashlib
import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@cache
def machine() -> str:
    """Twelve characters that two processes share only if each can look the other up by its number.

    A host's name is not enough: containers of one image share it, each with numbers of its own, and after a boot they begin anew.
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
    """A process: host name, `machine`, number, and when it began (clock ticks since boot; 0 if not known), since numbers are used again."""

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
        """Whether it is, or was, a process of this machine: then `lives` knows."""
        return self.machine == machine()

    def lives(self) -> bool:
        """Whether a process of this machine is there: not ended, not waiting to be reaped, and not another one of the same number."""
        if self.pid <= 0:
            return False
        if Path("/proc/self/stat").exists():
            began = _began(self.pid)
            return began is not None and self.began in (0, began)
        try:
            os.kill(self.pid, 0)
        except PermissionError:  # somebody else's
            return True
        except (OSError, OverflowError):
            return False
        return True


def _began(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process; None if it is not there or only waits to be reaped."""
    try:
        # after the command's name in parentheses, which may hold anything: state, ..., start time (fields 3 and 22 of proc(5))
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])
