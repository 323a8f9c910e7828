"""The card that tests and benches of `gpu` run on; or this machine's CPU in its place, with small sizes: a dry run,
which shows that they would start, and nothing about a card."""

from __future__ import annotations

import gc
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import torch

from igc_dist.model import footprint

DRY = "IGC_DRY_CARD"
"""Environment variable: 1 puts the CPU in the card's place. Without it and without CUDA, tests of `gpu` are skipped."""


def dry() -> bool:
    """Whether the CPU takes the place of a card."""
    return os.environ.get(DRY) == "1" and not torch.cuda.is_available()


class Card:
    """One CUDA device: its clock, its allocator."""

    dry = False

    def __init__(self) -> None:
        self.device, self.kind = torch.device("cuda", 0), "cuda"

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name(0)

    def wait(self) -> None:
        """Until all that was started on the device is done."""
        torch.cuda.synchronize()

    def once(self, work: Callable[[], Any]) -> float:
        """Seconds of a call on the device's own clock."""
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.wait()
        began.record()
        work()
        ended.record()
        self.wait()
        return began.elapsed_time(ended) / 1000

    def seconds(self, work: Callable[[], Any], repeats: int = 3) -> float:
        """The median of some calls."""
        return statistics.median(self.once(work) for _ in range(repeats))

    def peak_of(self, work: Callable[[], Any]) -> int:
        """Most bytes that the allocator gave out at a time during a call, over those held before."""
        self.empty()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        self.wait()
        return torch.cuda.max_memory_allocated() - before

    def empty(self) -> None:
        """Give freed memory back."""
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()

    @contextmanager
    def limited(self, size: int) -> Iterator[None]:
        """The allocator has no more than `size` bytes, while the block lasts."""
        self.empty()
        torch.cuda.set_per_process_memory_fraction(size / torch.cuda.get_device_properties(0).total_memory)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)

    def compiling(self) -> AbstractContextManager[Any]:
        """How `torch.compile` works while the block lasts."""
        return nullcontext()

    @contextmanager
    def recording(self) -> Iterator[list[Any]]:
        """The graphs that are replayed while the block lasts, once for each time."""
        replayed: list[Any] = []
        replay = torch.cuda.CUDAGraph.replay

        def noted(graph: Any) -> None:
            replayed.append(graph)
            replay(graph)

        with patch.object(torch.cuda.CUDAGraph, "replay", noted):
            yield replayed

    @contextmanager
    def waits(self) -> Iterator[list[str]]:
        """What torch says, while the block lasts, of each time that the host waits for the device."""
        said: list[str] = []
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                yield said
                said += [str(one.message) for one in caught if "synchronizing" in str(one.message)]
        finally:
            torch.cuda.set_sync_debug_mode("default")


class Host(Card):
    """The CPU in the place of a card."""

    dry = True

    def __init__(self) -> None:
        self.device, self.kind = torch.device("cpu"), "cpu"

    @property
    def name(self) -> str:
        return "the CPU, a dry run"

    def wait(self) -> None:
        pass

    def once(self, work: Callable[[], Any]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    def peak_of(self, work: Callable[[], Any]) -> int:
        return footprint.peak_of(work)

    def empty(self) -> None:
        gc.collect()

    @contextmanager
    def limited(self, size: int) -> Iterator[None]:
        """The second micro-batch fails as if memory were missing."""
        os.environ["IGC_FAULT"] = "gradient:0:2:oom"
        try:
            yield
        finally:
            del os.environ["IGC_FAULT"]

    def compiling(self) -> AbstractContextManager[Any]:
        """Without kernels for the CPU, which take a minute to compile."""
        return patch.object(torch, "compile", partial(torch.compile, backend="aot_eager"))

    @contextmanager
    def recording(self) -> Iterator[list[Any]]:
        yield []

    @contextmanager
    def waits(self) -> Iterator[list[str]]:
        yield []


def card() -> Card:
    """The card, or what takes its place."""
    return Host() if dry() else Card()
