"""Names from others cannot control a terminal: what a command prints, logs and complains about has no control
characters but line feeds and tabs."""

from __future__ import annotations

import ast
import logging
import sys
from pathlib import Path

import pytest

from igc_dist import cli
from igc_dist.records import DataError, printable, shown
from igc_dist.secrets import Masking

ESCAPES = "\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202e"
PACKAGE = Path(cli.__file__).parents[1]


def clean(text: str) -> bool:
    return all(char.isprintable() or char in "\n\t" for char in text)


def test_characters_are_written_out() -> None:
    assert printable(ESCAPES) == r"\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202e"
    assert shown(f"a\tb\n{ESCAPES}") == "a\tb\n" + printable(ESCAPES)
    assert printable("Größe 数") == "Größe 数"


def test_what_is_printed_and_complained_about(capsys: pytest.CaptureFixture[str]) -> None:
    cli.screen.say(f"two\nlines {ESCAPES}")
    cli.main.complain(DataError(f"the file has the key '{ESCAPES}'"))
    with pytest.raises(SystemExit):
        cli.main.main(["info", f"no store {ESCAPES}"])
    out, err = capsys.readouterr()
    for text in (out, err):
        assert "owned" in text
        assert clean(text)


def test_what_is_logged() -> None:
    """The message, its arguments and the traceback."""
    try:
        raise ValueError(ESCAPES)
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "of %s", (ESCAPES,), sys.exc_info())
    text = Masking().format(record)
    assert text.count("owned") == 2
    assert clean(text)


def test_commands_print_in_one_place() -> None:
    """No bare print in the wing of the commands but that of `say`."""
    bare = [
        f"{path.name}:{node.lineno}"
        for path in sorted((PACKAGE / "cli").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert [line.split(":")[0] for line in bare] == ["screen.py"], bare
