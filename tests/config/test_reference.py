"""The page of all settings has every key, with a meaning, and is the one in docs."""

from __future__ import annotations

from igc_dist.config.reference import MEANINGS, page, settings
from tests.commands import ROOT


def test_every_key_has_a_meaning() -> None:
    """And no meaning is of a key that is gone."""
    assert {key for key, _, _ in settings()} == {*MEANINGS}


def test_every_choice_has_a_meaning() -> None:
    """The comment at the top of its file; groups without settings of their own show those of each choice."""
    rows = [line.split(" | ") for line in page().splitlines() if line.startswith("| `")]
    said = {row[0]: [*map(str.strip, row[1:])] for row in rows}
    every = [path.stem for path in (ROOT / "conf").glob("*/*.yaml")]
    assert len(every) > 100
    assert [name for name in every if not said[f"| `{name}`"][0].strip("| ")] == []
    assert "`baseline.k=8`, `baseline.stratify=false` |" in said["| `resampled`"]
    assert "`reduce.parts=[channels,patches]` |" in said["| `chain`"]


def test_the_page_is_the_one_in_docs() -> None:
    """`python -m igc_dist.config.reference > docs/settings.md`"""
    assert (ROOT / "docs" / "settings.md").read_text() == page()


def test_types_and_defaults_are_those_of_the_schemas() -> None:
    found = {key: (kind, default) for key, kind, default in settings()}
    assert found["plan.n_folds"] == ("integer", 32)
    assert found["plan.disk"] == ("number or null", None)
    assert found["fabric.loggers"] == ("list of text", ["csv"])
    assert found["model.build"] == ("settings", "???")
    assert found["fabric.rates"] == ("group", None)
