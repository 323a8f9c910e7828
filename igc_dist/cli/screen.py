"""What commands print: no name from others controls the terminal, and no secret is shown."""

from __future__ import annotations

import io
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

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


class Discreet:
    """A stream of text whose secrets are masked. All else is as in the stream behind it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(masked_text(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard() -> None:
    """Mask all that this process prints from now on: lines of a data set too, warnings, and tracebacks as a whole."""
    sys.stdout, sys.stderr = Discreet(sys.stdout), Discreet(sys.stderr)
    sys.excepthook = _trace
    threading.excepthook = lambda failed: _trace(failed.exc_type, failed.exc_value, failed.exc_traceback)


def _trace(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if not issubclass(kind, SystemExit):  # which ends a thread without a word
        say("".join(traceback.format_exception(kind, error, trace)).rstrip(), file=sys.stderr)
