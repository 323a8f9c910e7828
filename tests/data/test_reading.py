"""Reading: the workers of a run are started once, with the settings of the user's loader, and end with the run; what is
wrong with a sample is said with its index."""

from __future__ import annotations

import io
import multiprocessing
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, default_collate

import igc_dist
from igc_dist import baselines, compat, report
from igc_dist.data import Source, ensure
from igc_dist.records import DataError
from igc_dist.upkeep import verify
from tests.ranks import Net, Rows, arrays, run_ranks, values

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


def refusing(worker: int) -> None:
    raise ValueError("no such file")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"worker_init_fn": refusing}, "a worker process that reads data failed: ValueError: no such file"),
        ({"timeout": 0.1}, "no worker process gave a batch within the timeout of the loader"),
    ],
)
def test_workers_that_fail_have_one_line(settings: dict[str, Any], said: str) -> None:
    source = ensure(DataLoader(Rows(4, pause=0.3), num_workers=1, **settings))
    with source.opened(), pytest.raises(DataError) as caught:
        list(source.batches(range(4), 4))
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_data_that_cannot_be_sent_to_workers() -> None:
    class Local(Rows):
        """Cannot be pickled."""

    given = DataLoader(Local(12), num_workers=1, multiprocessing_context="forkserver")
    with pytest.raises(DataError, match=r"cannot be sent to worker processes .*Local.*num_workers=0"):
        igc_dist.attribute(Net(), given, **SETTINGS)


def _with_workers() -> None:
    igc_dist.attribute(Net(), Rows(12), num_workers=1, **SETTINGS)


def test_a_process_that_may_not_start_workers() -> None:
    (ended,) = run_ranks(1, _with_workers)  # our ranks are daemonic, as the workers of a pool are
    assert ended.error == "ConfigError"
    assert "cannot start workers: set num_workers=0" in ended.message


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


@pytest.mark.parametrize("num_workers", [0, 1])
def test_our_own_errors_keep_their_words(num_workers: int) -> None:
    source = ensure(Files(broken=(2,), error=igc_dist.records.ModelError("no such embedding")), num_workers)
    with source.opened(), pytest.raises(igc_dist.records.ModelError, match=r"^no such embedding$"):
        list(source.batches(range(4), 2))


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


# -- samples that are left out -----------------------------------------------------------------------------------------

LEFT_OUT: dict[str, dict[str, Any]] = {
    "igc": {},
    "samples of the data": {"baseline": 3, "samples": True},
    "the mean": {"baseline": baselines.Mean()},
    "resampled, workers": {"baseline": baselines.Resampled(2), "num_workers": 1},
    "pairs": {"design": "pairs", "n_folds": 1},
    "forward": {"mode": "forward", "reduce": igc_dist.features.Total()},
}


@pytest.mark.parametrize("name", LEFT_OUT)
@pytest.mark.parametrize(
    "broken",
    [
        pytest.param((5,), id="one", marks=pytest.mark.slow),
        pytest.param((0, 1, 2, 3, 6, 11), id="those of the first look"),
    ],
)
def test_samples_that_cannot_be_read_are_left_out_and_listed(name: str, broken: tuple[int, ...]) -> None:
    """The numbers are those of the other samples, for what is not drawn from them."""
    settings = {**SETTINGS, "precision": "64-true", "on_bad_sample": "skip", **LEFT_OUT[name]}
    tree = igc_dist.attribute(Net(), Files(broken=broken), **settings)
    assert tree["n"].values.tolist() == [12 - len(broken)] * 2
    assert tree.attrs["skipped"] == [
        {"index": index, "reason": "it cannot be read", "path": f"photos/{index}.jpg"} for index in broken
    ]
    assert tree.attrs["spec"]["on_bad_sample"] == "skip"
    rest = Subset(Rows(12), [index for index in range(12) if index not in broken])
    others = igc_dist.attribute(Net(), rest, **settings)
    np.testing.assert_allclose(tree["correlation"], others["correlation"], rtol=1e-12)
    if name in ("igc", "the mean", "forward"):
        np.testing.assert_allclose(tree["x/igc"], others["x/igc"], rtol=1e-10)


def test_labels_and_integers_of_what_is_left_out_are_not_numbers() -> None:
    data = Files(broken=(4,))
    data.y = data.y.argmax(1)
    net = nn.Sequential(Net(), nn.Softmax(1))
    tree = igc_dist.attribute(net, data, on_bad_sample="skip", samples=True, **SETTINGS)
    kept = np.arange(12) != 4
    for table in (tree["samples/target"].values, tree["samples/prediction"].values, _scores(tree)):
        assert np.isnan(table[4]).all()
        assert np.isfinite(table[kept]).all()
    p = net(data.x).detach().numpy()[np.arange(12), data.y]
    np.testing.assert_allclose(_scores(tree)[kept, 1], p[kept], rtol=1e-5)  # outputs are probabilities still


def _scores(tree: Any) -> np.ndarray:
    """Correctness and probability of the label, in the order of the data."""
    known = tree["known"]
    return np.stack([known["correct"], known["confidence"]], 1)[np.argsort(known["index"].values)]


def _skipped(store: Path) -> bytes:
    settings = {**SETTINGS, "on_bad_sample": "skip", "baseline": baselines.Resampled(2)}
    return igc_dist.attribute(Net(), Files(broken=(0, 5, 7)), store=store, **settings)["x/igc"].values.tobytes()


def test_the_same_bits_on_two_ranks_and_in_a_store_that_proves_itself(tmp_path: Path) -> None:
    alone = _skipped(tmp_path / "one.zarr")
    assert values(run_ranks(2, _skipped, tmp_path / "two.zarr")) == [alone] * 2
    tree, said = igc_dist.open(tmp_path / "two.zarr"), io.StringIO()
    assert tree.attrs["skipped"] == igc_dist.open(tmp_path / "one.zarr").attrs["skipped"]
    Console(file=said, width=200).print(report.summary_table(tree))
    told = " ".join(said.getvalue().split())
    assert "3 samples were left out: sample 0: it cannot be read: photos/0.jpg; sample 5" in told
    assert "it cannot be read: photos/7.jpg" in report.write_report(tree, tmp_path).read_text()
    assert verify(tmp_path / "two.zarr").lines == []


class Fading(Rows):
    """Sample 5 can be read once."""

    reads = 0

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.reads += index == 5
        if index == 5 and self.reads > 1:
            raise OSError("gone")
        return super().__getitem__(index)


@pytest.mark.parametrize("settings", [{}, {"design": "pairs"}, {"baseline": 12}])
def test_a_sample_that_fades_away_between_the_passes_is_an_error(settings: dict[str, Any]) -> None:
    """It was counted in pass 1, so it cannot be left out of pass 2."""
    with pytest.raises(DataError, match="sample 5 could be read before, but not now: OSError: gone"):
        igc_dist.attribute(Net(), Fading(12), on_bad_sample="skip", **{**SETTINGS, "n_folds": 1, **settings})


def test_no_sample_can_be_read() -> None:
    with pytest.raises(DataError, match="no sample can be read: OSError"):
        igc_dist.attribute(Net(), Files(broken=tuple(range(12))), on_bad_sample="skip", **SETTINGS)
