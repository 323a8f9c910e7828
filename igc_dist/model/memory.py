"""Host memory of this process: how much it holds and how it is returned. No torch, as watchers of a run use it too."""

from __future__ import annotations

import ctypes
import resource
import sys


def resident() -> int:
    """Bytes of host memory that this process holds now; 0 if the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resident_peak()


def resident_peak() -> int:
    """Most bytes of host memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def keep_freed() -> None:
    """Let glibc, if it is the C library, keep freed memory: a walk allocates the same tensors again and again.

    By default the top of the heap returns to the system after each backward pass, and its pages are zeroed for the
    next pass. This takes as long as the arithmetic of a small convolutional net. The sizes are those that glibc itself
    grows to.
    """
    mallopt = getattr(_libc(), "mallopt", None)
    if mallopt is not None:
        mallopt(-3, MAPPED)  # M_MMAP_THRESHOLD
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        mallopt(-8, 1)  # M_ARENA_MAX: otherwise each thread of zarr keeps the largest chunk that it wrote


def give_back() -> None:
    """Return freed memory to the system, also memory between live tensors."""
    trim = getattr(_libc(), "malloc_trim", None)
    if trim is not None:
        trim(0)


MAPPED = 32 * 2**20
"""Tensors of at least this number of bytes get their own memory map: the largest value that glibc allows."""


def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None
