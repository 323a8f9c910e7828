"""What checks shapes and types in tests: beartype, of every function that is defined once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import CodeType
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

whole = jaxtyping.jaxtyped
strict = beartype(conf=BeartypeConf(violation_type=TypeError))
"""What is wrong is a TypeError, as jaxtyping's and as Python's own."""


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its annotations checked at each call.

    One that is defined inside another is left alone: it is defined anew at every call of that other, and beartype takes
    1 ms to read it. `pytest tests/laws/test_pairs.py tests/compat/test_igc_defects.py` takes 77 s, and 96 s with
    beartype.beartype in its place.
    """
    return function if "<locals>" in function.__qualname__ else strict(function)


def light(function: Any = None, *, typechecker: Any = None) -> Any:
    """`jaxtyping.jaxtyped`, but without its frame for functions whose annotations have no shapes.

    The frame keeps the sizes of dimensions: it binds the arguments of each call by `inspect`, and checks them twice.
    `__init__` of a dataclass, class methods and properties come here too, from inside of jaxtyping.
    """
    if function is None:
        return lambda found: light(found, typechecker=typechecker)
    if not inspect.isfunction(function):
        return whole(function, typechecker=typechecker)
    if function.__code__ not in SHAPED:  # read once: one inside another is defined at every call of that other
        SHAPED[function.__code__] = shaped(function)
    return whole(function, typechecker=typechecker) if SHAPED[function.__code__] else plain(function)


SHAPED: dict[CodeType, bool] = {}
"""Whether the functions of a piece of code have an annotation with a shape."""


def shaped(function: Callable[..., Any]) -> bool:
    """Whether an annotation has a shape, which stands in quotes, or is the name of one that has."""
    texts = function.__annotations__.values()
    return any("'" in str(text) or hasattr(known(text, function.__globals__), "dim_str") for text in texts)


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """`checked`, where names that are not there yet, or for type checkers only, may be anything, as in jaxtyping."""
    if "<locals>" in function.__qualname__:
        return function
    texts = function.__annotations__
    function.__annotations__ = {name: known(text, function.__globals__) for name, text in texts.items()}
    found = checked(function)
    function.__annotations__ = found.__annotations__ = texts
    return found


def known(annotation: Any, names: dict[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, names)
    except Exception:
        return Any


jaxtyping.jaxtyped = jaxtyping._decorator.jaxtyped = light
