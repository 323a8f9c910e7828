"""Data sets addressed by global index.

The contract: a map-style data set (`__len__` and `__getitem__`) with items ``(x, y)`` or ``((x1, x2, ...), y)``. An
index must give the same item each time. Every index is read once; nothing is dropped, repeated or padded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Subset, TensorDataset, default_collate

from igc_dist.data.loaders import chosen
from igc_dist.records import ConfigError, DataError
from igc_dist.tensors import Batch, Tensors

T = TypeVar("T")


class Source:
    """A data set, its collate function and its loader settings.

    `num_workers`: the number of processes that read. With 0 workers and `prefetch`, a thread reads the next batch while
    the current one is walked. This hides the time of reads that wait for a disk or decode an image. There is one read
    at a time, so a data set need not be thread-safe. It fails only if it must be used in the thread that made it (as an
    sqlite3 connection must).
    """

    def __init__(
        self,
        dataset: Any,
        collate: Callable[[list[Any]], Any] = default_collate,
        num_workers: int = 0,
        prefetch: bool = True,
    ) -> None:
        if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
            raise DataError(
                f"data of type {type(dataset).__name__} cannot be addressed by index: give a map-style dataset with "
                "__len__ and "
                "__getitem__ (an iterable one can be listed first: list(dataset))"
            )
        if num_workers < 0:
            raise ConfigError(f"data.num_workers={num_workers}: give 0 (load in the main process) or more")
        self.dataset, self.collate, self.num_workers = dataset, collate, num_workers
        self.waited = 0.0  # seconds spent waiting for a batch
        # workers already read ahead, and data in memory need no read
        self.ahead = prefetch and num_workers == 0 and not isinstance(dataset, _Arrays | TensorDataset)
        if len(self) == 0:
            raise DataError(f"data set {type(dataset).__name__} is empty: len() is 0, at least 1 sample is needed")

    def __len__(self) -> int:
        return len(self.dataset)

    def fetch(self, indices: Sequence[int]) -> Batch:
        """The samples at `indices` as one batch, in this order, loaded in this process."""
        with _READING:
            return self._batch(self.collate([self.dataset[int(i)] for i in indices]), indices)

    def batches(self, indices: Sequence[int], size: int, pin: bool = False) -> Iterator[Batch]:
        """The samples at `indices` in this order, `size` at a time; the last batch may be smaller.

        `pin`: put batches in page-locked memory, from which copies to a CUDA device run in parallel with the walk.
        """
        return self.grouped(
            [[int(i) for i in indices[start : start + size]] for start in range(0, len(indices), size)], pin
        )

    def grouped(self, cuts: Sequence[list[int]], pin: bool = False) -> Iterator[Batch]:
        """The samples of each cut as a batch."""
        loader = DataLoader(
            self.dataset,
            batch_sampler=cuts,
            num_workers=self.num_workers,
            collate_fn=self.collate,
            pin_memory=pin,
            generator=torch.Generator(),  # a loader without one draws from torch's global generator
        )
        batches = (self._batch(item, cut) for cut, item in zip(cuts, loader, strict=True))
        with closing(read_ahead(batches) if self.ahead and len(cuts) > 1 else batches) as coming:
            while True:
                began = time.perf_counter()
                batch = next(coming, None)
                self.waited += time.perf_counter() - began
                if batch is None:
                    return
                yield batch

    def _batch(self, item: Any, indices: Sequence[int]) -> Batch:
        if not isinstance(item, list | tuple) or len(item) != 2:
            got = (
                f"a {type(item).__name__} of {len(item)}"
                if isinstance(item, list | tuple)
                else f"a {type(item).__name__}"
            )
            raise DataError(
                f"data set item is {got}: it must be a pair (x, y), or ((x1, x2, ...), y) for several inputs"
            )
        x, y = item
        inputs: Tensors = tuple(x) if isinstance(x, list | tuple) else (x,)
        for name, value in [*((f"x[{i}]", v) for i, v in enumerate(inputs)), ("y", y)]:
            if not isinstance(value, Tensor):
                raise DataError(
                    f"data set item: {name} collates to {type(value).__name__}, expected a tensor; give arrays, "
                    "tensors or numbers"
                )
            if value.shape[:1] != (len(indices),):
                raise DataError(
                    f"data set item: {name} collates to shape {tuple(value.shape)}, expected {len(indices)} rows"
                )
        return Batch(np.asarray(indices, dtype=np.int64), tuple(map(_plain, inputs)), _plain(y))

    def column(self, wish: Any, name: str) -> np.ndarray:
        """One value per sample: an array, or the name of an attribute (or column) of the data set that holds them.

        Looks through `Subset`s. Raises `DataError` if there is none, or if its length is not that of the data set.
        """
        values = _attribute(self.dataset, wish) if isinstance(wish, str) else wish
        if values is None:
            there = [
                key
                for key, value in vars(self.dataset).items()
                if hasattr(value, "__len__") and len(value) == len(self)
            ]
            raise DataError(
                f"{name}={wish!r}: the data set {type(self.dataset).__name__} has no such attribute with one value "
                "per sample" + (f"; it has {', '.join(map(repr, there))}" if there else ": give an array")
            )
        found = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
        if found.shape != (len(self),):
            raise DataError(f"{name} has shape {found.shape}: expected one value for each of the {len(self)} samples")
        return found

    def check_deterministic(self) -> None:
        """Read a few indices twice. Raises `DataError` if they differ: a read must not depend on earlier reads."""
        for index in sorted({0, len(self) // 2, len(self) - 1}):
            one, two = self.fetch([index]), self.fetch([index])
            for name, a, b in zip(
                (*input_names(len(one.inputs)), "y"), (*one.inputs, one.target), (*two.inputs, two.target), strict=True
            ):
                if a.shape != b.shape or not torch.equal(a.nan_to_num(), b.nan_to_num()):
                    raise DataError(
                        f"data set gives another {name} each time index {index} is read: results could not be "
                        "reproduced or resumed. "
                        "Switch random augmentation off, or seed it by the index"
                    )


def _plain(x: Tensor) -> Tensor:
    """A tensor without a history, which may take part in a graph."""
    return x.clone() if x.is_inference() else x.detach()


_READING = threading.RLock()
"""Held while a data set is read: baselines may read samples of a data set while a thread reads ahead in it."""
_END = object()


def read_ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """Yield the same items, but a thread makes the next item while the current one is used.

    An exception in the thread is raised here, at the turn of its item. The thread ends with the last item, or when the
    iterator is closed. The thread works in the context of this one, as the numeric context of a run.
    """
    context = copy_context()

    def make() -> Any:
        with _READING:
            return next(items, _END)

    with ThreadPoolExecutor(1, thread_name_prefix="igc-dist-reads") as thread:
        item = make()
        while item is not _END:
            coming = thread.submit(context.run, make)
            yield item
            item = coming.result()


@dataclass(frozen=True)
class Sliced:
    """The slices of a data set: the slice number of each sample, and the label of each slice."""

    number: Int64[np.ndarray, " N"]
    labels: np.ndarray


MAX_SLICES = 256
"""The largest number of slices, as each has a state of its own. A column with more values is probably no label."""


def sliced(source: Source, wish: Any) -> Sliced | None:
    """Slices by labels: an array, or the name of an attribute of the data set. Raises `DataError`."""
    if wish is None:
        return None
    column = source.column(wish, "slices")
    if column.dtype.kind == "f" and np.isnan(column).any():
        raise DataError(f"slices: {int(np.isnan(column).sum())} samples have no label (NaN): give each one")
    if column.dtype.kind == "O":
        column = column.astype(str)
    labels, number = np.unique(column, return_inverse=True)
    if len(labels) > MAX_SLICES:
        raise DataError(
            f"slices: {len(labels)} different labels among {len(column)} samples, at most {MAX_SLICES}: group them "
            "first"
        )
    return Sliced(number.astype(np.int64), labels)


def weighted(source: Source, wish: Any) -> Float64[np.ndarray, " N"] | None:
    """Sample weights: an array, or the name of an attribute of the data set.

    Raises `DataError` unless they are finite and at least 0.
    """
    if wish is None:
        return None
    column = source.column(wish, "weights")
    try:
        column = column.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"weights of type {column.dtype}: give numbers") from error
    wrong = ~np.isfinite(column) | (column < 0)
    if wrong.any():
        n = int(np.flatnonzero(wrong)[0])
        raise DataError(f"weights: sample {n} has {column[n]}, weights are finite and at least 0")
    if not column.any():
        raise DataError("weights: all are 0")
    return column


def _attribute(dataset: Any, name: str) -> Any:
    """An attribute or a named column of a data set; for a `Subset`, only its rows."""
    if isinstance(dataset, Subset):
        values = _attribute(dataset.dataset, name)
        return None if values is None else np.asarray(values)[np.asarray(dataset.indices)]
    if name in getattr(dataset, "column_names", ()):
        return dataset[name]
    return getattr(dataset, name, None)


def input_names(n_inputs: int) -> tuple[str, ...]:
    """Names of the inputs in the store: x, x1, x2, ..."""
    return ("x", *(f"x{i}" for i in range(1, n_inputs)))


def ensure(data: Any, num_workers: int = 0, stage: str = "test", prefetch: bool = True) -> Source:
    """Coerce the user's data to a `Source`.

    Takes a map-style dataset, a pair of arrays ``(x, y)`` or ``((x1, x2), y)``, a `DataLoader` (its dataset, collate
    function and the samples of its sampler are used, see `loaders.chosen`; its batch size is not) or a
    `LightningDataModule` (the loader ``{stage}_dataloader``).
    """
    if isinstance(data, Source):
        return data
    stages = ("train", "val", "test", "predict")
    if hasattr(data, "prepare_data") and hasattr(data, "setup"):
        if stage not in stages:
            raise ConfigError(f"data.stage={stage!r}: choose one of {', '.join(stages)}")
        data.prepare_data()
        data.setup({"train": "fit", "val": "validate"}.get(stage, stage))
        data = getattr(data, f"{stage}_dataloader")()
    if isinstance(data, DataLoader):
        return Source(chosen(data), data.collate_fn, num_workers or data.num_workers, prefetch)
    if isinstance(data, tuple) and len(data) == 2:
        x, y = data
        return Source(_Arrays(tuple(x) if isinstance(x, tuple) else x, y), num_workers=num_workers)
    return Source(data, num_workers=num_workers, prefetch=prefetch)


class _Arrays(torch.utils.data.Dataset[Any]):
    """Arrays in memory as a map-style data set."""

    def __init__(self, x: Any, y: Any) -> None:
        arrays = [torch.as_tensor(array) for array in ((*x, y) if isinstance(x, tuple) else (x, y))]
        lengths = {len(array) for array in arrays if array.ndim}
        if len(lengths) != 1 or any(array.ndim == 0 for array in arrays):
            raise DataError(
                f"arrays of shapes {[tuple(a.shape) for a in arrays]} do not pair up: all must have the same number "
                "of rows"
            )
        self.rows, self.single = TensorDataset(*arrays), not isinstance(x, tuple)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        *x, y = self.rows[index]
        return (x[0] if self.single else tuple(x)), y
