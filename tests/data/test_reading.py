"""Reading: the workers of a run are started once, with the settings of the user's loader, and end with the run; what is
wrong with a sample is said with its index."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, default_collate

import igc_dist
from igc_dist import compat
from igc_dist.data import Source, ensure
from igc_dist.records import DataError
from tests.ranks import Net, Rows, arrays

SETTINGS: dict[str, Any] = {"n_steps": 2, "n_folds": 3, "micro_batch": 2}


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


class Files(Rows):
    """Samples with paths, of which some cannot be read."""

    def __init__(self, n: int = 12, broken: tuple[int, ...] = (), error: Exception | None = None) -> None:
        super().__init__(n)
        self.samples = [(f"photos/{i}.jpg", 0) for i in range(n)]
        self.broken, self.error = broken, error or OSError("image file is truncated\n(see the manual)")

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index in self.broken:
            raise self.error
        return super().__getitem__(index)


class Dying(Rows):
    """Workers end without a word at sample 5."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == 5 and torch.utils.data.get_worker_info() is not None:
            os._exit(7)
        return super().__getitem__(index)


def started(log: Path, worker: int) -> None:
    with log.open("a") as file:
        file.write(f"{worker}\n")


def doubled(items: list[Any]) -> Any:
    x, y = default_collate(items)
    return 2 * x, y


# -- workers -----------------------------------------------------------------------------------------------------------


def test_workers_start_once_for_all_shards_and_both_passes(tmp_path: Path) -> None:
    log = tmp_path / "started"
    given = DataLoader(
        Rows(12), num_workers=1, worker_init_fn=partial(started, log), multiprocessing_context="forkserver"
    )
    found = igc_dist.attribute(Net(), given, **SETTINGS)
    assert log.read_text().split() == ["0"]
    assert arrays(found) == arrays(igc_dist.attribute(Net(), Rows(12), **SETTINGS))


def test_settings_of_a_given_loader_hold() -> None:
    context = multiprocessing.get_context("forkserver")
    given = DataLoader(
        Rows(12),
        num_workers=2,
        worker_init_fn=print,
        multiprocessing_context=context,
        collate_fn=doubled,
        timeout=40,
        prefetch_factor=3,
    )
    source = ensure(given)
    assert (source.num_workers, source.reading.collate) == (2, doubled)
    assert source.workers == {
        "worker_init_fn": print,
        "multiprocessing_context": context,
        "timeout": 40,
        "prefetch_factor": 3,
    }
    assert source.part([1, 2]).workers == source.workers
    shim = compat.IntGradCorr(Net(), Rows(12), {"num_workers": 2, "worker_init_fn": print, "prefetch_factor": 3})
    assert shim._source(None).workers == {**source.workers, "multiprocessing_context": None, "timeout": 0}


def test_samples_with_a_history_can_leave_a_worker() -> None:
    data, plain = Rows(12), Rows(12)
    data.x, data.y = data.x.requires_grad_() * 1, data.y.requires_grad_() * 1
    source = Source(data, num_workers=1)
    with source.opened():
        (batch,) = source.batches([3, 1], 2)
    assert torch.equal(batch.inputs[0], plain.x[[3, 1]])
    assert not batch.target.requires_grad


def test_batches_that_were_not_all_read_do_not_come_later() -> None:
    source = Source(Rows(12), num_workers=1)
    with source.opened():
        first = source.batches(range(12), 2)
        assert next(first).index.tolist() == [0, 1]
        assert [batch.index.tolist() for batch in source.batches([9, 3, 4], 2)] == [[9, 3], [4]]
        assert [batch.index.tolist() for batch in source.batches([7], 2)] == [[7]]


def test_interleaved_reads_are_an_error_and_never_mix() -> None:
    source = Source(Rows(12), num_workers=1)
    with source.opened():
        first = source.batches(range(12), 2)
        next(first)
        list(source.batches([9, 3, 4], 2))
        with pytest.raises(RuntimeError, match="read again before"):
            list(first)


def test_a_worker_that_ends_is_a_data_error() -> None:
    with pytest.raises(DataError, match=r"a worker process that reads data has ended.*num_workers=0"):
        igc_dist.attribute(Net(), Dying(12), num_workers=1, **SETTINGS)


def test_data_that_cannot_be_sent_to_workers() -> None:
    class Local(Rows):
        """Cannot be pickled."""

    given = DataLoader(Local(12), num_workers=1, multiprocessing_context="forkserver")
    with pytest.raises(DataError, match=r"cannot be sent to worker processes .*Local.*num_workers=0"):
        igc_dist.attribute(Net(), given, **SETTINGS)


# -- samples that cannot be read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("prefetch", [True, False])
def test_a_sample_that_cannot_be_read_has_its_index_and_path(num_workers: int, prefetch: bool) -> None:
    with pytest.raises(DataError) as caught:
        igc_dist.attribute(Net(), Files(broken=(5,)), num_workers=num_workers, prefetch=prefetch, **SETTINGS)
    assert str(caught.value).startswith("sample 5 (photos/5.jpg) cannot be read: OSError: image file is truncated. ")
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("error", [KeyError("x"), IndexError("out of range"), RuntimeError(), StopIteration()])
def test_every_error_of_a_data_set_is_one_of_ours(error: Exception) -> None:
    with pytest.raises(DataError, match=rf"sample 0 .* cannot be read: {type(error).__name__}"):
        ensure(Files(broken=(0,), error=error)).fetch([0])


def test_paths_are_found_through_parts() -> None:
    one, two = Files(4), Files(3, broken=(2,))
    parts: Dataset[Any] = ConcatDataset([Subset(one, [3, 1]), two])
    assert ensure(parts).title(1) == "sample 1 (photos/1.jpg)"
    with pytest.raises(DataError, match=r"sample 4 \(photos/2.jpg\) cannot be read"):
        ensure(parts).fetch([0, 4])
    assert ensure(Rows(3)).title(1) == "sample 1"


def test_memory_that_does_not_suffice_is_no_fault_of_the_sample() -> None:
    with pytest.raises(MemoryError):
        ensure(Files(broken=(1,), error=MemoryError())).fetch([1])
