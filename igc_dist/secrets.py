"""Masks secrets of configurations and of the environment in all that a run writes: spec, provenance, logs, messages."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from typing import Any

from igc_dist.records import shown

MASK = "***"
_WORDS = r"token|secret|passw(?:or)?d|passphrase|credential|api_?key|(?<![a-z])key(?![a-z])"
_NAME = re.compile(_WORDS, re.IGNORECASE)
_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@'\"]+@", re.IGNORECASE)
_PAIR = re.compile(
    rf"([\w.+~/-]*(?:{_WORDS})[\w-]*(?:\s*=|['\"]\s*:)\s*)(?!-?[\d.]+\b|None\b|null\b)('[^']*'|\"[^\"]*\"|[^\s,'\"}}\])]+)",
    re.IGNORECASE,
)
SHORTEST = 8
"""The shortest environment variable that is searched for in texts: shorter ones would mask ordinary words."""


def masked(value: Any, secret: bool = False) -> Any:
    """The value with secrets replaced: every text below a key that sounds like a secret, and the user in every URL.

    Numbers are kept, as in `n_tokens`.
    """
    if isinstance(value, Mapping):
        return {key: masked(item, secret or bool(_NAME.search(str(key)))) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item, secret) for item in value]
    if not isinstance(value, str):
        return value
    return MASK if secret and value else _URL.sub(rf"\g<1>{MASK}@", value)


def masked_text(text: str) -> str:
    """A message or an override with secrets replaced: `token=...`, users in URLs, and secrets of the environment."""
    for name, value in os.environ.items():
        if len(value) >= SHORTEST and _NAME.search(name):
            text = text.replace(value, MASK)
    return _URL.sub(rf"\g<1>{MASK}@", _PAIR.sub(rf"\g<1>{MASK}", text))


class Masking(logging.Formatter):
    """A log formatter that masks secrets and control characters, also in tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        return shown(masked_text(super().format(record)))
