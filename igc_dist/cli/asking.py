"""`igc-dist ask STORE QUESTION`: answers from the states of a store, as a table, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

# wings are loaded when a name in them is first used: a refused question needs no torch
from igc_dist import store
from igc_dist.cli import answers
from igc_dist.cli.screen import say
from igc_dist.records import ConfigError, near, printable

ALWAYS = ("--outputs", "--top", "--csv", "--json")
"""Flags of all questions."""


class Question(NamedTuple):
    """A question: what answers it, how many stores it takes, its flags beside `ALWAYS`, the groups it reads."""

    answer: Callable[[Sequence[Any], answers.Given], answers.Said]
    stores: int = 1
    flags: tuple[str, ...] = ("--map", "--level", "--fdr")
    groups: tuple[str, ...] = ("shards",)


def ask(arguments: Sequence[str], given: answers.Given) -> int:
    """Answer a question of one store, or of two: ``ask STORE slices``, ``ask STORE models OTHER``."""
    place = next((at for at, word in enumerate(arguments) if word in QUESTIONS), None)
    if place is None:
        word = next((word for word in arguments if near(word, list(QUESTIONS))), arguments[-1])
        raise ConfigError(
            f"igc-dist ask STORE QUESTION: {word} is no question{near(word, list(QUESTIONS))}; there are "
            f"{', '.join(QUESTIONS)}"
        )
    if {"--json", "--csv"} <= {*given}:
        raise ConfigError("--json and --csv: give one of them")
    name, paths = arguments[place], [*arguments[:place], *arguments[place + 1 :]]
    question = QUESTIONS[name]
    if len(paths) != question.stores:
        wants = "one store" if question.stores == 1 else f"{question.stores} stores"
        raise ConfigError(f"igc-dist ask {name} takes {wants}, got {', '.join(paths) or 'none'}")
    if other := [flag for flag in given if flag not in (*ALWAYS, *question.flags)]:
        raise ConfigError(f"igc-dist ask {name} has no {other[0]}: it has {', '.join((*question.flags, *ALWAYS))}")
    with store.consistent(" and ".join(paths)):
        said = question.answer([store.results(path, also=question.groups) for path in paths], given)
    _show(said, given)
    return 0


def _show(said: answers.Said, given: answers.Given) -> None:
    rows = said.rows
    if "--json" in given:
        say(json.dumps([{key: _plain(value) for key, value in row.items()} for row in rows], indent=1))
        return
    if "--csv" in given:
        held = io.StringIO()
        table = csv.DictWriter(held, list(rows[0]) if rows else [], lineterminator="\n")
        table.writeheader()
        table.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
        say(held.getvalue().rstrip("\n"))
        return
    for title, shown in said.tables.items():
        Console().print(_drawn(title, shown))
    for line in said.lines:
        say(line)


def _plain(value: Any) -> Any:
    """A value in JSON, which has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: Any) -> Any:
    """A value in a table of a spreadsheet: a text that begins as a formula does gets a quote before it."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@" and len(value) > 1 else value


def _drawn(title: str, rows: answers.Rows) -> Table:
    made = Table(title=Text(printable(title)), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    columns = [*rows[0]] if rows else ["nothing"]
    for column in columns:
        numeric = any(isinstance(row[column], int | float) for row in rows)
        made.add_column(Text(printable(column)), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*[Text(answers.text(row[column])) for column in columns])
    return made


SAMPLES = ("shards", "known", "samples")

SLICED = ("--slices", "--map", "--level", "--fdr")

QUESTIONS = {
    "slices": Question(answers.slices, flags=SLICED),
    "models": Question(answers.models, 2),
    "drift": Question(answers.drift, 2),
    "spurious": Question(answers.spurious, flags=SLICED),
    "strategies": Question(answers.strategies, flags=("--everyone",), groups=SAMPLES),
    "influence": Question(answers.influence, flags=("--feature", "--input"), groups=SAMPLES),
}
