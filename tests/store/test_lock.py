"""Two runs on one store exclude each other; a dead one hinders nobody; and a half-written file goes when its writer is
dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

import igc_dist
from igc_dist.__main__ import main
from igc_dist.records import Stopped, StoreError
from igc_dist.store import BEACON, LOCK, Lock, Objects, Owner, Store, holder, machine, objects_at
from igc_dist.store.folder import ABANDONED
from igc_dist.store.lock import Holder
from tests.commands import TINY, command, started, until
from tests.ranks import Rows, attribute, files, ranks, run_ranks

RENEW, EXPIRY = 0.05, 0.4
"""In place of 5 and 30 seconds."""

AFAR = Owner("elsewhere", "0" * 12, 4711)


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return objects_at(tmp_path / "store.zarr")


@pytest.fixture
def dead() -> Owner:
    """A process of this machine that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return Owner(Owner.this().host, machine(), process.pid)


def lock(objects: Objects) -> Lock:
    return Lock(objects, renew=RENEW, expiry=EXPIRY)


def left(objects: Objects, owner: Owner, number: int = 1) -> bytes:
    """A lock that its owner did not release."""
    text = Holder(owner, 2, 0.0, "token").text()
    assert objects.create(f"{LOCK}{number:06d}", text)
    return text


def test_create_gives_an_object_to_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On disk, in memory, and on a file system without hard links; the bytes of the first stay, and nothing else is
    left."""
    for at, links in ((tmp_path / "a", True), (None, True), (tmp_path / "b", False)):
        with monkeypatch.context() as patch:
            if not links:
                patch.setattr(
                    os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "Operation not permitted"))
                )
            objects = objects_at(at)
            assert objects.create("one", b"first")
            assert not objects.create("one", b"second")
        assert (objects.get("one"), objects.names()) == (b"first", ["one"])
        assert at is None or [*at.iterdir()] == [at / "one"]


def test_one_at_a_time(objects: Objects) -> None:
    """The second is refused with who, since when and what to do; after the release the store is free and holds nothing
    of a lock."""
    first, second = lock(objects), lock(objects)
    first.take()
    with pytest.raises(
        StoreError, match=rf"in use: process {os.getpid()} on .* \(1 rank\) since 20.* UTC is filling it"
    ) as refused:
        second.take()
    assert refused.value.exit_code == 2
    assert f"wait for it or end it (kill {os.getpid()} on its machine), or give another store.path" in str(
        refused.value
    )
    second.release()  # which is not its own
    assert first.held
    assert objects.names() == []
    first.release()
    assert holder(objects) is None
    second.take()
    second.release()
    assert list(Path(objects.path or "").iterdir()) == []


def test_a_dead_process_of_this_machine_is_no_hindrance(objects: Objects, dead: Owner) -> None:
    """At once, whatever its number of the lock; also if another process has got its number since."""
    left(objects, dead, 3)
    left(objects, replace(Owner.this(), began=1), 7)
    assert holder(objects) is None
    mine, began = lock(objects), time.monotonic()
    mine.take()
    assert time.monotonic() - began < EXPIRY / 2
    assert objects.beginning(LOCK) == [f"{LOCK}000008"]
    mine.release()


def test_a_process_that_waits_to_be_reaped_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    until(lambda: not Owner("", machine(), process.pid).lives(), 20)
    assert process.returncode is None  # nobody has asked yet
    process.wait()
    assert Owner.this().lives()
    assert not Owner("", machine(), -1).lives()


def test_another_machine_is_dead_when_it_stays_silent(objects: Objects) -> None:
    """No clock is compared: one looks on for the expiry; a lock nobody can read is like that of another machine."""
    left(objects, AFAR, 1)
    objects.create(f"{LOCK}000002", b"half a lo")
    mine, began = lock(objects), time.monotonic()
    mine.take()
    assert EXPIRY <= time.monotonic() - began < 20 * EXPIRY
    assert holder(objects) is not None
    mine.release()


def test_another_machine_lives_when_it_renews(objects: Objects) -> None:
    """It is seen at the first renewal, long before the expiry."""
    text, now = left(objects, AFAR), threading.Timer(EXPIRY / 4, lambda: objects.set(f"{LOCK}000001", renewed))
    found = Holder.read(text)
    assert found is not None
    renewed = replace(found, beat=1).text()
    now.start()
    mine = Lock(objects, renew=RENEW, expiry=60.0)
    with pytest.raises(StoreError, match=r"in use: process 4711 on elsewhere \(2 ranks\)"):
        mine.take()
    now.join()
    assert objects.get(f"{LOCK}000001") == renewed


def test_who_waits_for_another_machine_can_be_stopped(objects: Objects) -> None:
    def stop() -> None:
        raise Stopped("stopped")

    left(objects, AFAR)
    with pytest.raises(Stopped):
        Lock(objects, watch=stop, renew=RENEW).take()


def test_the_holder_renews_and_notices_a_take_over(objects: Objects) -> None:
    """While the run computes, the lock changes; a run that slept too long may not commit into the store of another."""
    mine = lock(objects)
    mine.take()
    before = objects.get(f"{LOCK}000001")
    until(lambda: objects.get(f"{LOCK}000001") != before, 20)
    mine.check()
    left(objects, AFAR, 2)
    until(lambda: mine.lost, 20)
    assert not mine.held
    with pytest.raises(StoreError, match="another run has taken it over"):
        mine.check()
    mine.release()
    assert f"{LOCK}000002" in objects.beginning(LOCK)  # not its own to remove


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"owner": 3}', b"\xff", b'{"owner": {"host": 1}}', b"[" * 5000])
def test_a_lock_is_read_as_data(text: bytes) -> None:
    assert Holder.read(text) is None


def test_hostile_words_in_a_lock_are_not_printed() -> None:
    entry = json.loads(Holder(replace(AFAR, host="\x1b[2Jn"), 1, 1e300, "t").text())
    assert "\x1b" not in str(Holder.read(json.dumps(entry).encode()))


# -- races -------------------------------------------------------------------------------------------------------------


def contend(path: Path, rounds: int, dead: Owner, barrier: Path) -> list[bool]:
    """Try to get the lock of each round's store; who gets it holds it until all have tried."""
    me, got = int(os.environ["RANK"]), []
    size = int(os.environ["WORLD_SIZE"])
    for turn in range(rounds):
        objects = objects_at(path / f"{turn}.zarr")
        (barrier / f"{turn}.{me}").touch()
        while len([*barrier.glob(f"{turn}.*")]) < size:  # all begin together
            time.sleep(0)
        mine = Lock(objects)
        try:
            mine.take()
            got.append(True)
        except StoreError:
            got.append(False)
        (barrier / f"done.{turn}.{me}").touch()
        while len([*barrier.glob(f"done.{turn}.*")]) < size:
            time.sleep(0.0005)
        mine.release()
    return got


