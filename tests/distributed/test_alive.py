"""Ranks without a launcher of ours: when one dies or is stopped the others end soon, or are done."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch.distributed as dist

import igc_dist
from igc_dist.distributed import alive, joined, world
from tests.commands import until
from tests.ranks import Ended, attribute, ranks

pytestmark = [pytest.mark.dist, pytest.mark.fault]

SIGNALS = (signal.SIGKILL, signal.SIGSTOP)


def hasty() -> None:
    """Signs every tenth of a second, and no long farewell. A rank is gone 1 s after the lease."""
    alive.EVERY, alive.AFTER, world.LINGER = 0.1, 1.0, 0.5


def work(path: Path) -> None:
    hasty()
    attribute(path, n=24, n_folds=8, slow=(0, 1), timeout=1800.0, lease=0.5)


def survivor(victim: int, group: object) -> Ended:
    """How the other rank of two ends. Ranks that are left are killed."""
    group.processes[1 - victim].join(30.0)  # type: ignore[attr-defined]
    assert not group.processes[1 - victim].is_alive(), "it waits"  # type: ignore[attr-defined]
    group.kill()  # type: ignore[attr-defined]
    return group.ends(1.0)[1 - victim]  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("victim", "number"),
    [
        pytest.param(victim, number, marks=() if (victim, number) == (0, signal.SIGSTOP) else pytest.mark.slow)
        for victim in (0, 1)
        for number in SIGNALS
    ],
)
def test_a_rank_ends_when_another_is_gone(victim: int, number: signal.Signals, tmp_path: Path) -> None:
    """In pass 2, far within the timeout of half an hour; rank 0 holds the store of the ranks. A rerun completes."""
    path = tmp_path / "a.zarr"
    with ranks(2, work, path) as group:
        until(lambda: any(path.glob("shards/attribute/record/c.*")))
        group.send(victim, number)
        end = survivor(victim, group)
    assert end.code == 1, end.trace
    if (victim, number) == (1, signal.SIGKILL):
        assert re.search(r"rank 1 gave no sign of life for \d+ s: it died or was stopped", end.message)
    assert attribute(path, n=24, n_folds=8, slow=(0, 1), pause=0.0) == attribute(None, n=24, n_folds=8)


def form(number: signal.Signals) -> None:
    hasty()
    if os.environ["RANK"] == "1":
        dist.init_process_group = lambda *_, **__: os.kill(os.getpid(), number)
    with joined(accelerator="cpu", timeout=1800.0, lease=0.5):
        time.sleep(60)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_rank_that_forms_a_group_with_one_that_is_gone_ends(number: signal.Signals) -> None:
    """It waits inside gloo, where no code of Python's runs."""
    with ranks(2, form, number) as group:
        assert survivor(1, group).code == 1


def late() -> None:
    from igc_dist.distributed import joining

    joining.GATHER = 1.0
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    with joined(accelerator="cpu", timeout=1800.0, lease=0.5):
        pass


def test_a_rank_that_never_came_is_not_waited_for(tmp_path: Path) -> None:
    with ranks(2, late) as group:
        end = survivor(1, group)
    assert end.error == "PeerError", end.trace
    assert "rank 1 of WORLD_SIZE=2" in end.message
    assert "did not come within" in end.message


def test_a_rank_whose_store_is_complete_misses_nobody(tmp_path: Path) -> None:
    """Rank 1 dies on its way to the last meetings: rank 0 has completed the store, and ends with 0."""
    path = tmp_path / "a.zarr"
    with ranks(2, work, path, IGC_FAULT="barrier:1:3:kill") as group:
        end = survivor(1, group)
    assert end.code == 0, end.trace
    assert igc_dist.open(path).attrs["status"] == "complete"
