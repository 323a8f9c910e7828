"""What goes wrong beside the store does not lose the run; what goes wrong with the store is one line, and 2."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import igc_dist
from igc_dist import store
from igc_dist.records import StoreError
from tests.commands import TINY, environment, until
from tests.ranks import arrays, attribute, ranks, run_ranks

pytestmark = [pytest.mark.fault, pytest.mark.e2e]

PAGE = "report.enabled=true"
SLOW = "+data.build.pause=0.05"


def command_in(cwd: Path, words: Path, *arguments: str) -> None:
    """The command in this process, in a folder. What it prints goes into a file."""
    from igc_dist.__main__ import main

    os.chdir(cwd)
    with words.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    main([*arguments])


def run(folder: Path, *more: str, during: Callable[[], None] | None = None, cwd: Path | None = None) -> tuple[int, str]:
    """The exit code and the words of a run into folder/a.zarr. `during` is called in the middle of pass 2."""
    words, path = folder.with_name("words"), folder / "a.zarr"
    words.unlink(missing_ok=True)
    with ranks(1, command_in, cwd or folder, words, *TINY, f"store.path={path}", *more) as group:
        if during is not None:
            until(lambda: committed(path) or not group.processes[0].is_alive())
            during()
        (end,) = group.ends(60.0)
    return end.code, end.trace.partition("SystemExit")[0] * (end.error != "SystemExit") + words.read_text()


def committed(path: Path) -> bool:
    return any(path.glob("shards/attribute/record/c.*"))


def told(words: str) -> list[str]:
    return [line for line in words.splitlines() if "WARNING" in line]


@contextmanager
def mounted(folder: Path, size: str = "8m") -> Iterator[Callable[[], None]]:
    """A file system in memory at a folder. Yields what makes it read-only."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system needs the rights of root")
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True) and None
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed") / "here"
    folder.mkdir()
    code, words = run(folder)
    assert (code, told(words)) == (0, []), words
    assert [path.name for path in folder.iterdir() if not path.name.startswith("a.zarr")] == []  # no empty folders
    return arrays(igc_dist.open(folder / "a.zarr"))


def test_a_run_whose_folder_is_removed_goes_on(folder: Path, undisturbed: dict[str, bytes]) -> None:
    """The loggers that need it are left out; the account and the page make it again."""
    beside = folder / "a.zarr.run"
    code, words = run(folder, SLOW, PAGE, during=lambda: shutil.rmtree(beside))
    assert code == 0, words
    assert len(told(words)) == 1, words
    assert "the log of CSVLogger cannot be written (No such file or directory): the run goes on without it" in words
    assert {"run.json", "report.html"} <= {path.name for path in beside.iterdir()}
    assert arrays(igc_dist.open(folder / "a.zarr")) == undisturbed


@pytest.mark.slow
def test_metrics_that_vanish_are_begun_again(folder: Path) -> None:
    metrics = folder / "a.zarr.run/logs/csv/metrics.csv"
    code, words = run(folder, SLOW, during=metrics.unlink)
    assert (code, told(words)) == (0, []), words
    assert "shards_done" in metrics.read_text().splitlines()[0]


def test_a_disk_that_is_full_only_beside_the_store(folder: Path, undisturbed: dict[str, bytes]) -> None:
    """Two pages: the log has one, so the rest of what is written there fails; a warning for each."""
    with mounted(folder / "a.zarr.run", "8k"):
        code, words = run(folder, "profile=true", PAGE)
    assert code == 0, words
    lines = told(words)
    assert len(lines) >= 3, words
    assert all("No space left on device" in line or "cannot be written" in line for line in lines)
    assert len({line.split("WARNING")[1] for line in lines}) == len(lines), "a place is told once"
    assert "Traceback" not in words
    assert "Logging error" not in words
    assert arrays(igc_dist.open(folder / "a.zarr")) == undisturbed


def test_a_folder_beside_the_store_that_is_read_only(folder: Path, undisturbed: dict[str, bytes]) -> None:
    with mounted(folder / "a.zarr.run") as fix:
        fix()
        code, words = run(folder, PAGE)
    assert code == 0, words
    for what in ("rank-0.log", "run.json", "the log of CSVLogger", "the thumbnails in", "the page in"):
        assert len([line for line in told(words) if what in line and "Read-only file system" in line]) == 1, words
    assert len(told(words)) == 5
    assert arrays(igc_dist.open(folder / "a.zarr")) == undisturbed