@pytest.mark.dist
@pytest.mark.parametrize("stale", [False, True])
def test_of_processes_that_try_at_once_one_gets_it(stale: bool, dead: Owner, tmp_path: Path) -> None:
    """Forty times each of a free store, and of one whose holder is dead."""
    (tmp_path / "barrier").mkdir()
    for turn in range(40 if stale else 0):
        left(objects_at(tmp_path / f"{turn}.zarr"), dead, 1 + turn % 3)
    ended = run_ranks(2, contend, tmp_path, 40, dead, tmp_path / "barrier")
    assert [end.code for end in ended] == [0, 0], [end.trace for end in ended]
    assert [sum(got) for got in zip(*(end.value for end in ended), strict=True)] == [1] * 40


def hold(path: Path, rounds: int, inside: Path) -> int:
    """Take and release the lock again and again; leaves it behind as a dead one would, now and then. Whoever is inside
    is alone."""
    objects, held = objects_at(path), 0
    while held < rounds:
        mine = Lock(objects)
        try:
            mine.take()
        except StoreError:
            continue
        os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if another is inside
        held += 1
        os.unlink(inside)
        if held % 3 == 0:  # as if killed: its lock stays, of a process that is not there
            text = json.loads(mine._text)
            text["owner"]["began"] = 1
            mine._ended.set()
            objects.set(mine._key, json.dumps(text).encode())
        else:
            mine.release()
    return held


@pytest.mark.dist
def test_nobody_is_inside_with_another(tmp_path: Path) -> None:
    """Three processes take, release and abandon the lock as fast as they can."""
    ended = run_ranks(3, hold, tmp_path / "store.zarr", 60, tmp_path / "inside")
    assert [end.value for end in ended] == [60] * 3, [end.trace for end in ended]


def paused(objects: Objects, mine: Lock, *steps: object) -> None:
    """Take a lock; between its look and its `create`, others do `steps`."""
    real, todo = objects.create, list(steps)

    def create(key: str, value: bytes) -> bool:
        while todo:
            todo.pop(0)()  # type: ignore[operator]
        return real(key, value)

    objects.create = create  # type: ignore[method-assign]
    try:
        mine.take()
    finally:
        del objects.create


