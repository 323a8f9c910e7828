"""What checks shapes and types in tests: beartype, of every function that is defined once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beartype import beartype


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its annotations checked at each call.

    One that is defined inside another is left alone: it is defined anew at every call of that other, and beartype takes
    1 ms to read it. `pytest tests/laws/test_pairs.py tests/compat/test_igc_defects.py` takes 77 s, and 96 s with
    beartype.beartype in its place.
    """
    return function if "<locals>" in function.__qualname__ else beartype(function)
