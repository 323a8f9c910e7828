"""What commands print: everything goes through `say`, so that no name from others controls the terminal."""

from __future__ import annotations

import io
import sys
from typing import Any

from igc_dist.records import shown


def any_text() -> None:
    """Let the terminal show any text: what its encoding lacks is written out, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: object = "", file: Any = None) -> None:
    """Print lines, with their control characters written out."""
    print(shown(text), file=file, flush=True)
