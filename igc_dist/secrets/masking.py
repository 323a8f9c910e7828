"""Documents with their secrets masked, specs that can still be compared, and a formatter of logs."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from igc_dist.records import shown
from igc_dist.secrets.known import MASK, OURS, REFERENCE, Values, by_value, is_mixed, known, learn, of_environment, says
from igc_dist.secrets.texts import cleaned, masked_text

TOKEN = 12
"""The shortest mix of letters and digits that passes for a token."""


def masked(value: Any) -> Any:
    """A document with its secrets replaced by `MASK`: texts and long numbers under keys that say secret, and secrets
    inside of all other texts, keys too.

    Numbers of fewer than four digits, truth values and None stay, and so does `${oc.env:NAME}`.
    """
    return _masked(value, 0, known(), lambda text, said: MASK)


def masked_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a run with its secrets masked, such that masked specs can be compared (`same`).

    A token says who asks, not what is computed: it is `MASK`, and the same run with another token goes on. So is
    whatever came from the environment. But a word may decide the numbers, as in ``key="layer3"`` or ``token="cls"``:
    it is `MASK` and the first 16 bits of its SHA-256. Two words look the same once in 65,536 times, and whoever guesses
    at a password learns no more than these bits.
    """
    learn(spec)
    environment = of_environment()

    def marked(text: str, said: int) -> str:
        token = (said == 2 and len(text) >= TOKEN and is_mixed(text)) or by_value(text, environment) != text
        return MASK if token else f"{MASK} ({hashlib.sha256(text.encode(errors='replace')).hexdigest()[:4]})"

    return dict(_masked(spec, 0, known(), marked))


def same(stored: Any, asked: Any) -> bool:
    """Whether two masked specs are of one run.

    Masked values are the same if both have a digest and it is equal, or if one of them has none.
    """
    if isinstance(stored, Mapping) and isinstance(asked, Mapping):
        return stored.keys() == asked.keys() and all(same(stored[key], asked[key]) for key in stored)
    if isinstance(stored, list | tuple) and isinstance(asked, list | tuple):
        return len(stored) == len(asked) and all(map(same, stored, asked))
    if isinstance(stored, str) and isinstance(asked, str) and OURS.fullmatch(stored) and OURS.fullmatch(asked):
        return stored == asked or MASK in (stored, asked)
    return bool(stored == asked)


def _masked(value: Any, said: int, values: Values, mark: Callable[[str, int], str]) -> Any:
    if isinstance(value, Mapping):
        if {*value} == {"shape", "digest"}:  # of a tensor, which is no secret
            return dict(value)
        below = {key: _masked(item, max(said, says(str(key))), values, mark) for key, item in value.items()}
        return {by_value(key, values) if isinstance(key, str) else key: item for key, item in below.items()}
    if isinstance(value, list | tuple):
        return [_masked(item, said, values, mark) for item in value]
    if isinstance(value, str):
        if not said or not value or OURS.fullmatch(value) or REFERENCE.fullmatch(value):
            return cleaned(value, values)
        return mark(value, said)
    long = isinstance(value, int | float) and not isinstance(value, bool) and sum(map(str.isdigit, str(value))) >= 4
    return mark(str(value), said) if said and long else value


class Masking(logging.Formatter):
    """A log formatter that masks secrets and control characters, also in tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        return shown(masked_text(super().format(record)))
