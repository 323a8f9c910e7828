"""What a run tells while it goes: pulses of its ranks, slow ones by name, metrics, and what others see of it."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from igc_dist import baselines, config, data, inputs, run
from igc_dist.cli import commands
from igc_dist.distributed import Pulse, Pulsing, Stragglers, Tally, joined, loggers, pulse
from igc_dist.job import Job, named_statistics
from igc_dist.model import Model
from igc_dist.paths import quadrature
from igc_dist.planning import Limits
from igc_dist.records import ConfigError, StoreError
from igc_dist.statistics import Centre, State, unexplained
from igc_dist.store import LOCK, Folder, Owner, Store, beacon, lock
from igc_dist.targets import Targets
from igc_dist.watching import account, progress, watch
from tests.commands import until
from tests.ranks import Net, Rows, attribute, ranks, run_ranks, values


def of(phase: str = "attribute", shard: str = "", seconds: float = 0.0, **tally: Any) -> tuple[Pulse, float]:
    return Pulse(phase, shard, seconds, tallies={phase: Tally(**tally)}), 0.0


# -- pulses ------------------------------------------------------------------------------------------------------------


def test_a_pulse_is_what_a_rank_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards, rows and times by phase, as JSON and back; the time between shards is nobody's."""
    clock = [100.0]
    monkeypatch.setattr(pulse.time, "monotonic", lambda: clock[0])
    mine, waited = Pulsing(), [7.0]
    mine.waiting = lambda: waited[0]
    mine.enter("predict")
    for seconds in (1.0, 2.0, 9.0):
        mine.begin("predict shard 0")
        clock[0] += seconds
        waited[0] += 0.5
        mine.rows(4)
        mine.done(lost=1, retried=seconds > 8, residual=seconds / 10)
        clock[0] += 50
    mine.enter("attribute")
    mine.begin("attribute shard 3")
    clock[0] += 4
    mine.rows(10)
    found = Pulse.read(json.loads(json.dumps(mine.said())))
    assert found is not None
    assert found.tallies["predict"] == Tally(3, 12, 12.0, 1.5, 2.0, 3, 1, 0.9)
    assert (found.phase, found.shard, found.seconds, found.tally.rows) == ("attribute", "attribute shard 3", 4.0, 10)
    assert 0 < found.resident <= 2 * found.peak
    assert pulse.rate(found) == 2.5
    assert pulse.rate(found, silent=6.0) == 1.0


@pytest.mark.parametrize(
    "bad", [None, [], {}, {"tallies": 3}, {"tallies": {"a": {}}}, {**asdict(Pulse()), "seconds": "x"}]
)
def test_what_is_no_pulse(bad: Any) -> None:
    """A file may come from anybody."""
    assert Pulse.read(bad) is None


def test_slow_ranks_are_told_of_once_for_each_shard() -> None:
    """Slow is three times what others take, and more than some seconds; a median over ranks needs two shards."""
    told = Stragglers()
    others = {r: of(shards=8, rows=80, busy=72.0, typical=9.0) for r in range(5)}
    assert told.of({**others, 5: of(shard="attribute shard 31", seconds=26.0)}) == []
    slow = {**others, 5: of(shard="attribute shard 31", seconds=41.0)}
    assert told.of(slow) == ["rank 5 is slow: 41 s on attribute shard 31, others take 9 s"]
    assert told.of(slow) == []
    assert told.of({**others, 5: of(shard="attribute shard 32", seconds=41.0)}) != []
    # what it has not said for 20 s is time in its shard too
    assert len(told.of({**others, 3: (of(shard="attribute shard 33", seconds=10.0)[0], 20.0)})) == 1
    assert told.of({0: of(shards=8, typical=0.1), 1: of(shard="attribute shard 0", seconds=4.9)}) == []
    assert told.of({0: of(shards=1, typical=1.0), 1: of(shard="attribute shard 1", seconds=90.0)}) == []
    # between shards nobody is slow, and other phases say nothing
    assert told.of({**others, 5: of(seconds=41.0)}) == []
    assert told.of({**others, 5: of("predict", "predict shard 1", 41.0)}) == []


def test_the_median_is_of_shards_not_of_ranks() -> None:
    """The slow one of two ranks, which did one shard, does not make its own time the usual one."""
    assert pulse.typical({0: of(shards=9, typical=1.0), 1: of(shards=1, typical=9.0)}, "attribute") == 1.0


def test_skew_is_the_slowest_rate_over_the_median() -> None:
    fast = {r: of(shards=1, rows=100, busy=10.0) for r in range(2)}
    assert pulse.skew({**fast, 2: of(shards=1, rows=20, busy=10.0)}) == 0.2
    assert pulse.skew({**fast, 2: of(shard="attribute shard 7", seconds=10.0, rows=20)}) == 0.2  # in its first shard
    assert pulse.skew({**fast, 2: of()}) == pulse.skew({}) == 1.0  # it got no shard


