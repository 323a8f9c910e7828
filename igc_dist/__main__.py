"""`python -m igc_dist`: the door. What a shell sees is in `igc_dist.cli`.

It imports next to nothing: what is behind it takes seconds to import, and a signal may come meanwhile.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

STOPPED = 75
"""The exit code of `records.Stopped`, which imports numpy."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and exit with its exit code. Without `argv` this process is the command."""
    with ending_at_signals(restored=argv is not None):
        if sys.argv[1:] == ["rank"] and argv is None:
            end_with_launcher()
        from igc_dist.cli import main as shell

        shell.main(argv)


@contextmanager
def ending_at_signals(restored: bool) -> Iterator[None]:
    """End this process at a signal, until a run has handlers of its own: before that, nothing can be lost.

    `restored`: whether the signals are then handled as before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _end) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items() if restored else ():
            signal.signal(number, handler)


PR_SET_PDEATHSIG = 1
"""Of Linux's `prctl`: the signal that this process gets when the thread that started it ends."""


def end_with_launcher() -> None:
    """End this rank at once if its launcher was killed: the pipe that tells it is not read before the imports."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    pipe = select.poll()
    pipe.register(0, 0)
    if any(event & select.POLLHUP for _, event in pipe.poll(0)):  # it was killed before
        os._exit(STOPPED)


def _end(number: int, frame: Any) -> NoReturn:
    """Without a word of Python's: it may be in the middle of an import."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        os.write(
            2, b"igc-dist: stopped by a signal before the run began or after its end: run the same command again\n"
        )
    os._exit(STOPPED)


if __name__ == "__main__":
    main()
