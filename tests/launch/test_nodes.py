"""launch/multinode.sh on two nodes, with torchrun and gloo between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.commands import ROOT, TINY, until
from tests.launch.namespaces import Node, missing, nodes
from tests.ranks import files

LACKS = missing()
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(LACKS), reason=LACKS or "there are namespaces"),
]

SLOW = ("+data.build.slow=0", "+data.build.pause=0.1")
"""The first rank is slow, so that the others get shards too."""


@pytest.fixture
def pair() -> Iterator[Sequence[Node]]:
    with nodes() as found:
        yield found


def logs(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "a.zarr.run/logs").glob("rank-*.log"))


def test_the_same_command_on_both_nodes(pair: Sequence[Node], alone: dict[str, bytes], tmp_path: Path) -> None:
    """No node is told its number: who has the endpoint's address hosts the rendezvous, also when it comes last; three
    ranks, same bytes."""
    run = [ROOT / "launch/multinode.sh", *TINY, *SLOW, "store.path=a.zarr"]
    environ = {"RDZV_ENDPOINT": f"{pair[0].name}:29400", "NNODES": "2:2"}
    late = pair[1].start(*run, cwd=tmp_path, NPROC="2", **environ)
    first = pair[0].start(*run, cwd=tmp_path, NPROC="1", **environ)
    said = [process.communicate(timeout=120)[0] for process in (first, late)]
    assert [first.returncode, late.returncode] == [0, 0], said
    assert logs(tmp_path) == ["rank-0.log", "rank-1.log", "rank-2.log"]
    assert "".join(said).count("IGC of 2 outputs") == 1
    assert files(tmp_path / "a.zarr") == alone


@pytest.mark.fault
def test_a_killed_rank_is_started_again(pair: Sequence[Node], alone: dict[str, bytes], tmp_path: Path) -> None:
    """kill -9 of the rank on the second node: torchrun starts the ranks of both again, and they resume."""
    run = [ROOT / "launch/multinode.sh", *TINY, *SLOW, "store.path=a.zarr"]
    # the rank is killed after every start, at its fourth shard: of eight shards that is twice at most, and three starts
    # are allowed
    environ = {"RDZV_ENDPOINT": f"{pair[0].name}:29400", "NNODES": "2:2", "NPROC": "1", "IGC_FAULT": "compute:1:4"}
    started = [node.start(*run, cwd=tmp_path, **environ) for node in pair]
    said = [process.communicate(timeout=200)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert "exitcode: -9" in "".join(said), said
    assert files(tmp_path / "a.zarr") == alone


@pytest.mark.fault
def test_a_lost_node_is_done_without(pair: Sequence[Node], alone: dict[str, bytes], tmp_path: Path) -> None:
    """The second node goes in the middle, agent and all: the first names the silent rank, starts again alone, and
    completes the store."""
    run = [ROOT / "launch/multinode.sh", *TINY, *SLOW, "store.path=a.zarr", "fabric.timeout=10"]
    environ = {"RDZV_ENDPOINT": f"{pair[0].name}:29400", "NNODES": "1:2", "NPROC": "1"}
    first, _ = [node.start(*run, cwd=tmp_path, **environ) for node in pair]
    until(lambda: list((tmp_path / "a.zarr").glob("shards/attribute/record/c.*")), 100)
    pair[1].die()
    said, _ = first.communicate(timeout=200)
    assert first.returncode == 0, said
    assert files(tmp_path / "a.zarr") == alone, said
