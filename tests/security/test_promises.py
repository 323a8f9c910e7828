"""SECURITY.md: each promise of its table names a test that is there, or says that it is none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.commands import ROOT

ROWS = [line.strip("| ").split(" | ") for line in (ROOT / "SECURITY.md").read_text().splitlines() if line[:2] == "| "]
PROMISES = [row for row in ROWS[1:] if not row[0].startswith(("---", "**"))]


def test_there_is_a_table() -> None:
    assert ROWS[0] == ["Promise", "Held by"]
    assert len(PROMISES) > 50
    assert all(len(row) == 2 for row in PROMISES), [row for row in PROMISES if len(row) != 2]


@pytest.mark.parametrize("by", sorted({row[1] for row in PROMISES} - {"not promised"}))
def test_a_promise_is_held(by: str) -> None:
    name, _, test = by.strip("`").partition(".")
    folder, _, file = f"security/{name}".rpartition("/") if "/" not in name else name.rpartition("/")
    path = ROOT / "tests" / ("" if name == "layers" else folder) / f"test_{file}.py"
    assert path.is_file(), by
    assert not test or re.search(rf"^def test_{test}\(", path.read_text(), re.M), by


def test_every_file_of_tests_holds_a_promise() -> None:
    held = {row[1].strip("`").partition(".")[0] for row in PROMISES}
    files = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert not files - held - {"promises"}
