"""`igc-dist ask STORE QUESTION`: answers from the states of a store, as a table, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

# wings are loaded when a name in them is first used: a refused question needs no torch
from igc_dist import results, store
from igc_dist.cli.screen import say
from igc_dist.records import ConfigError, near, printable

TOP = 10
"""Rows of an output in a table on the terminal, without --top."""

ALWAYS = ("--outputs", "--top", "--csv", "--json")
"""Flags of all questions."""

Given = Mapping[str, str | None]
Rows = list[dict[str, Any]]


class Said(NamedTuple):
    """An answer: its `rows` for CSV and JSON, what the terminal shows in tables by their titles, lines below them."""

    rows: Rows
    tables: Mapping[str, Rows]
    lines: Sequence[str] = ()


class Question(NamedTuple):
    """A question: what answers it, how many stores it takes, and its flags beside `ALWAYS`."""

    answer: Callable[[Sequence[Any], Given], Said]
    stores: int = 1
    flags: tuple[str, ...] = ("--map", "--level", "--fdr")


def ask(arguments: Sequence[str], given: Given) -> int:
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
        said = question.answer([store.open(path) for path in paths], given)
    _show(said, given)
    return 0


def _show(said: Said, given: Given) -> None:
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


def _drawn(title: str, rows: Rows) -> Table:
    made = Table(title=Text(printable(title)), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    columns = [*rows[0]] if rows else ["nothing"]
    for column in columns:
        numeric = any(isinstance(row[column], int | float) for row in rows)
        made.add_column(Text(printable(column)), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*[Text(_text(row[column])) for column in columns])
    return made


def _text(value: Any) -> str:
    if value is None or value != value:  # NaN
        return ""
    return f"{value:.3g}" if isinstance(value, float) else printable(value)


def _ends(row: Mapping[str, Any], name: str, low: str = "ci_low", high: str = "ci_high") -> str:
    """An interval in one cell."""
    return f"{row[f'{name}{low}']:.2g} to {row[f'{name}{high}']:.2g}"


def _level(given: Given) -> results.Level:
    """The level and the false discovery rate of a command line. Raises `ConfigError`."""
    return results.Level(_number(given, "--level", 0.95), _number(given, "--fdr", 0.05))


def _number(given: Given, flag: str, default: float) -> float:
    text = given.get(flag)
    try:
        return default if text is None else float(text)
    except ValueError:
        raise ConfigError(f"{flag} {text}: give a number") from None


def _top(given: Given) -> int | None:
    """The number of rows of an output; all of them in CSV and JSON, unless --top says otherwise."""
    text = given.get("--top")
    if text is None:
        return None if {"--json", "--csv"} & {*given} else TOP
    if not text.isdecimal() or not int(text):
        raise ConfigError(f"--top {text}: give the number of rows of an output, 1 or more")
    return int(text)


def _list(given: Given, flag: str) -> list[str] | None:
    text = given.get(flag)
    return None if text is None else text.split(",")


def _slices(trees: Sequence[Any], given: Given) -> Said:
    answer = results.between_slices(
        trees[0], _list(given, "--slices"), _list(given, "--outputs"), given.get("--map"), _level(given)
    )
    return _differences(answer, given)


def _differences(answer: Any, given: Given) -> Said:
    """What is shown of an answer about differences."""
    sure, rows = f"{answer.attrs['level']:.0%}", results.features_in(answer, _top(given))
    whole, tables = results.differences_in(answer), {}
    for pair, first, second in zip(*(answer[at].values.tolist() for at in ("pair", "first", "second")), strict=True):
        its = [row for row in whole if row["pair"] == pair]
        scalars = [name for name in ("correlation", "sum") if name in its[0]]
        tables[f"{pair}: correlation and sum of {answer.attrs['map']}"] = [
            {"output": row["output"]}
            | {
                text: cell
                for name in scalars
                for text, cell in ((name, row[name]), (f"{sure} of {name}", _ends(row, f"{name}_")))
            }
            | {"features that differ": f"{row['significant']:,} of {row['features']:,}"}
            for row in its
        ]
        tables[f"{pair}: {answer.attrs['map']} by feature"] = [
            {
                "output": row["output"],
                "feature": _feature(answer, row),
                first: row["first"],
                second: row["second"],
                "difference": row["difference"],
                sure: _ends(row, "difference_"),
                "band": _ends(row, "", "band_low", "band_high"),
                "FDR": f"{_text(row['p_fdr'])}{'*' * row['significant']}",
            }
            for row in rows
            if row["pair"] == pair
        ]
    return Said(
        rows,
        tables,
        [
            *(f"Also different: {line.split(':')[0]}" for line in answer.attrs.get("also", ())),
            f"{answer.attrs['pairing'].capitalize()}.",
            f"{sure}: the interval of one difference; band: of all features of an output at once.",
            f"FDR: p after Benjamini and Hochberg, over the features of an output; * differs, at "
            f"{answer.attrs['fdr']:.0%}.",
        ],
    )


def _feature(answer: Any, row: Mapping[str, Any]) -> str:
    """The name of a feature, with that of its input where there are several."""
    return row["feature"] if len(answer.children) == 1 else f"{row['input']} {row['feature']}"


def _models(trees: Sequence[Any], given: Given) -> Said:
    return _differences(
        results.between_models(trees[0], trees[1], _list(given, "--outputs"), given.get("--map"), _level(given)), given
    )


def _drift(trees: Sequence[Any], given: Given) -> Said:
    return _differences(
        results.between_data(trees[0], trees[1], _list(given, "--outputs"), given.get("--map"), _level(given)), given
    )


def _spurious(trees: Sequence[Any], given: Given) -> Said:
    answer = results.spurious(
        trees[0], _list(given, "--slices"), _list(given, "--outputs"), given.get("--map"), _level(given)
    )
    rows, sure = results.spurious_in(answer, _top(given)), f"{answer.attrs['level']:.0%}"
    shown = [
        {
            "output": row["output"],
            "feature": _feature(answer, row),
            "counts in": row["high"],
            answer.attrs["map"]: row["value_high"],
            "not in": row["low"],
            "there": row["value_low"],
            sure: _ends(row, "value_low_"),
            "": row["kind"],
            "differs by": f"{row['at_least']:.2g} or more",
            "FDR": row["p_fdr"],
        }
        for row in rows
    ]
    if not rows:
        rate = f"{answer.attrs['fdr']:.0%}"
        return Said(
            rows, {}, [f"no feature counts in one slice and not in another, at a false discovery rate of {rate}"]
        )
    return Said(
        rows,
        {f"{answer.attrs['map']} that is there in one slice only": shown},
        [
            f"absent: the {sure} interval of the other slice holds 0; reversed: it has the other sign.",
            f"Ranked by the end of the {sure} interval of the difference nearest to 0.",
        ],
    )


SLICED = ("--slices", "--map", "--level", "--fdr")

QUESTIONS = {
    "slices": Question(_slices, flags=SLICED),
    "models": Question(_models, 2),
    "drift": Question(_drift, 2),
    "spurious": Question(_spurious, flags=SLICED),
}
