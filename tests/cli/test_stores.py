"""Commands on stores, in this process: their options, and what they refuse in one sentence."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr

import igc_dist
from igc_dist import report
from igc_dist.__main__ import main
from igc_dist.cli.commands import call
from igc_dist.cli.main import complain
from igc_dist.records import ConfigError, IgcError, Stopped
from igc_dist.report import selected, told_apart, write_report
from tests.ranks import Net, Rows

NAMES = ("a", "b", "7", "c")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of four outputs, and one of two; the correlations of the first are in no order."""
    folder = tmp_path_factory.mktemp("stores")
    data = Rows(outputs=4)
    data.y[0, 1:3] = torch.nan
    data.y[1, 1] = torch.nan
    for n, target in ((4, igc_dist.Targets(names=NAMES)), (2, None)):
        rows = data if n == 4 else Rows()
        igc_dist.attribute(Net(outputs=n), rows, n_steps=2, n_folds=4, target=target, store=folder / f"{n}.zarr")
    return folder


def said(code: int, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command says; it ends with `code`, and not by an exception of its own."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    out, err = capsys.readouterr()
    assert left.value.code == code, err
    return " ".join((out + err).split())


def outputs_of(tree: xr.DataTree) -> list[str]:
    return [str(name) for name in tree["output"].values]


def test_outputs_are_chosen_and_sorted(stores: Path) -> None:
    """By names, by positions where they are no names, and by their numbers; all arrays follow."""
    tree = igc_dist.open(stores / "4.zarr")
    assert outputs_of(selected(tree, ["c", "7", "0"])) == ["c", "7", "a"]
    assert outputs_of(selected(tree, sort="n")) == ["a", "c", "7", "b"]
    order = sorted(range(4), key=lambda k: -float(tree["correlation"][k]))
    assert order != [0, 1, 2, 3]
    chosen = selected(tree, sort="correlation")
    assert outputs_of(chosen) == [NAMES[k] for k in order]
    assert (chosen["x/igc"].values == tree["x/igc"].values[order]).all()
    order = sorted(range(4), key=lambda k: float(tree["correlation_se"][k]))
    assert outputs_of(selected(tree, list(NAMES), "se")) == [NAMES[k] for k in order]
    assert selected(tree) is tree
    with pytest.raises(ConfigError, match=r"output '4' is none of the 4 .* names or numbers from 0"):
        selected(tree, ["4"])
    with pytest.raises(ConfigError, match="cannot be sorted by 'size': the store has correlation, n, se"):
        selected(tree, sort="size")


def test_options_of_the_page(stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They reach the page, which says how many outputs of the store it shows."""
    found: list[Any] = []
    written = write_report
    monkeypatch.setattr(report, "write_report", lambda tree, *given: found.extend(given) or tmp_path)
    call("report", [str(stores / "4.zarr"), "--outputs=c,0", "--sort", "n", "--max-outputs", "3", str(tmp_path)])
    assert found[:4] == [tmp_path, 3, ["c", "0"], "n"]
    text = written(igc_dist.open(stores / "2.zarr"), tmp_path, outputs=[1]).read_text()
    assert "1 of 2" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("report", "A", "report.max_outputs=4"),
            "no settings, got report.max_outputs=4: its flags are --max-outputs",
        ),
        (
            ("merge", "A", "B", "seed=1"),
            "no settings, got seed=1: its flags are --overlap; .* folder, give ./seed=1",
        ),
        (("compact", "A", "+store.path=B"), "takes no settings"),
        (("compare", "A", "B", "x=1"), "takes no settings, got x=1: its flags are --reference VALUE, --to"),
        (("verify", "A", "--quik"), r"--quik is not allowed \(did you mean '--quick'\?\): flags are --quick"),
        (("merge", "A", "B", "C", "--overlap=no"), "--overlap=no is not allowed.*: flags are --overlap"),
        (("report", "A", "--sort"), "--sort needs a value"),
        (("report", "A", "--max-outputs", "few"), "--max-outputs few: give the number"),
        (("report", "A", "--max-outputs=0"), "max_outputs is 0; give the number"),
        (("report", "A", "A/zarr.json"), "the page cannot be written to A/zarr.json .*: give another folder"),
        (("report", "A", "--outputs", "2"), "output '2' is none of the 2 of the store"),
        (("compare", "A", "B"), "A has 2 outputs and B has 4; compare stores with the same outputs"),
        (("compare", "A"), "compare takes stores"),
    ],
)
def test_what_commands_refuse(
    arguments: tuple[str, ...],
    words: str,
    stores: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No traceback, and nothing is written for a word that was meant as a setting."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "A").symlink_to(stores / "2.zarr")
    (tmp_path / "B").symlink_to(stores / "4.zarr")
    assert re.search(words, said(2, capsys, *arguments))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["A", "B"]


def test_a_folder_whose_name_looks_like_a_setting(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seed=1").symlink_to(stores / "2.zarr")
    assert "undamaged" in said(0, capsys, "verify", "--quick", "seed=1")
    assert "complete" in said(0, capsys, "compact", "seed=1", "./seed=2")


def test_a_store_against_itself(stores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has a column of its own, and the same bits."""
    text = said(0, capsys, "compare", *[str(stores / "2.zarr")] * 2)
    assert "The specs are the same." in text
    assert "(2)" in text
    assert "yes" in text


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["A", "A", "A"], ["A", "A (2)", "A (3)"]),
        (["s/b=0,seed=1/store.zarr", "s/b=mean,seed=1/store.zarr/"], ["b=0", "b=mean"]),
        (["s/b=0__n_steps=1/store.zarr", "s/b=0__n_steps=2/store.zarr"], ["n_steps=1", "n_steps=2"]),
        (["s/seed=1/store.zarr", "s3://x/store.zarr"], ["s/seed=1", "s3://x"]),
        (["a", "a/b"], ["a", "b"]),
        (["a.zarr", "x/b.zarr"], ["a.zarr", "x/b.zarr"]),
    ],
)
def test_stores_are_told_apart_by_what_differs(paths: list[str], names: list[str]) -> None:
    assert told_apart(paths) == names


@pytest.mark.parametrize(
    ("error", "local", "waits"), [(ConfigError("x"), 1, 1), (ConfigError("x"), 0, 0), (Stopped("x"), 1, 0)]
)
def test_one_rank_of_a_machine_speaks_first(
    error: IgcError, local: int, waits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others wait until their launcher ends them; what all are told, all say at once."""
    slept: list[float] = []
    monkeypatch.setenv("LOCAL_RANK", str(local))
    monkeypatch.setattr(time, "sleep", slept.append)
    assert complain(error) == error.exit_code
    assert len(slept) == waits
