"""Ranks on one machine: what they open, what they import, what they are told, and when they end."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.commands import TINY, below, children, gone, started, until
from tests.security.watched import SLOW, Seen

pytestmark = [pytest.mark.dist, pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")]


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
