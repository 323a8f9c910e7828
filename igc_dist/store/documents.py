"""Group documents of a store: equal content has equal text, and a seal shows every changed bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical(document: Any) -> bytes:
    """The canonical text of a JSON document."""
    return json.dumps(document, indent=1, sort_keys=True, allow_nan=False).encode()


def sealed(attributes: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> bytes:
    """A group document whose attribute `seal` is the SHA-256 of the document without it.

    With `metadata` the document is consolidated.
    """
    document: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    if metadata is not None:
        document["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": dict(metadata)}
    document["attributes"]["seal"] = hashlib.sha256(canonical(document)).hexdigest()
    return canonical(document)


def unsealed(text: bytes | None) -> dict[str, Any] | None:
    """The attributes of a sealed group document, or None if a single bit of it changed."""
    try:
        document = json.loads(text or b"")
        seal = document["attributes"].pop("seal")
        if hashlib.sha256(canonical(document)).hexdigest() != seal:
            return None
        document["attributes"]["seal"] = seal
        if canonical(document) != text:
            return None
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ):  # not JSON, NaN, not a group, or nested too deeply
        return None
    del document["attributes"]["seal"]
    return document["attributes"]


def differences(one: Any, two: Any, prefix: str = "") -> list[str]:
    """Lines "key: in the store -> asked for" for every leaf that differs."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        keys = sorted({*one, *two})
        return [
            line
            for key in keys
            for line in differences(one.get(key), two.get(key), f"{prefix}.{key}" if prefix else str(key))
        ]
    return [] if one == two else [f"{prefix}: {json.dumps(one)} in the store, {json.dumps(two)} asked for"]
