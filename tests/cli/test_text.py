"""Text that comes in and goes out: ``~`` in every path, letters that Hydra's grammar or the terminal does not have."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import igc_dist
from igc_dist import config
from igc_dist.__main__ import main
from igc_dist.model import load_weights
from igc_dist.store import beside
from tests.ranks import Net, Rows

NAMES = ("Größe", "数")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder; the current folder is another one."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_every_path_knows_the_home_folder(home: Path) -> None:
    """Of a store, of what is made of stores, of a page, of weights; in Python and in commands."""
    tree = igc_dist.attribute(Net(), Rows(), n_steps=2, n_folds=2, store="~/a.zarr")
    assert igc_dist.open("~/a.zarr").identical(tree)
    assert beside("~/a.zarr") == home / "a.zarr.run"
    for arguments in (["compact", "~/a.zarr", "~/b.zarr"], ["report", "~/b.zarr", "~/page"]):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 0
    assert (home / "b.zarr").is_dir()
    assert (home / "page" / "report.html").is_file()
    save_file({"weight": torch.ones(1, 1)}, home / "w.safetensors")
    load_weights(layer := nn.Linear(1, 1, bias=False), "~/w.safetensors")
    assert layer.weight.item() == 1
    assert [*Path().iterdir()] == []


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("store.path=~/h.zarr", "HOME/h.zarr"),
        ("store.path='a/~/h.zarr'", "a/~/h.zarr"),
        ("store.path=/data/Größe 1.zarr", "/data/Größe 1.zarr"),
        ("store.path=s3://Größe/1=a.zarr", "s3://Größe/1=a.zarr"),
        ("store.path=~/${name}/é.zarr", "HOME/igc/é.zarr"),
        ("target.names=[Größe,数,b]", ["Größe", "数", "b"]),
        ("+data.build.roots=[~/a,~]", ["HOME/a", "HOME"]),
        ("--config-dir=~/", None),
    ],
)
def test_words_of_the_command_line(argument: str, value: object, home: Path) -> None:
    """They mean what was typed, in Hydra's grammar, and ``~`` what it means in a shell."""
    found = []
    config.compose_and_call(found.append, config.quoted([argument]))
    if value is not None:
        node = found[0]
        for key in argument.strip("+").partition("=")[0].split("."):
            node = node[key]
        assert str(node).replace(str(home), "HOME") == str(value)


@pytest.mark.parametrize("command", [["info"], ["compare", "a.zarr"], ["verify", "--quick"]])
def test_a_terminal_without_the_letters(command: list[str], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its encoding lacks is written out."""
    names = igc_dist.Targets(names=NAMES)
    igc_dist.attribute(Net(), Rows(), n_steps=2, n_folds=2, target=names, store=f"{NAMES[1]}.zarr")
    Path("a.zarr").symlink_to(f"{NAMES[1]}.zarr")
    bare = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", bare)
    with pytest.raises(SystemExit) as left:
        main([*command, f"{NAMES[1]}.zarr"])
    bare.flush()
    said = bare.buffer.getvalue().decode("latin-1")  # type: ignore[attr-defined]
    assert (left.value.code, r"\u6570" in said) == (0, True), said
