"""Bytes of a fuzzer as choices: what it varies, and what it finds out to matter, are then which file is changed and
how."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, TypeVar

T = TypeVar("T")

HOSTILE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    7,
    255,
    2**31,
    2**63,
    10**12,
    10**40,
    -(10**12),
    0.5,
    1e308,
    "",
    "x",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "a\0b",
    "\ud800",
    "é" * 300,
    "a" * 300,
    "NaN",
    "object",
    "string",
    "float64",
    "uint8",
    "zarr.json",
    "array",
    "group",
    [],
    {},
    [0],
    [-1],
    [10**12],
    [1, 2, 3],
    [[]],
    [None],
    {"name": "bytes"},
    {"a": {}},
    [{"name": "zstd", "configuration": {"level": 10**40}}],
    "complete",
)
"""Values for a leaf of a document."""


class Choices:
    """Reads choices off bytes; of bytes that are spent, the first choice."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def __bool__(self) -> bool:
        return self.at < len(self.data)

    def bytes(self, n: int) -> bytes:
        self.at += n
        return self.data[self.at - n : self.at]

    def below(self, n: int) -> int:
        """A number below n."""
        return int.from_bytes(self.bytes(1 if n <= 256 else 2 if n <= 65536 else 4), "little") % max(n, 1)

    def of(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def value(self) -> Any:
        """A value of JSON."""
        if self.below(4):
            return deepcopy(self.of(HOSTILE))  # what it is put into changes it
        return self.below(2**32) if self.below(2) else self.bytes(self.below(9)).decode("latin-1")


def leaf(choices: Choices, document: Any) -> str:
    """Change, remove or add something somewhere below. Returns what was done."""
    where: list[Any] = []
    above = document
    while True:
        keys = list(above) if isinstance(above, dict) else range(len(above))
        if not keys:
            return "nothing"
        key = choices.of(keys)
        where.append(key)
        if not isinstance(above[key], dict | list) or not above[key] or choices.below(5) == 0:
            break
        above = above[key]
    how = choices.below(8)
    if how == 0:
        del above[key]
    elif how == 1 and isinstance(above, dict):
        above[str(choices.value())] = above[key]
    elif how == 2 and isinstance(above, list):
        above.append(above[key])
    else:
        above[key] = choices.value()
    return f"leaf {'.'.join(map(str, where))}: way {how}"
