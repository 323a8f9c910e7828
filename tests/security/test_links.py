"""Nothing is written through a link that others put beside a store, into a run's folder or where a sweep will be."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest
import xarray as xr

from igc_dist import cli, config, distributed, files, job, report, watching
from igc_dist.records import ConfigError, StoreError
from igc_dist.store import objects_at
from tests.commands import ROOT
from tests.report.test_report import store

PACKAGE = ROOT / "igc_dist"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of somebody's, to which links lead, in a folder of its own."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_text("theirs")
    return tmp_path / "theirs" / "file"


def small() -> xr.DataTree:
    """A store with one input: a map of one more input takes half a second to draw."""
    tree = store()
    for group in ("rgb", "table", "age", "convergence"):
        del tree[group]
    return tree


def untouched(victim: Path) -> bool:
    return victim.read_text() == "theirs" and [*victim.parent.iterdir()] == [victim]


def test_files_are_replaced_not_followed(victim: Path, tmp_path: Path) -> None:
    """A link at the place, and at any name that a draft could be guessed to have; hard links too."""
    mine = tmp_path / "mine"
    files.folder(mine)
    for name in ("a", "a.part", ".a.part", f".a.{os.getpid()}.partial", "a.partial"):
        (mine / name).symlink_to(victim)
    files.write(mine / "a", b"new")
    assert (mine / "a").read_bytes() == b"new"
    assert not (mine / "a").is_symlink()
    os.link(victim, mine / "b")
    files.write(mine / "b", b"new")
    assert untouched(victim)
    with pytest.raises(ValueError, match="no"), files.draft(mine / "c"):
        raise ValueError("no")
    assert not [path for path in mine.iterdir() if path.name.endswith("c")]


def test_new_files_are_new(victim: Path, tmp_path: Path) -> None:
    for name, at in (("link", victim), ("dangling", victim.with_name("new"))):
        (tmp_path / name).symlink_to(at)
        with pytest.raises(FileExistsError):
            files.create(str(tmp_path / name), b"new")
    assert untouched(victim)


def test_linked_folders_are_refused(victim: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(victim.parent)
    for act in (
        lambda: files.folder(tmp_path / "link"),
        lambda: files.write(tmp_path / "link" / "a", b""),
        lambda: files.folder(tmp_path, "link"),
        lambda: report.write_report(small(), tmp_path / "link", 2),
        lambda: distributed.loggers(["csv"], tmp_path / "link"),
    ):
        with pytest.raises(ConfigError, match=f"link, and nothing is written through links: give {victim.parent}"):
            act()
    assert untouched(victim)


def test_figures(victim: Path, tmp_path: Path) -> None:
    """A linked folder of figures; links at the names of the pictures and of the page."""
    (tmp_path / "figures").symlink_to(victim.parent)
    with pytest.raises(ConfigError, match="figures is a link"):
        report.write_report(small(), tmp_path, 2)
    (tmp_path / "figures").unlink()
    page = report.write_report(small(), tmp_path, 2)
    drawn = [*(tmp_path / "figures").iterdir()]
    for path in (page, *drawn, tmp_path / "report.html.part"):
        path.unlink(missing_ok=True)
        path.symlink_to(victim)
    report.write_report(small(), tmp_path, 2)
    assert untouched(victim)
    assert {*(tmp_path / "figures").iterdir()} == {*drawn}
    assert not any(path.is_symlink() for path in (page, *drawn))


def test_logs(victim: Path, tmp_path: Path) -> None:
    """A link at the log, a hard link, a device, a linked folder; and at the metrics."""
    logs = tmp_path / "run" / "logs"
    logs.mkdir(parents=True)
    (logs / "rank-0.log").symlink_to(victim)
    os.link(victim, logs / "rank-1.log")
    os.mkfifo(logs / "rank-2.log")
    (logs / "csv").mkdir()
    (logs / "csv" / "metrics.csv").symlink_to(victim.with_name("new"))
    for rank in range(3):
        with pytest.raises((ConfigError, OSError)):
            cli.runs._Log(logs / f"rank-{rank}.log")
    with pytest.raises(ConfigError, match=r"metrics\.csv is a link"):
        distributed.loggers(["csv"], logs)
    (tmp_path / "run" / "more").symlink_to(victim.parent)
    with pytest.raises(ConfigError, match="more is a link"):
        cli.runs._log_to(tmp_path / "run" / "more", 0)
    assert untouched(victim)


def test_accounts_and_caches(victim: Path, tmp_path: Path) -> None:
    """Those that are optional are left out, with a warning; what is no file, or has no end, is not read."""
    for number, name in enumerate(("run.json", ".run.json.partial", f".run.json.{os.getpid()}.partial")):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / name).symlink_to(victim)
        watching.Account(tmp_path / str(number) / "run.json", "a.zarr").close(None)
        job.trial._write(tmp_path / str(number) / name, {})
        assert not (tmp_path / str(number) / "run.json").is_symlink()
    (tmp_path / "link").symlink_to(victim.parent)
    watching.Account(tmp_path / "link" / "run.json", "a.zarr").close(None)
    job.trial._write(tmp_path / "link" / "choices.json", {})
    assert untouched(victim)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        assert watching.Account(path, "a.zarr").before == {}
        assert job.trial._read(path) == {}


def test_stores(victim: Path, tmp_path: Path) -> None:
    """A link at the folder of an array; links at the names of drafts, which are random, and of objects."""
    objects = objects_at(tmp_path / "a.zarr")
    objects.set("zarr.json", b"{}")
    (tmp_path / "a.zarr" / "shards").symlink_to(victim.parent)
    for key in ("shards/zarr.json", "shards/a/b/c"):
        with pytest.raises(StoreError, match="by a link"):
            objects.set(key, b"{}")
    (tmp_path / "a.zarr" / "x").symlink_to(victim)
    assert objects.create("x", b"new") is False
    objects.set("x", b"new")
    assert untouched(victim)


@pytest.mark.parametrize(
    ("place", "more"),
    [
        ("outputs/igc", ()),
        ("outputs/igc/store.zarr", ()),
        ("outputs/sweep", ("-m", "seed=1")),
        ("outputs/sweep/multirun.yaml", ("-m", "seed=1")),
        ("outputs/sweep/here", ("-m", "seed=1", "hydra.sweep.subdir=here")),
        ("outputs/igc/kept", ("hydra.output_subdir=kept",)),
    ],
)
def test_runs_and_sweeps(
    place: str, more: tuple[str, ...], victim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hydra makes folders and writes files before any code of ours; and where a store is if nobody says where."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).symlink_to(victim if place.endswith(".yaml") else victim.parent)
    with pytest.raises(ConfigError, match="is a link, and nothing is written through links"):
        config.compose_and_call(cli.runs.located, more)
    assert untouched(victim)


def test_files_are_written_in_one_place() -> None:
    """No other file of the package opens one to write, but the training of the demos."""
    wrong = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func).split(".")[-1]
            texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            opens = name in ("open", "fdopen") and {*texts} & {"w", "wb", "x", "xb", "a", "ab", "r+", "r+b"}
            if name in ("write_text", "write_bytes", "touch", "savetxt", "to_csv") or opens:
                wrong.add(path.relative_to(PACKAGE).as_posix())
    assert wrong == {"files.py", "demo/train.py", "demo/train_network.py", "demo/train_scene_nets.py"}
