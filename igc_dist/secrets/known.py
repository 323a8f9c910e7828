"""What is a secret: by the name of its key, and by values that are known."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"
SHORTEST = 6
"""The shortest value that is searched for in texts: shorter ones would mask ordinary words."""

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET = frozenset((
    "auth", "oauth", "authorization", "bearer", "cookie", "credential", "credentials", "creds", "dsn", "jwt",
    "passphrase", "passwd", "password", "passwords", "pwd", "secret", "secrets",
))  # fmt: skip
"""Words that make a secret of every name which has one."""
_JOINED = (
    "token", "secret", "password", "passwd", "passphrase", "apikey", "accesskey", "secretkey", "privatekey",
    "credential", "credentials",
)  # fmt: skip
"""Names without a mark between their words, as `hftoken`, end in one of these."""
_KEYS = frozenset((
    "access", "account", "api", "client", "encryption", "master", "private", "secret", "shared", "signing",
))  # fmt: skip
"""A key with one of these words before it is a secret for sure."""
_LAST = frozenset(("key", "pass", "pat", "sas", "sig", "signature"))
"""Words that say secret at the end of a name, but may be meant otherwise: `image_key`."""
_TEXT_TOKENS = frozenset((
    "bos", "class", "cls", "end", "eos", "first", "image", "last", "mask", "next", "pad", "per", "sep",
    "special", "start", "unk",
))  # fmt: skip
"""A token with one of these words before it is one of a text."""
_ABOUT = frozenset((
    "algorithm", "backend", "class", "count", "counts", "dim", "dims", "dir", "embedding", "embeddings",
    "enabled", "expires", "expiry", "file", "files", "folder", "format", "host", "id", "ids", "index",
    "indices", "len", "length", "level", "mask", "masks", "method", "methods", "mode", "name", "names", "num",
    "path", "paths", "port", "position", "positions", "provider", "required", "size", "sizes", "sock", "socket",
    "ttl", "type", "types", "user", "weight", "weights",
))  # fmt: skip
"""Last words of names which are about a secret, but do not hold it: `token_type`, `SSH_AUTH_SOCK`."""
_ENDS = frozenset(("value", "string", "header", "base"))

OURS = re.compile(r"\*\*\*( \([0-9a-f]{4}\))?")
REFERENCE = re.compile(r"\$\{oc\.env:\w+\}")
_SHELL = frozenset((
    "HOME", "HOST", "HOSTNAME", "LANG", "LOGNAME", "OLDPWD", "PATH", "PWD", "SHELL", "TERM", "TMPDIR", "USER",
))  # fmt: skip
_LAUNCHERS = ("SLURM", "PBS_", "LSB_", "TORCHELASTIC_", "OMP_", "CUDA_")
"""Variables of a shell and of launchers, which hold no secrets whatever they are called."""

_learned: dict[str, None] = {}
MOST = 500
"""The number of learned values that are remembered: the last ones."""

Values = tuple[tuple[str, ...], re.Pattern[str] | None]
"""What is searched for in a text: pieces, the longest first, and a pattern of words that are replaced as a whole."""


@lru_cache(4096)
def says(name: str) -> int:
    """Whether a name says secret: 2 surely, 1 maybe (`key`), 0 not. Dotted names say what their parts say."""
    if "." in name:
        return max(map(says, name.split(".")))
    words = [word.lower() for word in WORD.findall(name)]
    if words[-2:] == ["connection", "string"]:
        return 2
    while words and (words[-1].isdecimal() or words[-1] in _ENDS):
        words.pop()
    pairs = [*pairwise(words)]
    surely = any(one in _KEYS and two == "key" for one, two in pairs)
    if not words or (words[-1] in _ABOUT and not (surely and words[-1] == "id")):
        return 0
    if surely or _SECRET & {*words}:
        return 2
    if words[-1].endswith(_JOINED):
        return 0 if pairs and words[-1] == "token" and pairs[-1][0] in _TEXT_TOKENS else 2
    return int(words[-1] in _LAST)


def is_mixed(value: str) -> bool:
    """Whether a value looks made by a machine: ordinary words do not."""
    letters, digits = any(map(str.isalpha, value)), any(map(str.isdigit, value))
    return (letters and digits and len(value) >= 8) or (len(value) >= 20 and " " not in value)


@lru_cache(256)
def _is_path(value: str) -> bool:
    return value.startswith(("~/", "./", "../")) or (value.startswith("/") and os.path.lexists(value))


def _keep(value: str, said: int) -> bool:
    """Whether a value of a name that says so much is searched for in texts."""
    long = len(value) >= SHORTEST and not REFERENCE.fullmatch(value) and not OURS.match(value)
    return long and not _is_path(value) and (said == 2 or (said == 1 and is_mixed(value)))


def learn(node: Any, said: int = 0) -> None:
    """Remember the values that stand under keys that say secret, wherever they turn up later."""
    if isinstance(node, Mapping):
        for key, item in node.items():
            words = WORD.findall(str(key))
            about = bool(words) and words[-1].lower() in _ABOUT and not isinstance(item, Mapping | list | tuple)
            learn(item, 0 if about else max(said, says(str(key))))
    elif isinstance(node, list | tuple):
        for item in node:
            learn(item, said)
    elif isinstance(node, str | int | float) and not isinstance(node, bool) and _keep(str(node), said):
        _remember(str(node))


def given(name: str, value: Any) -> None:
    """Remember what `${oc.env:name}` gave: somebody kept it out of the command line. Numbers and paths are none."""
    text = str(value)
    plain = text.startswith("/") or text.split("://")[0] in ("s3", "gs", "az", "file") or number(text) is not None
    if not plain and len(text) >= 8 and name not in _SHELL and not name.startswith(_LAUNCHERS) and _keep(text, 2):
        _remember(text)


def _remember(value: str) -> None:
    _learned.pop(value, None)
    _learned[value] = None
    if len(_learned) > MOST:
        del _learned[next(iter(_learned))]


def number(text: str) -> float | None:
    """The number that a text is, if it is one."""
    try:
        return float(text)
    except ValueError:
        return None


def known() -> Values:
    """The values of secrets at this moment: learned ones, and those of the environment whose names say secret."""
    names = ((name, says(name)) for name in os.environ if name not in _SHELL)
    found = {os.environ.get(name, ""): said for name, said in names if said}
    return _sought(frozenset((*_learned, *(value for value, said in found.items() if _keep(value, said)))))


@lru_cache(8)
def _sought(values: frozenset[str]) -> Values:
    words = {v for v in values if v.isdecimal() or (v.isalpha() and len(v) < 12)}
    anywhere = {form for value in values - words for form in _forms(value)}
    alone = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    pattern = re.compile(rf"(?<![A-Za-z0-9])(?:{alone})(?![A-Za-z0-9])") if words else None
    return tuple(sorted(anywhere, key=lambda form: (-len(form), form))), pattern


def _forms(value: str) -> Iterator[str]:
    """A value as libraries print it: escaped, quoted, and each long line of it alone."""
    for form in (value, *(line for line in value.splitlines() if len(line) >= 16)):
        yield from (form, repr(form)[1:-1], json.dumps(form)[1:-1], json.dumps(form, ensure_ascii=False)[1:-1])
        yield from (
            quote(form, "", errors="replace"),
            quote(form, errors="replace"),
            quote_plus(form, errors="replace"),
        )
        yield from (html.escape(form), html.escape(form, False))


def by_value(text: str, values: Values) -> str:
    """A text with these values replaced by `MASK`."""
    anywhere, words = values
    for form in anywhere:
        if form in text:
            text = text.replace(form, MASK)
    return words.sub(MASK, text) if words is not None else text


def of_environment() -> Values:
    """The values of all variables of the environment."""
    values = (value for name, value in os.environ.items() if name not in _SHELL and len(value) >= SHORTEST)
    return _sought(frozenset(value for value in values if not _is_path(value)))


def holds_secret(text: str) -> bool:
    """Whether the value of a secret stands in a text, as in the name of a folder."""
    return by_value(text, known()) != text
