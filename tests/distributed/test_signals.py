"""A run that is told to stop leaves with 75, says how to go on, and goes on from there."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

import igc_dist
from igc_dist.distributed import joined
from igc_dist.records import StoreError
from igc_dist.store import Store
from tests.commands import TINY, below, gone, started, until
from tests.ranks import arrays, attribute, ranks, run_ranks

pytestmark = [pytest.mark.dist, pytest.mark.fault]

SLOW = "+data.build.pause=0.1"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def committed(path: Path) -> int:
    """Shards of pass 2 that are done, by the files of their digests."""
    return len([p for p in path.glob("shards/attribute/record/c.*") if p.is_file() and p.suffix != ".partial"])


def resumable(path: Path) -> None:
    """The store is in the middle of pass 2, and says so."""
    with pytest.raises(StoreError, match="running, not complete"):
        igc_dist.open(path)
    pending = Store.existing(path).pending("attribute")
    assert 0 < len(pending) < 8


def command_here(path: Path, *more: str) -> None:
    """The command in this process."""
    from igc_dist.__main__ import main

    main([*TINY, f"store.path={path}", f"hydra.run.dir={path.parent}", *more])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("undisturbed") / "store.zarr"
    assert run_ranks(1, command_here, path)[0].code == 0
    return arrays(igc_dist.open(path))


@pytest.mark.parametrize(
    "number", [SIGNALS[0], *(pytest.param(number, marks=pytest.mark.slow) for number in SIGNALS[1:])]
)
def test_one_rank_stops_and_goes_on(number: signal.Signals, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    """SIGTERM, SIGINT or SIGUSR1 in the middle of pass 2: 75 within a micro-batch, committed shards kept, the same bits
    afterwards."""
    path = tmp_path / "store.zarr"
    with ranks(1, command_here, path, SLOW) as group:
        until(lambda: committed(path))
        group.send(0, number)
        (end,) = group.ends(60.0)
    assert end.code == 75, end.trace
    resumable(path)
    assert run_ranks(1, command_here, path)[0].code == 0
    assert arrays(igc_dist.open(path)) == undisturbed


def python_here(path: Path) -> None:
    attribute(path, n=24, n_folds=8, slow=0, pause=0.05)


@pytest.mark.parametrize("number", SIGNALS)
def test_python_raises_stopped(number: signal.Signals, tmp_path: Path) -> None:
    """`attribute` ends with an exception that says what is safe, after the micro-batch at hand, and the handlers are
    the caller's again. That of Ctrl-C is a `KeyboardInterrupt`, which ``except Exception`` does not swallow."""
    path = tmp_path / "store.zarr"
    with ranks(1, python_here, path) as group:
        until(lambda: committed(path))
        group.send(0, number)
        (end,) = group.ends(60.0)
    assert end.error == ("Interrupted" if number == signal.SIGINT else "Stopped"), end.trace
    assert "rank 0 stopped by a signal at attribute" in end.message
    assert "committed are safe, run the same command again to go on" in end.message
    resumable(path)