def test_time_spent_waiting_for_data_is_known() -> None:
    """Of a thread that reads ahead only what it is late; without one all of it."""
    for prefetch, most in ((False, 1.0), (True, 0.9)):
        source = data.ensure(Rows(8, slow=0, pause=0.01), prefetch=prefetch)
        for _ in source.batches(range(8), 2):
            torch.sin(torch.zeros(1))
        assert 0.02 < source.waited < most


# -- a run -------------------------------------------------------------------------------------------------------------


def watched(folder: Path, name: str) -> tuple[list[str], dict[str, Any], dict[str, Any]]:
    """A run of this rank with loggers; returns what it logged and, on rank 0, the last document for those outside and
    the account."""
    lines: list[str] = []
    told: list[Any] = []
    real = beacon.Beacon.shine
    beacon.Beacon.shine = lambda self, document: (told.append(document), real(self, document))[1]  # type: ignore[method-assign]
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("igc_dist").addHandler(handler)
    logging.getLogger("igc_dist").setLevel(logging.INFO)
    pulse.LEAST, progress.LOOK = 0.3, 0.05
    wish = config.preset("igc")
    job = Job(
        inputs=inputs.ensure(Model(Net())),
        source=data.ensure(Rows(24, slow=0, pause=0.02)),  # so that rank 1 gets a shard
        targets=Targets(),
        baseline=baselines.ensure(None),
        attributor=config.build_attributor(wish.attributor, quadrature.ensure_rule("midpoint", 4)),
        statistics=named_statistics(wish.statistics),
        store=folder / name,
        limits=Limits(n_folds=6, micro_batch=4),
    )
    with (
        joined(accelerator="cpu", threads=1, timeout=60.0, loggers=loggers(["csv"], folder / "logs")) as world,
        progress.metered(world, False) as meter,
    ):
        run.run(job, world, meter)
        kept = account.Account(folder / "run.json", folder / name)
        kept.join(meter)
    return lines, *([told[-1], kept.document("complete", None)] if told else [{}, {}])  # type: ignore[return-value]


@pytest.mark.dist
def test_a_slow_rank_is_named_with_its_shard(tmp_path: Path) -> None:
    """Rank 1 sleeps a second in its first shard: rank 0 says so while it waits, and the loggers hear of every rank."""
    found = values(run_ranks(2, watched, tmp_path, "a.zarr", IGC_FAULT="compute:1:1:slow"))
    (lines, last, kept), (others, *nothing) = found
    slow = [line for line in lines if " is slow: " in line]
    assert len(slow) == 1, lines
    assert slow[0].startswith("rank 1 is slow: ")
    assert " s on attribute shard " in slow[0]
    assert nothing == [{}, {}]
    assert not [line for line in others if " is slow: " in line]
    for rank, said in enumerate((lines, others)):
        assert any(
            f"attribute: rank {rank} did " in line and "peak memory" in line and "waiting for data" in line
            for line in said
        )
    assert last["pass"]["done"] == last["pass"]["total"] == 6
    shards = [last["ranks"][str(rank)]["tallies"]["attribute"]["shards"] for rank in range(2)]
    assert sum(shards) == 6
    with next((tmp_path / "logs").rglob("metrics.csv")).open() as file:
        rows = list(csv.DictReader(file))
    assert [rank["shards"] for rank in kept["throughput"]["attribute"]["ranks"]] == shards
    assert kept["throughput"]["attribute"]["rank_skew"] < 0.5
    assert kept["survived"]["slow_ranks"] == slow
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps))
    final = rows[-1]
    assert [int(final[f"shards_done/rank_{rank}"]) for rank in range(2)] == shards
    assert float(final["rank_skew"]) < 0.5
    assert all(float(final[f"memory_peak_gib/rank_{rank}"]) > 0.01 for rank in range(2))
    assert not list((tmp_path / "a.zarr").glob(".*"))


def test_metrics_tell_what_the_results_say(tmp_path: Path) -> None:
    """The completeness of the worst shard is that of the shards, and it is what their sums say."""
    rng = np.random.default_rng(0)
    r, b, d = rng.normal(size=(3, 50, 2)) + 3.0
    centre = Centre(np.ones(2), np.array([2.0, 1.0]), np.array([-1.0, 0.5]))
    scalars = {"": np.full(2, 50.0), "d": np.abs(d).sum(0), "r": (r - centre.r).sum(0), "b": (b - centre.b).sum(0)}
    scalars |= {
        "rr": ((r - centre.r) ** 2).sum(0),
        "bb": ((b - centre.b) ** 2).sum(0),
        "rb": ((r - centre.r) * (b - centre.b)).sum(0),
    }
    expected = (np.abs(d).mean(0) / np.sqrt(((r - b) ** 2).mean(0))).max()
    assert unexplained(State(centre, {k: v[None] for k, v in scalars.items()}, ())) == pytest.approx(
        expected, rel=1e-12
    )
    empty = State(centre, {k: np.zeros((1, 2)) for k in scalars}, ())
    assert unexplained(empty) == 0.0


# -- from another process ----------------------------------------------------------------------------------------------


def twelve(path: Path | None, slow: int | None = None, pause: float = 0.0) -> dict[str, bytes]:
    return attribute(path, 24, slow=slow, pause=pause, n_folds=12)


