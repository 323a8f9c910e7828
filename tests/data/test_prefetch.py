"""Reading ahead: the same batches, errors at their turn, no thread left behind, one read at a time; and fixed shapes
for compilers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

import igc_dist
from igc_dist import baselines
from igc_dist.data import Source, ensure
from igc_dist.data.source import read_ahead
from igc_dist.records import DataError
from tests.ranks import Net, Rows, arrays


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("igc-dist-reads")]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert readers() == []


class Watched(Rows):
    """Which thread reads which sample; two reads at a time are an error, and so is sample `broken`."""

    def __init__(self, n: int = 12, broken: int | None = None, pause: float = 0.0) -> None:
        super().__init__(n)
        self.broken, self.wait, self.busy, self.read = broken, pause, False, []

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        assert not self.busy, "two reads at a time"
        self.busy = True
        time.sleep(self.wait)
        self.read.append((index, threading.current_thread() is threading.main_thread()))
        self.busy = False
        if index == self.broken:
            raise ValueError(f"cannot read {index}")
        return super().__getitem__(index)


def test_the_same_batches_in_the_same_order_by_another_thread() -> None:
    data, order = Watched(), [3, 1, 4, 0, 5, 9, 2, 6]
    plain = list(Source(data, prefetch=False).batches(order, 3))
    assert all(main for _, main in data.read)
    data.read.clear()
    ahead = list(Source(data).batches(order, 3))
    assert [index for index, _ in data.read] == order
    assert not any(main for _, main in data.read[3:])
    for a, b in zip(plain, ahead, strict=True):
        assert a.index.tolist() == b.index.tolist()
        assert torch.equal(a.inputs[0], b.inputs[0])
        assert torch.equal(a.target, b.target)


def test_one_batch_ahead_and_no_more() -> None:
    data = Watched()
    batches = Source(data).batches(range(12), 2)
    for done in range(1, 5):
        next(batches)
        deadline = time.monotonic() + 10
        while len(data.read) < min(2 * (done + 1), 12) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert len(data.read) == 2 * (done + 1)
    batches.close()  # type: ignore[attr-defined]
    assert readers() == []


def test_an_error_comes_at_its_turn_as_it_was() -> None:
    batches = Source(Watched(broken=5)).batches(range(12), 2)
    assert [next(batches).index.tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(ValueError, match="cannot read 5"):
        next(batches)


def test_errors_of_a_run_and_early_ends_leave_no_thread() -> None:
    with pytest.raises(ValueError, match="cannot read 7"):
        igc_dist.attribute(Net(), Watched(broken=7), n_steps=2, n_folds=1, micro_batch=2)
    assert readers() == []
    for _ in Source(Watched()).batches(range(12), 2):
        break
    assert readers() == []


@pytest.mark.parametrize(
    ("data", "settings", "expected"),
    [
        ((torch.zeros(3, 2), torch.zeros(3, 1)), {}, False),
        (TensorDataset(torch.zeros(3, 2), torch.zeros(3, 1)), {}, False),
        (Rows(3), {}, True),
        (Rows(3), {"prefetch": False}, False),
        (Rows(3), {"num_workers": 1}, False),
        (torch.utils.data.DataLoader(Rows(3)), {"prefetch": False}, False),
        (torch.utils.data.DataLoader(Rows(3)), {}, True),
    ],
)
def test_what_is_read_ahead(data: Any, settings: dict[str, Any], expected: bool) -> None:
    """Not what is in memory, nor what workers read."""
    assert ensure(data, **settings).ahead is expected


def test_the_same_bits_with_and_without_and_baselines_read_by_turns() -> None:
    """Baselines are samples of the same data set, which the main thread reads while the next batch is read."""
    settings: dict[str, Any] = {
        "n_steps": 2,
        "n_folds": 2,
        "micro_batch": 2,
        "samples": True,
        "baseline": baselines.Resampled(2),
    }
    data = Watched(pause=0.0005)
    one, two = (arrays(igc_dist.attribute(Net(), data, prefetch=wish, **settings)) for wish in (True, False))
    assert one == two
    assert not all(main for _, main in data.read)


def test_reads_that_wait_cost_little() -> None:
    """Six reads of 20 ms beside six walks of 20 ms take little more than the longer of the two."""

    def slow() -> Iterator[int]:
        for n in range(6):
            time.sleep(0.02)
            yield n

    def walked(items: Iterator[int]) -> float:
        began = time.monotonic()
        for _ in items:
            time.sleep(0.02)
        return time.monotonic() - began

    assert min(walked(read_ahead(slow())) for _ in range(3)) < 0.8 * walked(slow())


# -- fixed shapes ------------------------------------------------------------------------------------------------------


class Seen(Net):
    """Rows of each forward, without and with a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: tuple[list[int], list[int]] = [], []

    def forward(self, x: Tensor) -> Tensor:
        self.rows[torch.is_grad_enabled()].append(len(x))
        return super().forward(x)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """`torch.compile` that hands back what it is given; the settings of its calls."""
    calls: list[Any] = []
    monkeypatch.setattr(
        torch,
        "compile",
        lambda call, **settings: (
            calls.append(settings) or (lambda *a, **k: (calls.append(len(a[0])), call(*a, **k))[1])
        ),
    )
    return calls