@pytest.mark.parametrize("generations", [1, 2, 3])
def test_one_who_acts_on_an_old_look_is_refused(generations: int, objects: Objects, dead: Owner) -> None:
    """It saw a dead lock and slept; others have taken that over, released, and taken again: its number is free, yet it
    is too late."""
    left(objects, dead)
    other = objects_at(objects.path)
    held = [lock(other) for _ in range(generations)]

    def pass_on() -> None:
        for before, its in zip([None, *held], held, strict=False):
            if before is not None:
                before.release()
            its.take()

    late = lock(objects)
    with pytest.raises(StoreError, match="in use"):
        paused(objects, late, pass_on)
    held[-1].check()
    assert (held[-1].held, late.held) == (True, False)
    assert len(other.beginning(LOCK)) == 1
    held[-1].release()


# -- left-overs of interrupted writes ----------------------------------------------------------------------------------


def test_the_files_of_the_living_are_not_swept(objects: Objects, dead: Owner) -> None:
    """Half-written files: of a dead process of this machine, of a living one, of zarr, and of other machines, new and
    old."""
    folder = Path(objects.path or "")
    folder.mkdir()
    names = {
        f"0.{machine()}-{dead.pid}-1.partial": False,
        f"0.{machine()}-{os.getpid()}-1.partial": True,
        "0.0123abcd.partial": False,
        f"0.{'0' * 12}-1-1.partial": True,
        f"1.{'0' * 12}-1-1.partial": False,
    }
    for name in names:
        (folder / name).write_bytes(b"half")
    os.utime(folder / f"1.{'0' * 12}-1-1.partial", (time.time() - 2 * ABANDONED,) * 2)
    objects.sweep()
    assert sorted(path.name for path in folder.iterdir()) == sorted(name for name, stays in names.items() if stays)
    assert objects.names() == []


def test_who_writes_again_sweeps_beside_it(objects: Objects, dead: Owner) -> None:
    """Folders of chunks are left out of a sweep that must be quick; what the dead left there goes when something is
    written there again."""
    folder = Path(objects.path or "", "a", "c", "0")
    folder.mkdir(parents=True)
    left, living = (folder / f"0.{machine()}-{pid}-1.partial" for pid in (dead.pid, os.getpid()))
    for path in (left, living, folder / "0", folder.parents[1] / "zarr.json"):
        path.write_bytes(b"half")
    objects.sweep({"a/c"})
    assert left.exists()
    assert objects.names({"a/c"}) == ["a/zarr.json"]
    assert objects.names() == ["a/c/0/0", "a/zarr.json"]
    objects.set("a/c/0/0", b"whole")
    assert (left.exists(), living.exists(), objects.get("a/c/0/0")) == (False, True, b"whole")


