"""Data sets addressed by global index.

The contract: a map-style data set (`__len__` and `__getitem__`) with items ``(x, y)`` or ``((x1, x2, ...), y)``. An
index must give the same item each time. Every index is read once; nothing is dropped, repeated or padded. A value of y
that is masked, None or NA is NaN, a missing target; such a value of x is an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, default_collate

from igc_dist.arrays import entries, is_array, tensor
from igc_dist.data.label_maps import LabelMaps
from igc_dist.data.loaders import chosen, loader_of, one_data_set
from igc_dist.data.pairs import in_memory, paired
from igc_dist.data.reading import READING, Loader, Read, Reading, of_worker, read_ahead
from igc_dist.data.samples import advice, fields_of, kind_of, other_shape, pair, parts, path_of, samples
from igc_dist.data.subsets import attribute, whole
from igc_dist.records import ConfigError, DataError
from igc_dist.tensors import Batch


class Source:
    """A data set, its collate function and its loader settings.

    `num_workers`: the number of processes that read; they are started once and live until `close`. `workers`: arguments
    of a `DataLoader` about them (`WORKERS`). With 0 workers and `prefetch`, a thread reads the next batch while the
    current one is walked. This hides the time of reads that wait for a disk or decode an image. There is one read at a
    time, so a data set need not be thread-safe. It fails only if it must be used in the thread that made it (as an
    sqlite3 connection must).

    `fields`: the keys of x and of y, for samples that are dicts. `skip`: a sample that cannot be read is left out;
    otherwise it is a `DataError`.
    """

    def __init__(
        self,
        dataset: Any,
        collate: Callable[[list[Any]], Any] = default_collate,
        num_workers: int = 0,
        prefetch: bool = True,
        workers: Mapping[str, Any] | None = None,
        fields: Any = None,
        skip: bool = False,
    ) -> None:
        kind = type(dataset).__name__
        if isinstance(dataset, IterableDataset) or not (
            hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
        ):
            raise DataError(
                f"data of type {kind} cannot be addressed by index: give a map-style dataset with __len__ and "
                "__getitem__ (an iterable one can be listed first: list(dataset))"
            )
        if num_workers < 0:
            raise ConfigError(f"data.num_workers={num_workers}: give 0 (load in the main process) or more")
        self.dataset, self.num_workers, self.prefetch = dataset, num_workers, prefetch
        self.reading = Reading(dataset, collate, skip, fields_of(fields))
        self.workers = dict(workers or {})
        self.waited = 0.0  # seconds spent waiting for a batch
        # workers already read ahead, and data in memory need no read
        self.ahead = prefetch and num_workers == 0 and not in_memory(dataset)
        self._labelled = self.reading  # as batches are read
        self._loader = Loader(self.reading, num_workers, self.workers)
        self._seen: dict[str, tuple[int, tuple[int, ...]]] = {}
        if len(self) == 0:
            raise DataError(f"data set {kind} is empty: len() is 0, at least 1 sample is needed")

    def __len__(self) -> int:
        return len(self.dataset)

    def part(self, indices: Sequence[int]) -> Source:
        """The samples at `indices` as a source of its own, with the same settings."""
        r = self.reading
        some = Source(
            Subset(self.dataset, indices), r.collate, self.num_workers, self.prefetch, self.workers, r.fields, r.skip
        )
        return some if self.maps is None else some.labelled(self.maps.part(indices))

    def labelled(self, maps: LabelMaps) -> Source:
        """The same samples; batches also bring the label maps `maps`, as `fetch` and `look` do if they are asked to."""
        other = copy(self)
        other._labelled = replace(self.reading, maps=maps)
        other._loader = Loader(other._labelled, self.num_workers, self.workers)
        return other

    def fetch(self, indices: Sequence[int], maps: bool = False) -> Batch:
        """The samples at `indices`, which were read before, as one batch, in this order, loaded in this process."""
        return self.complete(self.look(indices, maps))

    def look(self, indices: Sequence[int], maps: bool = False) -> Batch:
        """Like `fetch`, but with `skip` another sample is in the place of one that cannot be read (`Batch.unread`)."""
        with READING:
            return self._batch((self._labelled if maps else self.reading).__getitems__([int(i) for i in indices]))

    def complete(self, batch: Batch, needed: Bool[np.ndarray, " n"] | None = None) -> Batch:
        """The batch. Raises `DataError` if a sample that is `needed` (None: every one) was not read in it."""
        for n, fault in batch.unread.items():
            if needed is None or needed[n]:
                raise DataError(f"{self.title(int(batch.index[n]))} could be read before, but not now: {fault}")
        return batch

    def batches(self, indices: Sequence[int], size: int, pin: bool = False) -> Iterator[Batch]:
        """The samples at `indices` in this order, `size` at a time; the last batch may be smaller.

        `pin`: put batches in page-locked memory, from which copies to a CUDA device run in parallel with the walk.
        """
        return self.grouped(
            [[int(i) for i in indices[start : start + size]] for start in range(0, len(indices), size)], pin
        )

    def grouped(self, cuts: Sequence[list[int]], pin: bool = False) -> Iterator[Batch]:
        """The samples of each cut as a batch. With `skip`, those that cannot be read have no numbers but NaN, or 0."""
        batches = (_blanked(self._batch(read)) for read in self._loader.read(cuts, pin))
        with closing(read_ahead(batches)) if self.ahead and len(cuts) > 1 else nullcontext(batches) as coming:
            while True:
                began = time.perf_counter()
                batch = next(coming, None)
                self.waited += time.perf_counter() - began
                if batch is None:
                    return
                yield batch

    @contextmanager
    def opened(self) -> Iterator[None]:
        """The workers end with the block. Raises `DataError` if a worker has ended before."""
        try:
            with closing(self._loader):
                yield
        except RuntimeError as error:  # torch raises it wherever the main thread is when a worker ends
            if not str(error).startswith("DataLoader worker"):
                raise
            raise DataError(of_worker(str(error))) from None

    def path(self, index: int) -> str | None:
        """The path of a sample, if the data set tells it."""
        return path_of(self.dataset, index)

    @property
    def maps(self) -> LabelMaps | None:
        """The label maps that batches bring."""
        return self._labelled.maps

    @property
    def identity(self) -> Any:
        """What all samples are made of, if the data set tells it (as `ImageFolder` does): part of a run's spec."""
        return getattr(whole(self.dataset), "identity", None)

    @property
    def classes(self) -> list[str] | None:
        """The names of the labels, in their order, if the data set has them as `classes`, as torchvision's have."""
        found = getattr(whole(self.dataset), "classes", None)
        names = list(map(str, found)) if isinstance(found, list | tuple) else []
        return names if names and list(found or ()) == names and len({*names}) == len(names) else None

    def title(self, index: int) -> str:
        """A sample by its index and, if the data set tells it, its path."""
        path = self.path(index)
        return f"sample {index}" if path is None else f"sample {index} ({path})"

    def _batch(self, read: Read) -> Batch:
        for n, fault in read.faults.items():
            if not self.reading.skip:
                raise DataError(
                    f"{self.title(read.indices[n])} cannot be read: {fault.text}. Mend it, or set "
                    "on_bad_sample=skip to leave such samples out and list them"
                ) from fault.error
        if read.wrong is not None:
            raise DataError(read.wrong.text) from read.wrong.error
        *inputs, y = (self._checked(name, value, read.indices) for name, value in parts(*read.batch))
        unread = {n: fault.text for n, fault in read.faults.items()}
        return Batch(np.asarray(read.indices, dtype=np.int64), tuple(inputs), y, unread, read.maps)

    def _checked(self, name: str, value: Any, indices: Sequence[int]) -> Tensor:
        """A part of a batch as a tensor.

        Raises `DataError` unless it has a row, of the same shape, for each sample.
        """
        if not is_array(value):
            raise DataError(
                f"sample {indices[0]}: {name} collates to {kind_of(value)}, expected a tensor: {advice(value)}"
            )
        value = tensor(value, f"{samples(indices)}: {name}", gaps=name == "y")
        if value.shape[:1] != (len(indices),):
            raise DataError(
                f"{samples(indices)}: {name} collates to shape {tuple(value.shape)}, expected "
                f"{len(indices)} rows, one for each sample"
            )
        shape = tuple(value.shape[1:])
        other, expected = self._seen.setdefault(name, (indices[0], shape))
        if shape != expected:
            raise DataError(other_shape(name, indices[0], shape, other, expected))
        return value

    def column(self, wish: Any, name: str) -> tuple[np.ndarray, Bool[np.ndarray, " N"]]:
        """One value per sample, and where it is missing: an array, or the name of an attribute or column of the data.

        Looks through `Subset`s. Raises `DataError` if there is none, or if its length is not that of the data set.
        """
        values = attribute(self.dataset, wish) if isinstance(wish, str) else wish
        if values is None:
            attributes = getattr(self.dataset, "__dict__", {})  # a list has none
            there = [key for key, value in attributes.items() if hasattr(value, "__len__") and len(value) == len(self)]
            raise DataError(
                f"{name}={wish!r}: the data set {type(self.dataset).__name__} has no such attribute with one value "
                "per sample" + (f"; it has {', '.join(map(repr, there))}" if there else ": give an array")
            )
        found, missing = entries(values, name)
        if found.shape != (len(self),):
            raise DataError(f"{name} has shape {found.shape}: expected one value for each of the {len(self)} samples")
        return found, np.zeros(len(found), bool) if missing is None else missing

    def check_deterministic(self) -> None:
        """Read a few indices twice. Raises `DataError` if they differ: a read must not depend on earlier reads."""
        for index in sorted({0, len(self) // 2, len(self) - 1}):
            one, two = self.look([index]), self.look([index])
            for name, a, b in zip(
                (*input_names(len(one.inputs)), "y"), (*one.inputs, one.target), (*two.inputs, two.target), strict=True
            ):
                if a.shape != b.shape or not torch.equal(a.nan_to_num(), b.nan_to_num()):
                    raise DataError(
                        f"data set gives another {name} each time index {index} is read: results could not be "
                        "reproduced or resumed. "
                        "Switch random augmentation off, or seed it by the index"
                    )


def _blanked(batch: Batch) -> Batch:
    """The batch with NaN, or 0 for integers, in the rows that were not read: another sample is in their place."""
    if not batch.unread:
        return batch
    rows = [*batch.unread]

    def blank(values: Tensor) -> Tensor:
        values = values.clone()
        values[rows] = torch.nan if values.is_floating_point() else 0
        return values

    return replace(batch, inputs=tuple(map(blank, batch.inputs)), target=blank(batch.target))


def input_names(n_inputs: int) -> tuple[str, ...]:
    """Names of the inputs in the store: x, x1, x2, ..."""
    return ("x", *(f"x{i}" for i in range(1, n_inputs)))


WORKERS = ("worker_init_fn", "multiprocessing_context", "timeout", "prefetch_factor")
"""What a given `DataLoader` says about its workers, and what therefore holds for ours."""


def ensure(
    data: Any,
    num_workers: int = 0,
    stage: str = "test",
    prefetch: bool = True,
    fields: Any = None,
    on_bad_sample: str = "fail",
) -> Source:
    """Coerce the user's data to a `Source`.

    Takes a map-style dataset, a pair of arrays ``(x, y)`` or ``((x1, x2), y)``, in memory or not (`pairs.paired`), a
    `DataLoader` or a `LightningDataModule` (the loader ``{stage}_dataloader``). Of a loader, the dataset, the collate
    function, the samples of its sampler (see `loaders.chosen`) and the settings of its workers are used; its batch size
    is not, and memory is pinned if the device is a CUDA one. `fields`: the keys of x and of y, for samples that are
    dicts, or for a dict of arrays. `on_bad_sample`: fail, or skip samples that cannot be read. Raises `DataError` or
    `ConfigError`.
    """
    if isinstance(data, Source):
        return data
    if on_bad_sample not in ("fail", "skip"):
        raise ConfigError(
            f"on_bad_sample={on_bad_sample!r}: choose fail (with the sample's index) or skip (leave out and record)"
        )
    given: dict[str, Any] = {"fields": fields, "skip": on_bad_sample == "skip"}
    if hasattr(data, "prepare_data") and hasattr(data, "setup"):
        data = loader_of(data, stage)
    if isinstance(data, DataLoader):
        workers = {name: getattr(data, name) for name in WORKERS}
        if not data.num_workers:  # they are None then
            workers = {name: value for name, value in workers.items() if value is not None}
        return Source(chosen(data), data.collate_fn, num_workers or data.num_workers, prefetch, workers, **given)
    data = one_data_set(data)
    if isinstance(data, Mapping):
        data, given["fields"] = pair(data, fields_of(fields), "the data"), None
    if isinstance(data, tuple) and len(data) == 2:
        x, y = data
        return Source(paired(x, y), num_workers=num_workers, prefetch=prefetch, **given)
    return Source(data, num_workers=num_workers, prefetch=prefetch, **given)
