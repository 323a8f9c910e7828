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
_BLANKS = re.compile(r"\s*")
_LAST = re.compile(r"((?:--)?[A-Za-z_][\w.-]*)['\"]?([=:]*)\Z")
_BARE = re.compile(r"\S+")
_QUOTE = re.compile(r"[bBrRuUfF]{0,2}(\\*['\"])")
_PRIVATE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_PREFIX = re.compile(
    r"(?<![\w-])(?:(?:hf_|gh[opsu]_|github_pat_|glpat-|sk-|xox[abprs]-|npm_|pypi-)(?=[A-Za-z_-]*+\d)[\w-]{16,}"
    r"|A[KS]IA[0-9A-Z]{16}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
_BEARER = re.compile(
    r"\b(Bearer[ \t]++|bearer[ \t]++(?=\S*\d)|Basic[ \t]++(?=[\w+/=-]{8})(?=\S*[\d=]))(?!\*\*\*)[^\s'\"]+"
)


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
    return _BEARER.sub(rf"\g<1>{MASK}", _named(_PREFIX.sub(MASK, text)))


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
    parts, done = [], 0
    for found in _NAMED.finditer(text):
        start = found.end()
        if found.start() < done or not _is_named(text, found):
            continue
        end = _end(text, start, found[1])
        while end < len(text) and (inner := _swallowed(text[max(start, end - 80) : end])):
            end = _end(text, _BLANKS.match(text, end).end(), inner)  # type: ignore[union-attr]
        if _is_plain(text[start:end]):
            continue
        parts += [text[done:start], MASK]
        done = end
    return "".join([*parts, text[done:]]) if parts else text


def _is_named(text: str, found: re.Match[str]) -> bool:
    """Whether a name and a mark in a text come before a secret. Prose has colons too, and code has `key=`."""
    name, closed, mark = found[1].lstrip("~+-"), found[2], found[3]
    said, before = says(name), text[found.start() - 1 : found.start()]
    if not mark.strip():
        return said > 0 and not closed and found[1].startswith("--")
    if closed or said == 0:
        return said > 0
    if ":" in mark and before in ("/", "\\"):  # a file
        return False
    if said == 2 or (len(WORD.findall(name)) > 1 and ":" not in mark):
        return True
    line = text[max(0, found.start() - 80) : found.start()].rpartition("\n")[2]
    return (before in ("{", "?", "&") or not line.strip()) and (mark == "=" or ":" in mark)


def _swallowed(value: str) -> str:
    """The name that says secret at the end of a value, or nothing: in ``token:x},options='--password`` it is one."""
    last = _LAST.search(value)
    named = last is not None and bool(last[2] or last[1].startswith("--")) and says(last[1].lstrip("-")) > 0
    return last[1].lstrip("-") if last is not None and named else ""


def _end(text: str, start: int, name: str) -> int:
    """Where the value that begins at `start` ends: a quoted text, a bracket with all inside, or up to a blank."""
    opened = _QUOTE.match(text, start)
    if opened is not None:
        at = text.find(opened[1], opened.end())
        while opened[1] in ("'", '"') and at > 0 and text[at - 1] == "\\":
            at = text.find(opened[1], at + 1)
        return len(text) if at < 0 else at + len(opened[1])
    if text[start : start + 1] in ("{", "[", "("):
        depth = 0
        for at in range(start, len(text)):
            depth += (text[at] in "{[(") - (text[at] in "}])")
            if depth == 0:
                return at + 1
        return len(text)
    if name.lower().rsplit("-")[-1] in ("authorization", "cookie"):  # a header, which has blanks
        found = _LINE.match(text, start)
    else:
        found = _BARE.match(text, start)
    return start if found is None else found.end()


def _is_plain(value: str) -> bool:
    """Whether a value in a text is no secret: nothing, None, a truth value, a short number, or masked."""
    bare = value.strip("'\",;:.)]}")
    few = number(bare) is not None and sum(map(str.isdigit, bare)) < 4
    ours = OURS.fullmatch(bare) or REFERENCE.fullmatch(value.strip("'\",;:.)]"))
    return few or ours is not None or bare.lower() in ("", "none", "null", "true", "false")