@pytest.mark.dist
def test_a_running_store_is_followed_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines while it goes on, with shards, rate and ranks; a table on a terminal; 0 when it is complete, and then no
    beacon is left."""
    path = tmp_path / "a.zarr"
    with ranks(2, twelve, path, 1, 0.05) as group:
        until((path / "zarr.json").exists)
        watcher = watch.Watcher(path)
        until(lambda: (path / ".beacon").exists() and watcher.look().done["attribute"] > 0)
        view = watcher.look()
        screen = Console(file=io.StringIO(), force_terminal=True, width=200)
        screen.print(watch.table(watcher, view))
        assert watch.follow(path, 0.1, Console(file=io.StringIO())) == 0
        assert [end.code for end in group.ends(60.0)] == [0, 0]
    assert (view.status, view.of) == ("running", {"predict": 12, "attribute": 12})
    assert "(2 ranks)" in str(view.filling)
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert all(text in shown for text in ("running, process", "attribute", "samples/s", "data wait", "GiB"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 2
    assert re.match(
        r"running, predict 12 of 12 shards, attribute \d+ of 12 shards, .* shards/s, .*2 ranks, peak memory 0\.",
        lines[0],
    )
    assert lines[-1] == "complete, predict 12 of 12 shards, attribute 12 of 12 shards"
    assert not list(path.glob(".*"))
    assert Store.existing(path).verify() == []


@pytest.mark.dist
def test_a_store_that_nobody_fills_is_not_waited_for(tmp_path: Path) -> None:
    """After kill -9 the watch ends with 2; what the run said last does not count, and a rerun takes it away."""
    path = tmp_path / "a.zarr"
    with ranks(1, twelve, path, 0, 0.03) as group:
        until(lambda: (path / ".beacon").exists() and watch.Watcher(path).look().done["attribute"] > 0)
        group.kill()
    assert (path / ".beacon").exists()
    with pytest.raises(StoreError, match="is running, and nobody fills it: run the same command again"):
        watch.follow(path)
    assert watch.Watcher(path).look().said == {}
    assert {".beacon"} & {*Folder(path).names()} == set()
    assert twelve(path) == twelve(None)
    assert not list(path.glob(".*"))


def test_a_holder_elsewhere_lives_while_its_lock_is_renewed(tmp_path: Path) -> None:
    """Two clocks are not compared: what moves under these eyes is alive."""
    there, clock = lock.Holder(Owner("afar", "0" * 12, 7), 4, 0.0, "token"), [0.0]
    objects, watcher = Folder(tmp_path), watch.Watcher(tmp_path, lambda: clock[0])
    objects.set(f"{LOCK}000001", there.text())
    assert watcher.look().status == "starting"
    clock[0] += lock.EXPIRY - 1
    assert watcher.look().status == "starting"
    objects.set(f"{LOCK}000001", replace(there, beat=1).text())
    clock[0] += 2
    assert watcher.look().filling is not None
    clock[0] += lock.EXPIRY + 1
    with pytest.raises(StoreError, match="not a readable igc-dist store"):
        watcher.look()


@pytest.mark.parametrize(
    "said", [b"", b"[]", b"{", b'{"ranks": 3}', b'{"ranks": {"0": {"tallies": {}, "phase": 1}, "x": null}, "pass": 1}']
)
def test_a_beacon_that_says_nonsense(said: bytes, tmp_path: Path) -> None:
    """It is anybody's file: there are no ranks to show, and that is all."""
    Folder(tmp_path).set(".beacon", said)
    view = watch.View("running", "somebody", {"predict": 1}, {"predict": 2}, beacon.seen(Folder(tmp_path)) or {})
    watcher = watch.Watcher(tmp_path, _seen=[(0.0, "predict", 0), (2.0, "predict", 1)])
    assert watch.line(watcher, view) == "running, predict 1 of 2 shards, 0.5 shards/s, about 2 s left in predict"
    screen = Console(file=io.StringIO(), width=100)
    screen.print(watch.table(watcher, view))
    assert "rank" not in screen.file.getvalue()  # type: ignore[attr-defined]


def test_the_command_watches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--watch and --watch=SECONDS; Ctrl-C is no failure; other options are none."""
    asked: list[Any] = []
    monkeypatch.setattr("igc_dist.watching.follow", lambda *arguments: asked.append(arguments) or 0)
    assert [commands.call("info", ["A", "--watch"]), commands.call("info", ["--watch=2.5", "B"])] == [0, 0]
    assert asked == [("A", None), ("B", 2.5)]
    for name, *wrong in (
        ("info", "A", "--watch=0"),
        ("info", "A", "--watch=x"),
        ("info", "A", "--wach"),
        ("info", "--watch"),
        ("verify", "A", "--watch"),
    ):
        with pytest.raises(ConfigError):
            commands.call(name, wrong)
    monkeypatch.undo()
    monkeypatch.setattr(watch.Watcher, "look", raised)
    assert watch.follow(tmp_path) == 0


def raised(self: watch.Watcher) -> None:
    raise KeyboardInterrupt
