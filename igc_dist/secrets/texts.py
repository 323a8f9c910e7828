"""Texts with their secrets masked: messages, overrides, tracebacks, labels. All takes a time linear in the text."""

from __future__ import annotations

import re

from igc_dist.secrets.known import MASK, OURS, REFERENCE, WORD, Values, by_value, known, number, says

_RUN = re.compile(r"[^\s'\"<>]+")
_SCHEME = re.compile(r"[A-Za-z][\w+.-]*+://")
_NAMED = re.compile(
    r"(?<![\w.~+-])([~+-]{0,2}[A-Za-z_][\w.-]*+)((?:\\*+['\"])?+\]?+)([ \t]*+(?:=>|={1,3}|:(?!//))[ \t]*+|[ \t]++)"
)
_LINE = re.compile(r"[^\n'\"]+")
_OPENED = re.compile(r"[bBrRuUfF]{0,2}\\*['\"]|[{(\[]")
_BARE = re.compile(r"\S+")
_QUOTE = re.compile(r"[bBrRuUfF]{0,2}(\\*['\"])")
_PRIVATE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_PREFIX = re.compile(
    r"(?<![\w-])(?:(?:hf_|gh[opsu]_|github_pat_|glpat-|sk-|xox[abprs]-|npm_|pypi-)(?=[A-Za-z_-]*+\d)[\w-]{16,}"
    r"|A[KS]IA[0-9A-Z]{16}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
_SCHEMES = {"Bearer": re.compile(""), "bearer": re.compile(r"\S*\d"), "Basic": re.compile(r"(?=[\w+/=-]{8})\S*[\d=]")}
"""Words before the value of a header, and what the value looks like where the word may be one of prose."""


def masked_text(text: str) -> str:
    """A message, an override or a page of text with its secrets replaced by `MASK`."""
    return cleaned(text, known())


def cleaned(text: str, values: Values) -> str:
    """A text without secrets: those of these values, and those that a name or their form gives away."""
    text = by_value(text, values)
    if "PRIVATE KEY" in text:
        text = _PRIVATE.sub(MASK, text)
    if "://" in text:
        text = _RUN.sub(_url, text)
    return _named(_PREFIX.sub(MASK, text))


def _url(found: re.Match[str]) -> str:
    """A run of characters, with what stands between the scheme of a URL and the last @ masked, and with its query."""
    run = found[0]
    scheme = _SCHEME.search(run)
    if scheme is None:
        return run
    at = run.rfind("@")
    user, rest = (MASK, run[at:]) if at >= scheme.end() else ("", run[scheme.end() :])
    path, _, query = rest.partition("?")
    return f"{run[: scheme.end()]}{user}{path}?{MASK}" if query else f"{run[: scheme.end()]}{user}{rest}"


def _named(text: str) -> str:
    """A text with the values after names that say secret masked: ``token=x``, ``{'auth': {...}}``, ``--password x``."""
    spans: list[tuple[int, int]] = []
    done = closed = 0
    for found in _NAMED.finditer(text):
        start = found.end()
        # a value inside of another may reach further, unless that is in brackets
        if start < closed or (start < done and not _OPENED.match(text, start)) or not _is_named(text, found):
            continue
        end, bracket = _end(text, start, found[1])
        if _is_plain(text[start:end]):
            continue
        begin = spans.pop()[0] if found.start() < done else start
        done, closed = max(done, end), end if bracket else closed
        spans.append((begin, done))
    cuts = [0, *(at for span in spans for at in span), len(text)]
    return MASK.join(text[cuts[n] : cuts[n + 1]] for n in range(0, len(cuts), 2))


def _is_named(text: str, found: re.Match[str]) -> bool:
    """Whether a name and a mark in a text come before a secret. Prose has colons too, and code has `key=`."""
    name, closed, mark = found[1].lstrip("~+-"), found[2], found[3]
    said, before = says(name), text[found.start() - 1 : found.start()]
    if not mark.strip():
        scheme = _SCHEMES.get(name)
        value = scheme is not None and scheme.match(text, found.end()) is not None
        return not closed and (value or (said > 0 and found[1].startswith("--")))
    if closed or said == 0:
        return said > 0
    if ":" in mark and before in ("/", "\\"):  # a file
        return False
    if said == 2 or (len(WORD.findall(name)) > 1 and ":" not in mark):
        return True
    line = text[max(0, found.start() - 80) : found.start()].rpartition("\n")[2]
    return (before in ("{", "?", "&") or not line.strip()) and (mark == "=" or ":" in mark)


def _end(text: str, start: int, name: str) -> tuple[int, bool]:
    """Where the value that begins at `start` ends, and whether it is in brackets."""
    opened = _QUOTE.match(text, start)
    if opened is not None:
        at = text.find(opened[1], opened.end())
        while opened[1] in ("'", '"') and at > 0 and text[at - 1] == "\\":
            at = text.find(opened[1], at + 1)
        return (len(text) if at < 0 else at + len(opened[1])), False
    if text[start : start + 1] in ("{", "[", "("):
        depth = 0
        for at in range(start, len(text)):
            depth += (text[at] in "{[(") - (text[at] in "}])")
            if depth == 0:
                return at + 1, True
        return len(text), True
    header = name.lower().rsplit("-")[-1] in ("authorization", "cookie")  # which has blanks
    found = (_LINE if header else _BARE).match(text, start)
    return (start if found is None else found.end()), False


def _is_plain(value: str) -> bool:
    """Whether a value in a text is no secret: nothing, None, a truth value, a short number, or masked."""
    bare = value.strip("'\",;:.)]}")
    few = number(bare) is not None and sum(map(str.isdigit, bare)) < 4
    ours = OURS.fullmatch(bare) or REFERENCE.fullmatch(value.strip("'\",;:.)]"))
    return few or ours is not None or bare.lower() in ("", "none", "null", "true", "false")
