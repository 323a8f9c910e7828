"""The types of keywords of Python, checked against the signature of the function that takes them."""

from __future__ import annotations

import os
import typing
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

import numpy as np

from igc_dist.records import ConfigError

ALSO: dict[type, tuple[type, ...]] = {
    int: (np.integer,),
    float: (int, np.integer, np.floating),
    bool: (np.bool_,),
    Path: (os.PathLike,),
}
"""What stands for a type as well."""


def check_kinds(function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for a keyword whose value is of no type that the function names.

    Keywords of type Any, and what is inside of sequences and mappings, are not looked at.
    """
    known = _known(function)
    for name, value in given.items():
        kinds = known.get(name, ())
        also = (other for kind in kinds for other in ALSO.get(kind, ()))
        wrong = isinstance(value, bool) and bool not in kinds  # True is an int to Python
        if kinds and (wrong or not isinstance(value, (*kinds, *also))):
            names = ["None" if kind is NoneType else kind.__name__ for kind in kinds]
            raise ConfigError(f"{name}={value!r} of type {type(value).__name__}: give {' or '.join(names)}")


@cache
def _known(function: Callable[..., Any]) -> dict[str, tuple[type, ...]]:
    """The classes of each parameter; none where it may be anything."""
    return {name: _kinds(hint) for name, hint in typing.get_type_hints(function).items()}


def _kinds(hint: Any) -> tuple[type, ...]:
    union = isinstance(hint, UnionType) or typing.get_origin(hint) is typing.Union
    classes = [typing.get_origin(part) or part for part in (typing.get_args(hint) if union else (hint,))]
    return tuple(classes) if Any not in classes and all(isinstance(each, type) for each in classes) else ()
