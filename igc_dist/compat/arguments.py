"""Arguments of the IGC package, converted: numbers of Python or numpy, batch sizes, functions."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from igc_dist.records import ConfigError

Int = int | np.integer
Seed = Int | None


def rows_of(batch_size: Any, points: Int) -> int | None:
    """Rows of a forward pass. The package counts triples (input, baseline, output); each walks `points` rows."""
    sizes = batch_size if isinstance(batch_size, tuple | list) else (batch_size,)
    if any(
        size is not None and (isinstance(size, bool) or not isinstance(size, numbers.Integral) or size < 1)
        for size in sizes
    ):
        raise ConfigError(f"batch_size={batch_size!r}: give None, an integer of at least 1, or a tuple of them")
    return None if batch_size is None else int(np.prod([int(size or 1) for size in sizes[:2]])) * int(points)


def plain(number: Int) -> int:
    """A number of numpy or Python as one of Python."""
    return int(number) if isinstance(number, np.integer) else number


def takes_one(function: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether a function needs one positional argument beside `kwargs`.

    True for a function without a readable signature, such as a ufunc.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty and p.name not in kwargs for p in parameters) == 1
