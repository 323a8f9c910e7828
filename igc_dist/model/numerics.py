"""The numeric context of a run: what the caller may have set in torch or numpy, and what would change numbers.

A run sets it for its own time and hands it back. Some settings belong to the thread (autocast, default device, grad
mode); others to the whole process (default dtype, matmul precision, flags), and runs in several threads share them.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any

import numpy as np
import torch

log = logging.getLogger(__name__)

KINDS = ("cpu", "cuda")
"""Kinds of devices that have an autocast of their own."""

CARDS = ("cuda",)
"""Kinds of devices whose kernels may add in another order each time, unless they are asked not to."""

LACKS = "deterministic"
"""Torch's errors say it where an operator has no kernel that adds in one order."""

HOLDER: ContextVar[object | None] = ContextVar("igc_dist.holder", default=None)
"""Who holds what is lent in this thread: a run, or None. A thread that reads for a run copies its context."""

TURN = threading.Condition()
"""Guards all that runs in several threads share."""

_runs: list[tuple[object, torch.dtype, bool]] = []
_callers_type = torch.float32
"""The default type before the first of these runs."""
_threads: list[tuple[object, int, int]] = []
"""Who set a number of CPU threads, that number, and the one before."""

_CALLERS: ContextVar[torch.device | None] = ContextVar("igc_dist.device", default=None)
"""The default device of the caller of a run; None: the CPU."""


@contextmanager
def holding() -> Iterator[object]:
    """This thread's holder; a new one if there is none."""
    holder = HOLDER.get() or object()
    token = HOLDER.set(holder)
    try:
        yield holder
    finally:
        HOLDER.reset(token)


def wait(free: Callable[[], bool], why: str) -> None:
    """Wait for other threads until `free()`. `TURN` must be held. Says once what it waits for."""
    if not TURN.wait_for(free, 1.0):
        log.warning("waiting for another thread: %s", why)
        while not TURN.wait_for(free, 1.0):  # with a limit, so that a signal is noticed
            pass


class Shared:
    """A setting of the process that runs in several threads share: the first one makes it, the last one undoes it."""

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self.make, self.users, self.made = make, 0, ExitStack()

    @contextmanager
    def held(self) -> Iterator[None]:
        """The setting while the block lasts."""
        with TURN:
            if not self.users:
                self.made.enter_context(self.make())
            self.users += 1
        try:
            yield
        finally:
            with TURN:
                self.users -= 1
                if not self.users:
                    self.made.close()