def test_a_failed_write_leaves_nothing(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    objects.set("0", b"old")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        objects.set("0", b"new")
    assert [path.name for path in Path(objects.path or "").iterdir()] == ["0"]
    assert objects.get("0") == b"old"


# -- runs --------------------------------------------------------------------------------------------------------------


def run(path: Path, slow: int | None = None) -> dict[str, bytes]:
    return attribute(path, slow=slow, n=24, n_folds=8, pause=0.05)


@pytest.mark.dist
@pytest.mark.fault
def test_a_second_run_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    """While a run is at work: another one of the same spec is refused before it writes, and does not mark the store as
    failed; readers read. After kill -9 of the first the next takes over at once, collects what was half-written, and
    the bits are the same."""
    path, whole = tmp_path / "store.zarr", tmp_path / "whole.zarr"
    run_ranks(1, run, whole)
    with ranks(1, run, path, 0) as group:
        until(lambda: len(list(path.glob("shards/attribute/record/c.*"))))
        (end,) = run_ranks(1, run, path)
        assert (end.error, end.code) == ("StoreError", 2), end.trace
        assert f"in use: process {group.processes[0].pid} on " in end.message
        with pytest.raises(
            StoreError, match=rf"running, not complete: process {group.processes[0].pid} on .* is filling it"
        ):
            igc_dist.open(path)
        assert "predict" in igc_dist.open(path, allow_partial=True)["shards"].children
        group.send(0, signal.SIGKILL)
        group.ends(30)
    pid = group.processes[0].pid
    orphan = path / f"shards/attribute/record/c.0.0.0.{machine()}-{pid}-1.partial"
    orphan.write_bytes(b"half")
    assert objects_at(path).beginning(LOCK) != []
    assert holder(objects_at(path)) is None
    began = time.monotonic()
    (end,) = run_ranks(1, run, path)
    assert end.code == 0, end.trace
    assert time.monotonic() - began < 20
    assert not orphan.exists()
    assert files(path) == files(whole)
    assert Store.existing(path).verify() == []


def test_a_complete_store_needs_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an undamaged one that is asked for again, nor one of another spec; a damaged one is repaired under the
    lock."""
    path, taken = tmp_path / "store.zarr", []
    take = Lock.take
    monkeypatch.setattr(Lock, "take", lambda self: (taken.append(1), take(self))[1])
    run(path)
    assert taken == [1]
    assert not [name for name in os.listdir(path) if name.startswith(LOCK)]
    run(path)
    with pytest.raises(StoreError, match="holds another run"):
        attribute(path, n=24, n_folds=7)
    assert taken == [1]
    (path / "x" / "igc" / "c.0.0").unlink()
    run(path)
    assert taken == [1, 1]


def test_a_complete_store_loses_what_a_killed_run_left(tmp_path: Path, dead: Owner) -> None:
    """A run that is killed after its last write leaves its lock and its status; they go when the store is asked for
    again, but not those of a run that may live."""
    path = tmp_path / "store.zarr"
    run(path)
    whole, objects = files(path), objects_at(path)
    objects.set(BEACON, b"{}")
    left(objects, dead, 7)
    run(path)
    assert files(path) == whole
    objects.set(BEACON, b"{}")
    for owner, number in ((dead, 7), (Owner.this(), 8), (AFAR, 9)):
        left(objects, owner, number)
    run(path)
    assert objects.beginning(".") == [BEACON, f"{LOCK}000008", f"{LOCK}000009"]


def test_an_error_gives_the_lock_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.zarr"

    def broken(self: Rows, index: int) -> None:
        if [name for name in os.listdir(path) if name.startswith(LOCK)]:
            raise KeyboardInterrupt  # of all errors
        return real(self, index)  # type: ignore[return-value]

    real = Rows.__getitem__
    path.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Rows, "__getitem__", broken)
        with pytest.raises(KeyboardInterrupt):
            run(path)
    assert not [name for name in os.listdir(path) if name.startswith(LOCK)]
    assert "igc-dist lock" not in [thread.name for thread in threading.enumerate()]


def test_a_run_that_lost_its_lock_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It commits nothing more, says so, and does not mark the store of the other as failed."""
    path, commit = tmp_path / "store.zarr", Store.commit

    def lose(self: Store, phase: str, number: int) -> None:
        if (phase, number) == ("attribute", 2):
            self.guard.__self__.lost = True  # type: ignore[attr-defined]
        commit(self, phase, number)

    monkeypatch.setattr(Store, "commit", lose)
    with pytest.raises(StoreError, match="another run has taken it over"):
        run(path)
    assert Store.existing(path).pending("attribute")[0] == 2
    assert igc_dist.open(path, allow_partial=True).attrs["status"] == "running"


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.fault
def test_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks are at work: the same command again leaves with 2 and names the first rank, `info` shows it, `verify`
    says that the store is running; SIGTERM of the run gives the lock back."""
    path = tmp_path / "store.zarr"
    arguments = [*TINY, f"store.path={path}"]
    monkeypatch.setenv("COLUMNS", "200")
    with started(["igc_dist", *arguments, "+data.build.pause=1", "fabric.devices=2"], tmp_path) as process:
        until(lambda: path.is_dir() and objects_at(path).beginning(LOCK) and (path / "shards/zarr.json").exists(), 90)
        found = holder(objects_at(path))
        assert found is not None
        who = f"process {found.owner.pid} on {found.owner.host} (2 ranks) since "
        for name, code, words in (("info", 0, who), ("verify", 2, f"running, {who}")):
            with pytest.raises(SystemExit) as left:
                main([name, str(path)])
            assert (left.value.code, words in " ".join(capsys.readouterr().out.split())) == (code, True)
        again = command(*arguments, cwd=tmp_path)
        assert again.returncode == 2, again.stderr
        assert f"in use: {who}" in again.stderr
        assert "Traceback" not in again.stderr
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert objects_at(path).beginning(LOCK) == []
