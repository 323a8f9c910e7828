"""The path methods that have a file of tests of their own, beside this one: what it says it covers."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any


def named(what: str) -> set[Any]:
    """Everything that the files name under `what`: KINDS of attributors, or PRESETS of methods."""
    files = sorted(Path(__file__).parent.glob("test_*.py"))
    return {one for path in files for one in getattr(importlib.import_module(f"tests.attributors.{path.stem}"), what)}
