"""`igc-dist ask`: what it prints, in a table, CSV and JSON, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

import igc_dist
from igc_dist.cli.commands import call
from igc_dist.records import ConfigError
from igc_dist.results import between_slices
from igc_dist.store import guarded
from tests.results.test_slices import run


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("asked") / "a"
    run(n_folds=16, store=path)
    return path


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert call("ask", [str(each) for each in arguments]) == 0
    return capsys.readouterr().out


def test_slices_on_the_command_line(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same numbers in Python, CSV and JSON; the table shows the first rows and marks what differs."""
    found = between_slices(igc_dist.open(stored), ["north", "south"])
    rows = json.loads(printed(capsys, stored, "slices", "--slices", "north,south", "--json"))
    assert len(rows) == 8
    assert rows[0]["feature"] == "0"
    assert rows[0]["difference"] == found["x/difference"].values[0, 0, 0]
    assert [row["p"] for row in rows if row["output"] == "1"][-1] is None
    assert [row["significant"] for row in rows].count(True) == found["x/significant"].values.sum() == 2
    table = csv.DictReader(io.StringIO(printed(capsys, "slices", stored, "--slices=north,south", "--csv", "--top=1")))
    assert [float(row["p_fdr"]) for row in table] == found["x/p_fdr"].values[0, :, 0].tolist()
    text = printed(capsys, stored, "slices", "--slices", "north,south", "--top", "2", "--outputs", "1")
    assert "south - north: igc by feature" in text
    assert "1 of 4" in text
    assert text.count("*") == 2  # one feature, and the legend
    assert max(map(len, text.split("\n"))) <= 120


def test_questions_that_cannot_be_asked(stored: Path) -> None:
    for arguments, message in (
        (["slice", stored], r"slice is no question \(did you mean 'slices'\?\); there are slices"),
        ([stored], "no question"),
        (["slices"], "takes one store, got none"),
        ([stored, "slices", "--json", "--csv"], "give one of them"),
        ([stored, "slices", "--top", "0"], "1 or more"),
        ([stored, "slices", "--level", "95"], "level=95.0: give a number between 0 and 1"),
        ([stored, "slices", "--fdr", "much"], "--fdr much: give a number"),
        ([stored, "slices", "--slices", "north,nord"], "near are north"),
    ):
        with pytest.raises(ConfigError, match=message):
            call("ask", [str(each) for each in arguments])


@pytest.mark.parametrize(
    ("question", "groups"), [("slices", {"shards"}), ("influence", {"shards", "known", "samples"})]
)
def test_what_is_read_has_to_be_worth_its_memory(
    stored: Path, question: str, groups: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """States and samples too, which other commands do not read."""
    asked: list[Any] = []
    monkeypatch.setattr(guarded.Guarded, "afford", lambda _, wanted: asked.append(wanted))
    call("ask", [str(stored), question])
    assert {group for group in ("shards", "known", "samples") if asked[-1](f"{group}/some")} == groups
    assert asked[-1]("x/igc")
