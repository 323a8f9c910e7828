"""What commands print: no name from others controls the terminal, and no secret is shown."""

from __future__ import annotations

import io
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from igc_dist import files
from igc_dist.records import shown
from igc_dist.secrets import masked_text


def any_text() -> None:
    """Let the terminal show any text: what its encoding lacks is written out, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: object = "", file: Any = None) -> None:
    """Print lines, with their secrets masked and their control characters written out."""
    print(shown(masked_text(str(text))), file=file, flush=True)


@contextmanager
def on_screen() -> Iterator[None]:
    """Show what a run has already written elsewhere: where stdout is closed or full, this is left out."""
    aside = files.Aside("stdout")
    with aside.trying():
        yield
        sys.stdout.flush()
    if aside.failed:
        _silence(sys.stdout)


def _silence(stream: Any) -> None:
    """Let a stream lead nowhere: Python's exit would fail on what it still holds."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class Discreet:
    """A stream of text whose secrets are masked. All else is as in the stream behind it.

    `needed`: whether an error of the stream is raised; otherwise the stream leads nowhere from then on.
    """

    def __init__(self, stream: Any, needed: bool = True) -> None:
        self._stream, self._needed = stream, needed

    def write(self, text: str) -> int:
        try:
            self._stream.write(masked_text(text))
        except OSError:
            self._fail()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._fail()

    def _fail(self) -> None:
        """For the error at hand."""
        if self._needed:
            raise
        _silence(self._stream)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard() -> None:
    """Mask all that this process prints from now on: lines of a data set too, warnings, and tracebacks as a whole."""
    sys.stdout, sys.stderr = Discreet(sys.stdout), Discreet(sys.stderr, needed=False)  # errors have no other place
    sys.excepthook = _trace
    threading.excepthook = lambda failed: _trace(failed.exc_type, failed.exc_value, failed.exc_traceback)


def _trace(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if not issubclass(kind, SystemExit):  # which ends a thread without a word
        say("".join(traceback.format_exception(kind, error, trace)).rstrip(), file=sys.stderr)
