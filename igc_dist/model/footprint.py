"""Memory of one forward and backward pass, measured on the real model with a few rows."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from igc_dist.model.dispatch import Operators


class Peak(Operators):
    """Peak bytes of tensors that were created inside the block and are alive at the same time, on any device.

    Counts storages, so views are free. Scratch memory inside an operator is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._seen: set[int] = set()

    def seen(self, func: Any, args: Any, kwargs: Any) -> Any:
        before = {id_of(_held(t)) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = func(*args, **kwargs)
        for tensor in map(_held, tree_leaves(result)):
            if isinstance(tensor, torch.Tensor) and id_of(tensor) not in self._seen | before:
                self._enter(tensor.untyped_storage())
        return result

    def _enter(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._seen.add(key)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._leave, key, size)

    def _leave(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.alive -= size


def _held(leaf: Any) -> Any:
    """What this rank holds of a tensor that several ranks hold together (a DTensor)."""
    return getattr(leaf, "_local_tensor", leaf)


def id_of(tensor: torch.Tensor) -> int:
    """Identity of a tensor's storage."""
    return tensor.untyped_storage()._cdata


def peak_of(work: Callable[[], Any]) -> int:
    """Peak bytes of the tensors that `work` creates."""
    with Peak() as peak:
        work()
    return peak.peak


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory for a tensor is missing, on an accelerator or the host.

    Torch has no single type for such errors.
    """
    words = str(error).lower()
    said = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(w in words for w in said)
    )