def context() -> dict[str, Any]:
    """The settings of a run that change numbers, for its provenance. The same for all runs of a type of path points."""
    return {
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "matmul": torch.get_float32_matmul_precision(),
        "convolution_tf32": torch.backends.cudnn.allow_tf32,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


@contextmanager
def owned(dtype: torch.dtype | None, alone: bool = False) -> Iterator[None]:
    """The numeric context of a run while the block lasts; `dtype` is the type that a forward gives its constants.

    None: that of the caller. A run of another type in another thread is waited for, because torch has one default type
    for the whole process; with `alone` every other run, as for TF32.
    """
    global _callers_type
    with holding() as holder:
        with TURN:
            _callers_type = _callers_type if _runs else torch.get_default_dtype()
            dtype = dtype or _callers_type
            wait(
                lambda: all(other is holder or (theirs is dtype and not alone | own) for other, theirs, own in _runs),
                "it runs a model in another precision",
            )
            _runs.append((holder, dtype, alone))
            torch.set_default_dtype(dtype)
        try:
            with _FLAGS.held(), _thread():
                yield
        finally:
            with TURN:
                _runs.remove((holder, dtype, alone))
                torch.set_default_dtype(_runs[-1][1] if _runs else _callers_type)
                TURN.notify_all()


@contextmanager
def tf32(wanted: bool) -> Iterator[None]:
    """Matrix products and convolutions on CUDA round their factors to TF32 (11 bits) while the block lasts, or do not.

    A CPU knows no TF32: nothing changes there.
    """
    with ExitStack() as stack:
        for owner in (torch.backends.cuda.matmul, torch.backends.cudnn):
            _changed(stack, owner.allow_tf32, wanted, partial(setattr, owner, "allow_tf32"))
        yield


@contextmanager
def in_one_order(wanted: bool) -> Iterator[None]:
    """Kernels add in one order while the block lasts, if `wanted`, or raise a `RuntimeError` that says `LACKS`.

    With warnings in place of errors, fused attention would go on adding in any order. torch's own function loads the
    compiler, which takes a second; uninitialised memory need not be filled.
    """
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch._C._set_deterministic_algorithms(True, warn_only=False)
    try:
        yield
    finally:
        torch._C._set_deterministic_algorithms(before[0], warn_only=before[1])


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Operators take this number of CPU threads while the block lasts; None: the number that the process has.

    torch has one number for each thread of Python, but new threads begin with the last one that was set.
    """
    if number is None:
        yield
        return
    with holding() as holder:
        with TURN:
            first = _threads[0][2] if _threads else torch.get_num_threads()
            before = next((theirs for other, theirs, _ in reversed(_threads) if other is holder), first)
            mine = holder, number, before
            _threads.append(mine)
            torch.set_num_threads(number)
        try:
            yield
        finally:
            with TURN:
                _threads.remove(mine)
                torch.set_num_threads(before)


@contextmanager
def as_called(device: torch.device) -> Iterator[None]:
    """The caller's default device, while code of the caller works on `device`: new tensors are where it expects them.

    Outside of this it is the CPU, for the run itself and for what reads the data.
    """
    callers = _CALLERS.get()
    with callers if callers is not None and callers.type == device.type else nullcontext():
        yield


@contextmanager
def _thread() -> Iterator[None]:
    """The settings of this thread, and of threads and workers that it starts."""
    flushing = sys.float_info.min / 2 == 0
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in KINDS:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        callers = torch.get_default_device()
        if callers.type != "cpu":
            stack.callback(_CALLERS.reset, _CALLERS.set(callers))
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        if flushing:
            torch.set_flush_denormal(False)
        try:
            yield
        finally:
            if flushing:
                torch.set_flush_denormal(True)


@contextmanager
def _flags() -> Iterator[None]:
    """Flags of the process: torch's defaults, and the same bits from cuDNN each time."""
    backends = torch.backends
    cudnn = backends.cudnn.flags(enabled=backends.cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False)
    if torch.cuda.is_available():  # cuBLAS reads it once, at its first product; without it some of them are refused
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with ExitStack() as stack:
        stack.enter_context(cudnn)
        filling: Any = torch.utils.deterministic
        _changed(
            stack, filling.fill_uninitialized_memory, False, partial(setattr, filling, "fill_uninitialized_memory")
        )
        stack.enter_context(torch.autograd.set_detect_anomaly(False))
        for owner in (backends.cuda.matmul, getattr(backends.mkldnn, "matmul", None)):
            found = getattr(owner, "fp32_precision", None)  # torch before 2.9 has none
            if found is not None:  # torch's function below changes those of all devices
                stack.callback(setattr, owner, "fp32_precision", found)
        _changed(stack, _products(), "highest", torch.set_float32_matmul_precision)
        for owner in (backends, *(getattr(backends.mkldnn, name, None) for name in ("matmul", "conv", "rnn"))):
            found = getattr(owner, "fp32_precision", "none")  # torch before 2.9 has none
            if found not in ("none", "ieee"):
                _changed(stack, found, "ieee", partial(setattr, owner, "fp32_precision"))
        exact = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        _changed(
            stack, exact, (False, False), lambda pair: torch.use_deterministic_algorithms(pair[0], warn_only=pair[1])
        )
        yield


def _products() -> str:
    """The precision of float32 products. Torch refuses to tell it if they were set for some devices only."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        torch.set_float32_matmul_precision("highest")
        return "highest"


def _changed(stack: ExitStack, found: Any, value: Any, change: Callable[[Any], None]) -> None:
    """Change a setting from `found` to `value` until the stack is closed."""
    if found != value:
        stack.callback(change, found)
        change(value)


_FLAGS = Shared(_flags)
