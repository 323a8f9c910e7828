"""How samples are read and put into batches: in this process, by a thread that reads ahead, or by worker processes."""

from __future__ import annotations

import pickle
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from igc_dist.data.items import plain
from igc_dist.data.label_maps import LabelMaps, maps_of
from igc_dist.data.pairs import stacked
from igc_dist.data.samples import Fields, first_line, pair, wrong_with
from igc_dist.records import ConfigError, DataError, IgcError

T = TypeVar("T")

PASSED = (IgcError, MemoryError, torch.OutOfMemoryError)
"""Errors in a read that do not come from the sample: a stop by a signal, and memory that does not suffice."""


@dataclass(frozen=True)
class Fault:
    """Why a sample cannot be read, or samples cannot be put into a batch.

    It is returned and not raised: an error from a worker would come as the text of its traceback.
    """

    text: str
    error: Exception | None = None
    """The cause; None if a worker found it, as it need not be picklable."""

    def __reduce__(self) -> Any:
        return Fault, (self.text,)


class Read(NamedTuple):
    """Samples that were read together: the batch that the collate function made, or None where it could not.

    `faults`: the samples that cannot be read, by their positions. Another sample is in their place. `wrong`: why there
    is no batch, although samples were read. `maps`: the label maps, if they are read too.
    """

    indices: tuple[int, ...]
    batch: Any
    faults: dict[int, Fault]
    wrong: Fault | None = None
    maps: Tensor | None = None


@dataclass(frozen=True)
class Reading(Dataset[Any]):
    """A data set and its collate function; it can be sent to workers.

    `skip`: a sample that cannot be read is left out. `fields`: the keys of x and y, if samples are dicts. `maps`: the
    label maps that are read with the samples; a sample whose map cannot be read cannot be read.
    """

    dataset: Any
    collate: Callable[[list[Any]], Any] = default_collate
    skip: bool = False
    fields: Fields | None = None
    maps: LabelMaps | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: Sequence[int]) -> Read:
        """Read samples and put them into a batch. A `DataLoader` calls this."""
        read = self._read(indices)
        if self.maps is None or read.batch is None:
            return read
        maps, wrong = maps_of(self.maps, read)
        faults = read.faults | {n: Fault(first_line(error), error) for n, error in wrong.items()}
        return read._replace(faults=faults, maps=maps)

    def _read(self, indices: Sequence[int]) -> Read:
        """The samples without label maps."""
        wished = tuple(indices)
        if (batch := self._stacked(indices)) is not None:
            return Read(wished, batch, {})
        items = [Fault("the data set gives None") if item is None else item for item in self._items(indices)]
        faults = {n: item for n, item in enumerate(items) if isinstance(item, Fault)}
        if faults and not self.skip:
            return Read(wished, None, faults)
        try:
            if faults:
                spare = self._spare(items, wished[-1])
                items = [spare if isinstance(item, Fault) else item for item in items]
            with torch.no_grad():  # a tensor with a history cannot leave a worker
                return Read(wished, self._joined(items, wished), faults)
        except DataError as error:
            return Read(wished, None, faults, Fault(str(error)))
        except PASSED:
            raise
        except Exception as error:
            return Read(wished, None, faults, Fault(wrong_with(items, wished, error), error))

    def _stacked(self, indices: Sequence[int]) -> Any:
        """The batch of data that need not be taken apart for it, or None: there are none, or a row cannot be read."""
        if self.collate is not default_collate or self.fields is not None:
            return None
        try:
            with torch.no_grad():
                return stacked(self.dataset, indices)
        except PASSED:
            raise
        except Exception:
            return None

    def _items(self, indices: Sequence[int]) -> list[Any]:
        many = getattr(self.dataset, "__getitems__", None)
        if callable(many):
            try:
                return list(many([*indices]))
            except PASSED:
                raise
            except Exception:
                pass
        return [self._item(index) for index in indices]

    def _item(self, index: int) -> Any:
        try:
            return self.dataset[int(index)]
        except PASSED:
            raise
        except Exception as error:
            return Fault(f"{type(error).__name__}: {first_line(error)}", error)

    def _spare(self, items: Sequence[Any], last: int) -> Any:
        """A sample to take the place of those that cannot be read; if need be, the next one that can be."""
        for item in items:
            if not isinstance(item, Fault):
                return item
        fault = items[0]
        for step in range(1, len(self)):
            item = self._item((last + step) % len(self))
            if item is not None and not isinstance(item, Fault):
                return item
        raise DataError(f"no sample can be read: {fault.text}")

    def _joined(self, items: list[Any], indices: Sequence[int]) -> Any:
        """The batch; the keys of a dict are taken before the default function collates them, or else after."""
        if self.collate is not default_collate:
            return pair(self.collate(items), self.fields, "the batch of the collate function")
        named = ((f"sample {index}", item) for index, item in zip(indices, items, strict=True))
        return default_collate(plain([pair(item, self.fields, name) for name, item in named], indices))


