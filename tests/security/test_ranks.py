"""Ranks on one machine: what they open, what they import, what they are told, and when they end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import TINY, below, children, environment, gone, started, until

pytestmark = [pytest.mark.dist, pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")]

SLOW = "+data.build.pause=0.05"


@dataclass(frozen=True)
class Seen:
    """What was seen of a run of two ranks, from outside."""

    listening: set[str]
    """Addresses at which the launcher or a rank waited for others, while both ranks were in pass 2."""
    commands: list[str]
    """The command lines of the ranks."""
    imported: bool
    """Whether a module in the working folder was."""
    ended: bool
    """Whether all ended within 5 seconds after their launcher was killed, and before the work was done."""


def listening(pids: list[int]) -> set[str]:
    """Addresses at which these processes listen, over TCP of both versions."""
    mine = {os.readlink(file) for pid in pids for file in Path(f"/proc/{pid}/fd").iterdir() if file.is_symlink()}
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in mine:
                words = bytes.fromhex(local.split(":")[0])
                groups = [words[n : n + 4][::-1] for n in range(0, len(words), 4)]  # each word is little-endian
                found.add(socket.inet_ntop(family, b"".join(groups)))
    return found


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A run of two ranks, looked at in pass 2; then its launcher is killed."""
    folder = tmp_path_factory.mktemp("ranks")
    mark, store = folder / "imported", folder / "store.zarr"
    for name in ("xarray", "lightning", "safetensors"):
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')\n")
    others = [name for _, name in socket.if_nameindex() if not name.startswith("lo")]  # which a shell might prefer
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "igc_dist", "run", *TINY, f"store.path={store}", "fabric.devices=2", SLOW],
        cwd=folder, stderr=subprocess.DEVNULL,
        env=environment(TMPDIR=str(folder), **({"GLOO_SOCKET_IFNAME": others[0]} if others else {})),
    )  # fmt: skip
    everyone: list[int] = []
    try:
        until(lambda: process.poll() is not None or any(store.glob("shards/attribute/record/c.*")))
        if process.poll() is not None:
            return Seen(set(), [], mark.exists(), False)
        ranks = children(process.pid)
        everyone = [process.pid, *below(process.pid)]
        where = listening(everyone)
        commands = [Path(f"/proc/{rank}/cmdline").read_text().replace("\0", " ").strip() for rank in ranks]
        process.kill()
        process.wait()
        with suppress(AssertionError):
            until(lambda: all(map(gone, everyone)), 5.0)
        complete = json.loads((store / "zarr.json").read_text())["attributes"]["status"] == "complete"
        return Seen(where, commands, mark.exists(), all(map(gone, everyone)) and not complete)
    finally:
        process.kill()
        for pid in everyone:
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)


def test_nothing_listens_beyond_the_loopback_interface(seen: Seen) -> None:
    assert len(seen.commands) == 2
    assert seen.listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert seen.listening, "gloo of two ranks listens somewhere"


def test_nothing_is_imported_from_the_working_folder(seen: Seen) -> None:
    assert len(seen.commands) == 2
    assert not seen.imported


def test_a_rank_is_told_through_a_pipe_what_it_may_do(seen: Seen) -> None:
    """Words among its arguments could come from a file."""
    assert [command.split()[1:] for command in seen.commands] == [["-P", "-m", "igc_dist", "rank"]] * 2


def test_ranks_end_with_their_launcher(seen: Seen) -> None:
    """Even if it was killed and could not tell them."""
    assert seen.ended


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.0, 1.0, 3.0, 5.0, 7.0])
def test_ranks_end_with_their_launcher_at_any_moment(after: float, tmp_path: Path) -> None:
    """While they import, form their group, and look at model and data."""
    arguments = ["run", *TINY, f"store.path={tmp_path / 'store.zarr'}", "fabric.devices=2", SLOW]
    with started(["igc_dist", *arguments], tmp_path) as process:
        until(lambda: len(below(process.pid)) >= 2)
        time.sleep(after)
        those = below(process.pid)
        process.kill()
        process.wait()
        until(lambda: all(map(gone, those)), 5.0)


@pytest.mark.slow
def test_what_starts_the_ranks_is_small(tmp_path: Path) -> None:
    """It composes the configuration, and then becomes a program that holds less than 40 MiB for the whole run."""
    with started(["igc_dist", *TINY, "fabric.devices=2", SLOW, f"store.path={tmp_path}/store"], tmp_path) as process:
        until(lambda: len(children(process.pid)) == 2, 120)
        held = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        assert held < 40 << 20
        process.communicate(timeout=120)
        assert process.returncode == 0
