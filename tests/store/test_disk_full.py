"""A disk that is really full: a clear refusal, nothing half-written counts, and the run goes on when there is room."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import igc_dist
from igc_dist.records import StoreError
from igc_dist.store import Folder, Store
from tests.ranks import attribute, files

pytestmark = pytest.mark.fault

SETTINGS: dict[str, Any] = {"n": 24, "n_folds": 6, "micro_batch": 4}


def run(path: Path) -> dict[str, bytes]:
    return attribute(path, **SETTINGS)


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of 4 MiB in memory."""
    folder, options = tmp_path / "disk", getattr(request, "param", "size=4m")
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs the rights of root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def leave(disk: Path, pages: int) -> Path:
    """A file that takes the disk but for some pages of 4 KiB; what is stored takes one for each file, small as it
    is."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    free = os.statvfs(disk)
    filler.write_bytes(b"\1" * (free.f_bavail * free.f_frsize - pages * 4096))
    return filler


def refused(path: Path) -> dict[str, bytes] | None:
    """What a run returns; None if it ends as it should on a full disk."""
    try:
        return run(path)
    except StoreError as refusal:
        error = refusal
    assert error.exit_code == 2
    assert "No space left on device (errno 28). Shards that were committed are safe: free space" in str(error)
    return None


def test_every_way_to_fill_a_disk(disk: Path, tmp_path: Path) -> None:
    """In the documents, in both passes, in the results: after each `StoreError` there is more room, and what is done is
    kept."""
    whole = tmp_path / "whole.zarr"
    tree = run(whole)
    path, met, done = disk / "store.zarr", 0, 0
    needed = sum(1 for _ in whole.rglob("*") if _.is_file())
    for _ in range(needed):
        filler = leave(disk, 24)
        if (found := refused(path)) is not None:
            assert found == tree
            break
        met += 1
        filler.unlink()
        assert [*path.rglob("*.partial")] == []
        if (path / "shards/zarr.json").exists():
            half = Store.existing(path)
            assert half.verify() != []
            now = sum(half.is_done(name, n) for name, phase in half.phases.items() for n in range(len(phase)))
            assert now >= done
            done = now
    assert met >= 4, "the disk was too large to be filled"
    assert files(path) == files(whole)
    assert Store.existing(path).verify() == []


@pytest.mark.parametrize("disk", ["size=64m,nr_inodes=30"], indirect=True)
def test_a_disk_without_inodes_says_so(disk: Path) -> None:
    """There is space, but no file can be made: the words of the system alone would mislead."""
    with pytest.raises(StoreError, match=r"No space left on device: no inodes are left, .* no more files") as caught:
        run(disk / "store.zarr")
    assert caught.value.exit_code == 2


def test_a_full_disk_takes_back_what_is_half_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The old bytes stay, and the half of the new ones goes, as it takes room that something else needs."""
    objects = Folder(tmp_path)
    objects.set("a/b", b"old")
    monkeypatch.setenv("IGC_FAULT", "write:0:1:enospc")
    with pytest.raises(OSError, match="No space left") as caught:
        objects.set("a/b", b"new")
    assert caught.value.errno == errno.ENOSPC
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]
    assert objects.get("a/b") == b"old"


def test_why_a_run_failed_is_told_also_when_it_cannot_be_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The note in the root document meets the full disk too: it is the first error that is raised, with the shard."""
    path = tmp_path / "store.zarr"
    monkeypatch.setenv("IGC_FAULT", "write:0:20:enospc")
    with pytest.raises(StoreError, match="No space left on device") as caught:
        run(path)
    assert "shard" in caught.value.__notes__[0]
    with pytest.raises(StoreError, match="running, not complete"):
        igc_dist.open(path)
    monkeypatch.delenv("IGC_FAULT")
    run(path)
    assert Store.existing(path).verify() == []
