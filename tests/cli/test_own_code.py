"""Somebody's own model and data from the command: which package is allowed, and where it is found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from igc_dist.__main__ import main

MODULE = """
from functools import partial
from tests.ranks import Net as net, Rows

class Data(Rows):
    pass

class Model(net):
    pass
"""
OWN = ("model.build._target_=igc_own_code.Model", "data.build._target_=igc_own_code.Data", "plan.n_folds=4")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module, which is the current one and which Python does not import from."""
    (tmp_path / "igc_own_code.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.delitem(sys.modules, "igc_own_code", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "allowed",
    [("--allow-target", "igc_own_code"), ("--allow-target=igc_own_code.*",), ("--allow-target=igc_own_code.",)],
)
def test_a_module_of_the_current_folder(
    allowed: tuple[str, ...], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the way, and the way works; an installed package is not hidden by a file there."""
    (here / "xarray.py").write_text("raise RuntimeError('not this one')")
    for path, code, word in (
        ((), 2, "current folder is not searched: give its folder with --path DIR"),
        (("--path", "."), 0, "shards"),
    ):
        with pytest.raises(SystemExit) as left:
            main(["plan", *path, *allowed, *OWN])
        out, err = capsys.readouterr()
        assert (left.value.code, word in out + err) == (code, True), err
    assert sys.path[-1] == str(here)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--allow-target", "igc_own_code.py"), ["is a file here", "--allow-target igc_own_code,", "in quotes"]),
        (("--allow-target", "igc_own_code.py", "igc_own_code.txt"), ["igc_own_code.py is a file here"]),
        (("--allow-target", "./igc_own_code"), ["no dotted name", "--allow-target mypkg"]),
        (("--allow-target", "*"), ["no dotted name"]),
        (("--allow-target=",), ["--allow-target needs a package"]),
        (("--path",), ["--path needs the folder"]),
        (("--path", "nowhere"), ["--path nowhere: there is no such folder"]),
        (
            ("--path=.", "--allow-target=igc_own_code", "model.build._target_=igc_own_code.net"),
            ["igc_own_code.net", "is not allowed", "--allow-target tests.ranks"],
        ),
        (("--path=.", "--allow-target=broken", "model.build._target_=broken.net"), ["not found: SyntaxError"]),
    ],
)
def test_what_cannot_be_allowed_or_found(
    arguments: tuple[str, ...], words: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "broken.py").write_text("def net(:")
    with pytest.raises(SystemExit) as left:
        main(["plan", *arguments])
    err = capsys.readouterr().err
    assert left.value.code == 2
    assert [word for word in words if word not in err] == [], err
