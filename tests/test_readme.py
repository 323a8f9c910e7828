"""What the README and the pages of the site show runs, and what they name is there."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra

from igc_dist import config
from igc_dist.cli import commands as stores
from tests.commands import ROOT
from tests.ranks import run_ranks, values

README = (ROOT / "README.md").read_text()
PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
SKELETONS = "architecture.md"
"""Its blocks are run by `test_docs.py`."""
BLOCKS = [
    (name, language, text)
    for name, page in PAGES.items()
    if name != SKELETONS
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
]
PYTHON = {f"{name}, {number}": text for number, (name, language, text) in enumerate(BLOCKS) if language == "python"}
PYTHON = {place: text for text, place in {text: place for place, text in PYTHON.items()}.items()}  # each once
SHELL = [
    line.split("#")[0].strip()
    for _, language, text in BLOCKS
    if language in ("", "sh", "bash")
    for line in text.replace("\\\n", " ").splitlines()
]
PROSE = re.sub(r"^```.*?^```", "", "\n".join(PAGES.values()), flags=re.DOTALL | re.MULTILINE)
LINKS = re.findall(r"\]\(([^)#\s]+)[^)]*\)", README)
TOP = {path.name for path in ROOT.iterdir()}
OURS = (".py", ".yaml", ".md", ".toml", ".sh", ".txt", ".cfg")


def paths() -> list[str]:
    """Backticked words that look like paths of the repository, and the targets of the README's links; those of the
    site are looked at by `make docs`."""
    words = [*re.findall(r"`([^`\n]+)`", PROSE), *LINKS]
    found = [word for word in words if re.fullmatch(r"\.?[\w.-]+(/[\w.-]+)*/?", word)]
    return sorted(
        {
            word
            for word in found
            if word.split("/")[0] in TOP - {"outputs"} or word.startswith(("igc_dist/", "tests/", "docs/"))
        }
    )


def test_there_is_something_to_test() -> None:
    assert PYTHON
    assert len(paths()) >= 5
    assert [line for line in SHELL if line.startswith("igc-dist")]


def block(folder: Path, text: str) -> None:
    """Run it in this process, which is one of its own."""
    os.chdir(folder)
    exec(text, {"__name__": "__main__"})


@pytest.mark.e2e
@pytest.mark.parametrize(
    "place", [pytest.param(place, marks=pytest.mark.slow if place.startswith("metrics") else ()) for place in PYTHON]
)
def test_python_runs(place: str, tmp_path: Path) -> None:
    """Each block as it stands, in an empty folder."""
    values(run_ranks(1, block, tmp_path, PYTHON[place]))


@pytest.mark.parametrize("path", paths())
def test_a_path_exists(path: str) -> None:
    assert (ROOT / path).exists()


def commands() -> list[str]:
    """Command lines that run or plan, with their overrides."""
    parts = [part.strip() for line in SHELL for part in line.split(";")]
    return [part for part in parts if re.match(r"(igc-dist( |$)|torchrun |srun )", part) and "mypkg" not in part]


@pytest.mark.parametrize(
    "line", [pytest.param(line, marks=pytest.mark.slow if n % 3 else ()) for n, line in enumerate(commands())]
)
def test_a_command_composes(line: str) -> None:
    """Its overrides are settings that exist; the commands on stores are commands."""
    words = shlex.split(line)
    words = words[words.index("igc_dist") + 1 :] if "igc_dist" in words else words[1:]
    if words and words[0] in stores.COMMANDS:
        return
    words[:1] = ["experiment=audit"] if words[:1] == ["audit"] else words[:1]
    overrides = [
        re.sub(r"=([^\[{,]+),.*", r"=\1", word)
        for word in words
        if word not in ("run", "plan", "-m", "[run]", "[overrides]", "...")
    ]
    assert config.folder() == ROOT / "conf"
    assert "seed" in config.leaves()  # whose file registers the schema when it is loaded
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        hydra.compose("config", overrides)


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:^|`)make ([\w-]+)", "\n".join(PAGES.values()), re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_guarantee_names_the_tests_that_hold_it() -> None:
    """Each number of "What you can rely on" links to files of tests; that these exist is tested above."""
    section = PAGES["gpus.md"].split("## What you can rely on")[1].split("\n## ")[0]
    guarantees = re.split(r"^\d+\. ", section, flags=re.MULTILINE)[1:]
    assert len(guarantees) >= 8
    assert [text[:40] for text in guarantees if not re.search(r"`tests/\S+\.py`", text)] == []