@dataclass
class Cuts:
    """The samples of each batch to come, for a loader that lives longer than one list of them."""

    now: Sequence[list[int]] = ()

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.now)

    def __len__(self) -> int:
        return len(self.now)


def as_read(read: Any) -> Any:
    """What a `DataLoader` is told to do with what `Reading` has read: nothing."""
    return read


@dataclass
class Loader:
    """The one loader of a source: its workers are started once, and read for all shards of both passes.

    `settings`: arguments of a `DataLoader` about its workers.
    """

    reading: Reading
    num_workers: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    _loader: DataLoader[Any] | None = None
    _cuts: Cuts = field(default_factory=Cuts)

    def read(self, cuts: Sequence[list[int]], pin: bool) -> Iterator[Read]:
        """Read the samples of each cut."""
        if not self.num_workers and not pin:  # a loader takes longer to begin than a few small samples take to be read
            yield from map(self.reading.__getitems__, cuts)
            return
        if self._loader is None or self._loader.pin_memory is not pin:
            self.close()
            self._loader = DataLoader(
                self.reading,
                batch_sampler=self._cuts,
                collate_fn=as_read,
                pin_memory=pin,
                generator=torch.Generator(),  # a loader without one draws from torch's global generator
                num_workers=self.num_workers,
                persistent_workers=self.num_workers > 0,
                **self._of_workers() if self.num_workers else {},
            )
        self._cuts.now = cuts
        coming = self._coming(self._loader)
        for _ in cuts:
            if self._cuts.now is not cuts:
                raise RuntimeError("a source was read again before its last batches were read to the end")
            yield next(coming)

    def _of_workers(self) -> dict[str, Any]:
        begin = partial(_begin, torch.get_default_dtype(), self.settings.get("worker_init_fn"))
        return {**self.settings, "worker_init_fn": begin}

    def _coming(self, loader: DataLoader[Any]) -> Iterator[Read]:
        try:
            yield from _started(loader)
        except PASSED as error:
            if not str(error).startswith("Caught "):
                raise
            told = str(error).strip().splitlines()[-1]  # of the traceback in a worker
            raise type(error)(told.partition(": ")[2]) from None
        except Exception as error:
            said = str(error)
            if self.num_workers and said.startswith(("DataLoader", "Caught ")):
                raise DataError(of_worker(said)) from None
            if self.num_workers and isinstance(error, EOFError | OSError):  # it ended before its batch was taken over
                raise DataError(of_worker(f"{type(error).__name__} {said}".strip())) from None
            if self.num_workers and "daemonic" in said:
                raise ConfigError(
                    f"num_workers={self.num_workers}: a daemonic process, such as a worker of a pool, cannot start "
                    "workers: set num_workers=0"
                ) from error
            if self.num_workers and isinstance(error, AttributeError | TypeError | pickle.PicklingError):
                raise DataError(
                    f"the data set cannot be sent to worker processes ({first_line(error)}): define it and its "
                    "functions at the top of a module, or set num_workers=0"
                ) from error
            raise

    def close(self) -> None:
        """End the workers. Later reads start new ones."""
        loader, self._loader = self._loader, None
        iterator = getattr(loader, "_iterator", None)
        if iterator is not None:
            iterator._shutdown_workers()  # else they live as long as any traceback that refers to them


def _begin(dtype: torch.dtype, given: Callable[[int], None] | None, worker: int) -> None:
    """Begin a worker with the default type of the run: one that is spawned has torch's own."""
    torch.set_default_dtype(dtype)
    if given is not None:
        given(worker)


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Got pickle error")  # it comes beside the error
        return iter(loader)


def of_worker(said: str) -> str:
    """What a `DataLoader` says about its workers, without their tracebacks."""
    lines = said.strip().splitlines()
    if "timed out" in lines[0]:
        return "no worker process gave a batch within the timeout of the loader: raise it, or set timeout=0 (no limit)"
    if lines[0].startswith("Caught "):
        return f"a worker process that reads data failed: {lines[-1]}"
    return (
        f"a worker process that reads data has ended ({lines[0]}): it may have run out of memory; if workers are not "
        "forked, a script must start its work under if __name__ == '__main__'. Set num_workers=0 to read without them"
    )


READING = threading.RLock()
"""Held while a data set is read: baselines may read samples of a data set while a thread reads ahead in it."""
_END = object()


def read_ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """Yield the same items, but a thread makes the next item while the current one is used.

    An exception in the thread is raised here, at the turn of its item. The thread ends with the last item, or when the
    iterator is closed. The thread works in the context of this one, as the numeric context of a run.
    """
    context = copy_context()

    def make() -> Any:
        with READING:
            return next(items, _END)

    with ThreadPoolExecutor(1, thread_name_prefix="igc-dist-reads") as thread:
        item = make()
        while item is not _END:
            coming = thread.submit(context.run, make)
            yield item
            item = coming.result()
