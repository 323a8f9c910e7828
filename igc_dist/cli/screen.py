"""What commands print: everything goes through `say`, so that no name from others controls the terminal."""

from __future__ import annotations

from typing import Any

from igc_dist.records import shown


def say(text: object = "", file: Any = None) -> None:
    """Print lines, with their control characters written out."""
    print(shown(text), file=file, flush=True)
