"""Group documents of a store: equal content has equal text, and a seal shows every changed bit."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from igc_dist.secrets import same
from igc_dist.store.admission import deep

_SEAL = rb'\n  "seal": "[0-9a-f]{64}"'
SEAL = re.compile(rb"%b,|,%b(?=\n })|(?<={)%b\n (?=})" % (_SEAL, _SEAL, _SEAL))
"""The line of the seal among the attributes, with the comma that it brings; alone, with what an empty group lacks."""


_ENCODE = json.JSONEncoder(sort_keys=True, allow_nan=False).encode
"""By C. With an indent `json` takes its encoder in Python, which took a fifth of a small run."""


def canonical(document: Mapping[str, Any]) -> bytes:
    """The canonical text of a JSON document: a line for each entry, and for each entry of one that is an object."""
    lines = []
    for key in sorted(document):
        value = document[key]
        if isinstance(value, Mapping) and value:
            inside = ",\n".join(f"  {_ENCODE(name)}: {_ENCODE(value[name])}" for name in sorted(value))
            lines.append(f" {_ENCODE(key)}: {{\n{inside}\n }}")
        else:
            lines.append(f" {_ENCODE(key)}: {_ENCODE(value)}")
    return "{{\n{}\n}}".format(",\n".join(lines)).encode()


def sealed(attributes: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> bytes:
    """A group document whose attribute `seal` is the SHA-256 of the document without it.

    With `metadata` the document is consolidated.
    """
    blank = "0" * 64
    document: dict[str, Any] = {
        "zarr_format": 3, "node_type": "group", "attributes": {**attributes, "seal": blank},
    }  # fmt: skip
    if metadata is not None:
        document["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": dict(metadata)}
    text = canonical(document)
    before, seal, after = _parted(text) or (b"", b"", b"")
    return text.replace(seal, seal.replace(blank.encode(), hashlib.sha256(before + after).hexdigest().encode()), 1)


def sound(text: bytes | None) -> dict[str, Any] | None:
    """A sealed group document, or None if a single bit of it changed."""
    parts = _parted(text or b"")
    if parts is None or hashlib.sha256(parts[0] + parts[2]).hexdigest().encode() not in parts[1]:
        return None
    try:
        document = json.loads(text or b"", parse_constant=_no_number)
        good = isinstance(document["attributes"], dict) and "seal" in document["attributes"] and not deep(document)
    except (ValueError, KeyError, TypeError, RecursionError):  # not JSON, NaN, not a group, or nested too deeply
        return None
    return dict(document) if good else None


def unsealed(text: bytes | None) -> dict[str, Any] | None:
    """The attributes of a sealed group document without the seal, or None if a single bit of it changed."""
    document = sound(text)
    return document and {key: value for key, value in document["attributes"].items() if key != "seal"}


def _parted(text: bytes) -> tuple[bytes, bytes, bytes] | None:
    """What stands before the seal, the seal's line, and what stands after: the text need not be made again, which
    took a fifth of a small run. None if there is not exactly one seal."""
    found = list(SEAL.finditer(text))
    return (text[: found[0].start()], found[0][0], text[found[0].end() :]) if len(found) == 1 else None


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def differences(one: Any, two: Any, prefix: str = "") -> list[str]:
    """Lines "key: in the store -> asked for" for every leaf that differs."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        keys = sorted({*one, *two})
        return [
            line
            for key in keys
            for line in differences(one.get(key), two.get(key), f"{prefix}.{key}" if prefix else str(key))
        ]
    return [] if same(one, two) else [f"{prefix}: {json.dumps(one)} in the store, {json.dumps(two)} asked for"]
