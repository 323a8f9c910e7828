"""Memory of one forward and backward pass, measured on the real model with a few rows."""

from __future__ import annotations

import ctypes
import resource
import sys
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """Peak bytes of tensors that were created inside the block and are alive at the same time, on any device.

    Counts storages, so views are free. Scratch memory inside an operator is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {id_of(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
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


def id_of(tensor: torch.Tensor) -> int:
    """Identity of a tensor's storage."""
    return tensor.untyped_storage()._cdata


def peak_of(work: Callable[[], Any]) -> int:
    """Peak bytes of the tensors that `work` creates."""
    with Peak() as peak:
        work()
    return peak.peak


def resident() -> int:
    """Bytes of host memory that this process holds now; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resident_peak()


def resident_peak() -> int:
    """Most bytes of host memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def keep_freed() -> None:
    """Let the C library keep the memory that the process frees, where it is glibc: a walk allocates the same tensors over and over.

    By default the top of the heap goes back to the system after each backward pass, and its pages are zeroed again for
    the next, which takes as long as the arithmetic of a small convolutional net. Sizes are those that glibc grows to by itself.
    """
    mallopt = getattr(_libc(), "mallopt", None)
    if mallopt is not None:
        mallopt(-3, MAPPED)  # M_MMAP_THRESHOLD
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        mallopt(-8, 1)  # M_ARENA_MAX: or each of zarr's threads would keep the largest chunk that it ever wrote


def give_back() -> None:
    """Hand freed memory back to the system, also from between tensors that live."""
    trim = getattr(_libc(), "malloc_trim", None)
    if trim is not None:
        trim(0)


MAPPED = 32 * 2**20
"""Bytes of a tensor from which on it has a memory map of its own: the most that glibc allows."""


def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory for a tensor is wanting, on an accelerator or the host: torch has no one type for that."""
    words = str(error).lower()
    said = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (isinstance(error, RuntimeError) and any(w in words for w in said))