@pytest.mark.parametrize(("n", "micro_batch", "baseline"), [(23, 6, None), (7, 2, 3), (23, 40, baselines.Resampled(3))])
def test_a_compiled_forward_sees_one_shape_in_each_pass(
    n: int, micro_batch: int, baseline: Any, uncompiled: list[Any]
) -> None:
    """Last batches of folds, last points of walks and baselines are filled up, and what fills them up is counted
    nowhere."""
    settings: dict[str, Any] = {
        "n_steps": 5,
        "n_folds": 3,
        "micro_batch": micro_batch,
        "samples": True,
        "baseline": baseline,
    }
    seen, plain = Seen(), igc_dist.attribute(Net(), Rows(n), **settings)
    found = igc_dist.attribute(seen, Rows(n), compiled=True, **settings)
    assert {"dynamic": False} in uncompiled
    compiled = [call for call in uncompiled if isinstance(call, int)]
    assert len(compiled) > 6
    first, walks = ({*rows[-1:]} for rows in seen.rows)
    assert {*compiled} == first | walks  # the first look, at a few samples, is not compiled
    spec = found.attrs["spec"]["plan"]
    (rows,) = walks
    assert rows == spec["samples_per_batch"] * spec["points_per_batch"]
    assert first == {min(rows, spec["fold_size"])}  # pass 1 takes a fold at a time
    for path in (
        "x/igc",
        "x/igc_se",
        "correlation",
        "samples/x/attribution",
        "samples/prediction",
        "samples/prediction_baseline",
    ):
        torch.testing.assert_close(
            torch.from_numpy(found[path].values), torch.from_numpy(plain[path].values), rtol=1e-4, atol=1e-5
        )
    assert found["n"].values.tolist() == [n, n]


@pytest.mark.slow
def test_each_pass_is_compiled_once() -> None:
    """Two graphs for the whole run: one of the forward passes, one of the walks."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    plain, found = (
        igc_dist.attribute(Net(), Rows(23), n_steps=5, n_folds=3, micro_batch=6, compiled=wish)
        for wish in (False, True)
    )
    assert counters["stats"]["unique_graphs"] == 2
    torch.testing.assert_close(
        torch.from_numpy(found["x/igc"].values), torch.from_numpy(plain["x/igc"].values), rtol=1e-4, atol=1e-5
    )


def test_items_that_are_no_pair_are_refused_from_the_thread_too() -> None:
    class Odd(Dataset[Any]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            return torch.zeros(2) if index == 3 else (torch.zeros(2), torch.zeros(1))

    with pytest.raises((DataError, TypeError)):
        list(Source(Odd()).batches(range(4), 1))