def test_one_rank_that_is_told_takes_the_others_with_it(tmp_path: Path) -> None:
    """A scheduler may signal one rank only: all of them stop, with 75."""
    path = tmp_path / "store.zarr"
    with ranks(3, command_here, path, SLOW) as group:
        until(lambda: committed(path))
        group.send(1, signal.SIGUSR1)
        ended = group.ends(60.0)
    assert [end.code for end in ended] == [75, 75, 75], [end.trace for end in ended]
    resumable(path)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_the_command_stops_and_goes_on(devices: int, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    """SIGTERM of the command itself, alone and as the launcher of two ranks; the rerun is on one."""
    path = tmp_path / "store.zarr"
    arguments = [*TINY, f"store.path={path}"]
    with started(["igc_dist", *arguments, SLOW, f"fabric.devices={devices}"], tmp_path) as process:
        until(lambda: committed(path) or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "run the same command again to go on" in err
    assert "Traceback" not in err
    resumable(path)
    assert run_ranks(1, command_here, path)[0].code == 0
    assert arrays(igc_dist.open(path)) == undisturbed


def deaf(there: Path) -> None:
    with joined(accelerator="cpu") as world:
        world.early = False
        there.touch()
        time.sleep(60)


def looking(there: Path) -> None:
    with joined(accelerator="cpu"):
        there.touch()
        for _ in range(600):  # a model that takes its time, and knows of no signal
            time.sleep(0.1)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_look_ends_wherever_it_is(number: signal.Signals, tmp_path: Path) -> None:
    """Although the model is at work."""
    with ranks(1, looking, tmp_path / "there") as group:
        until((tmp_path / "there").exists)
        group.send(0, number)
        group.processes[0].join(5.0)
        assert not group.processes[0].is_alive()
        (end,) = group.ends(30.0)
    assert end.error == "Stopped", end.trace


def catches(pid: int) -> bool:
    """Whether a process has a handler of its own for SIGTERM."""
    masks = [line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigCgt" in line]
    return bool(int(masks[0], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.e2e
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("number", SIGNALS)
def test_the_command_has_a_handler_before_it_imports(number: signal.Signals, tmp_path: Path) -> None:
    """From the first instant: 75 and one line."""
    with started(["igc_dist", *TINY, f"store.path={tmp_path / 'store.zarr'}"], tmp_path) as process:
        until(lambda: catches(process.pid))
        process.send_signal(number)
        ended_before_it_began(process, tmp_path)


@pytest.mark.e2e
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("module", ["hydra", "numpy", "torch"])
def test_the_command_ends_wherever_in_its_imports_it_is(module: str, number: signal.Signals, tmp_path: Path) -> None:
    """The module at which the signal comes takes a minute to import. No store is there; the run's folder may be."""
    there, cwd, slow = (tmp_path / name for name in ("there", "cwd", "slow"))
    cwd.mkdir()
    slow.mkdir()
    slow.joinpath(f"{module}.py").write_text(f"import time\nopen({str(there)!r}, 'w').close()\ntime.sleep(60)\n")
    first = os.pathsep.join([str(slow), *filter(None, [os.environ.get("PYTHONPATH")])])
    with started(["igc_dist", *TINY, f"store.path={cwd / 'store.zarr'}"], cwd, PYTHONPATH=first) as process:
        until(there.exists)
        process.send_signal(number)
        ended_before_it_began(process, cwd)


def ended_before_it_began(process: subprocess.Popen[str], cwd: Path) -> None:
    _, err = process.communicate(timeout=5)
    assert process.returncode == 75, err
    assert err == "igc-dist: stopped by a signal before the run began or after its end: run the same command again\n"
    assert not (cwd / "store.zarr").exists()


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("after", [0.0, 2.0, 4.0, 6.0, 8.0])
def test_several_devices_end_soon_at_any_moment(after: float, tmp_path: Path) -> None:
    """Ctrl-C while ranks start, form their group, look at model and data, and work: 75 in 5 s, and nothing is left."""
    arguments = [*TINY, f"store.path={tmp_path / 'store.zarr'}", "fabric.devices=2", "+data.build.pause=0.5"]
    with started(["igc_dist", *arguments], tmp_path) as process:
        until(lambda: len(below(process.pid)) >= 2)
        time.sleep(after)
        those = below(process.pid)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert time.monotonic() - began < 5.0
    assert "Traceback" not in err
    assert all(map(gone, those))


def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    """A first Ctrl-C waits for the work at hand; a second one does not."""
    with ranks(1, deaf, tmp_path / "there") as group:
        until((tmp_path / "there").exists)
        group.send(0, signal.SIGINT)
        group.processes[0].join(0.3)
        assert group.processes[0].is_alive()
        group.send(0, signal.SIGINT)
        (end,) = group.ends(30.0)
    assert end.error == "KeyboardInterrupt", end.trace