@pytest.mark.parametrize("stream", [1, 2])
@pytest.mark.slow
def test_a_screen_that_is_full(folder: Path, stream: int) -> None:
    """stdout or stderr on a full disk, as of a batch system: the run is done, and its exit code says so."""
    arguments = [*TINY, f"store.path={folder / 'a.zarr'}"]
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen(
            [sys.executable, "-m", "igc_dist", *arguments],
            cwd=folder, env=environment(), text=True, stderr=full if stream == 2 else subprocess.PIPE,
            stdout=full if stream == 1 else subprocess.DEVNULL,
        )  # fmt: skip
        _, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert igc_dist.open(folder / "a.zarr").attrs["status"] == "complete"


def test_an_error_keeps_its_exit_code_where_it_cannot_be_told(folder: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        arguments = [sys.executable, "-m", "igc_dist", "verify", "nowhere"]
        assert subprocess.run(arguments, cwd=folder, env=environment(), stderr=full).returncode == 2


@pytest.mark.parametrize("devices", [1, 2])
def test_a_store_on_a_read_only_file_system(folder: Path, devices: int) -> None:
    """One line before any rank is started, and nothing is left behind."""
    place = folder / "place"
    with mounted(place) as fix:
        fix()
        code, words = run(folder, f"store.path={place / 'deep' / 'b.zarr'}", f"fabric.devices={devices}")
    assert code == 2, words
    assert words == (
        f"igc-dist: store {place}/deep/b.zarr cannot be made: {place} is on a read-only file system. Give another "
        "store.path\n"
    )
    assert [*folder.iterdir()] == [place]


def test_a_current_folder_that_is_read_only(folder: Path) -> None:
    with mounted(folder / "place") as fix:
        fix()
        code, words = run(folder, "store.path=null", cwd=folder / "place")
    assert code == 2, words
    assert words.count("\n") == 1
    assert "the folder of the run, cannot be written (Read-only file system): give another hydra.run.dir" in words


def test_a_store_below_a_file(folder: Path) -> None:
    (folder / "file").touch()
    code, words = run(folder, f"store.path={folder}/file/b.zarr")
    assert code == 2, words
    assert words.count("\n") == 1
    assert f"{folder}/file is no folder. Give another store.path" in words
    assert [*folder.iterdir()] == [folder / "file"]


def as_nobody(path: Path) -> None:
    os.setuid(65534)
    store.check_place(path)


@pytest.mark.skipif(os.getuid() != 0, reason="needs the rights of root to become somebody without them")
def test_a_store_where_this_user_may_not_write(folder: Path) -> None:
    folder.chmod(0o700)
    for path in (folder / "a.zarr", folder):
        (end,) = run_ranks(1, as_nobody, path)
        assert (end.error, end.code) == ("StoreError", 2), end.trace
        assert "this user may not write to " in end.message


def test_a_complete_store_that_is_read_only_is_read(folder: Path) -> None:
    """There is nothing to do, which needs no right to write."""
    place = folder / "place"
    with mounted(place) as fix:
        assert run(folder, f"store.path={place / 'b.zarr'}")[0] == 0
        fix()
        code, words = run(folder, f"store.path={place / 'b.zarr'}")
    assert code == 0, words
    assert "is complete: nothing to do" in words


def test_a_store_that_is_removed_during_the_run(folder: Path) -> None:
    """One line that says so, and no new half of a store."""
    path, gone = folder / "a.zarr", folder / "gone"
    code, words = run(folder, SLOW, during=lambda: path.rename(gone) and None)
    assert code == 2, words
    (line,) = [line for line in words.splitlines() if "INFO" not in line]
    assert line == f"igc-dist: store {path} was removed while a run filled it: run the same command again"
    assert not path.exists()
    shutil.rmtree(gone)
    assert run(folder)[0] == 0


def test_python_is_told_the_same(folder: Path) -> None:
    place = folder / "place"
    with mounted(place) as fix:
        fix()
        with pytest.raises(StoreError, match="Read-only file system"):
            attribute(place / "b.zarr", n=24, n_folds=8)
