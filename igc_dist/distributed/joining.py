"""Joins the ranks of a job for one run (device, process group, signals), and restores all of it afterwards."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from igc_dist import distributed
from igc_dist.distributed.alive import Alive
from igc_dist.distributed.board import Board
from igc_dist.distributed.environments import environment
from igc_dist.distributed.handshake import agree, meet
from igc_dist.distributed.reasons import together
from igc_dist.distributed.world import World
from igc_dist.model import PARALLEL, Parts, numerics
from igc_dist.records import ConfigError


@contextmanager
def joined(
    *,
    accelerator: str = "auto",
    strategy: str | Parts = "auto",
    timeout: float = 1800.0,
    lease: float | None = None,
    threads: int | None = None,
    loggers: Sequence[Any] = (),
    meeting: Path | None = None,
) -> Iterator[World]:
    """Join the ranks of this job for one run. Threads, signal handlers and process group are restored afterwards.

    `timeout`: seconds of silence after which a rank counts as lost. `lease`: seconds of silence after which other ranks
    do its shard (None: a sixth of `timeout`). `threads`: CPU threads of each rank; None keeps the number that the
    process has. The bits are the same for any number of ranks only if `threads` is the same, because a BLAS may split
    its sums by threads. `meeting`: the folder where the ranks of one machine meet; None: at a cluster's address.
    `strategy`: Lightning's name of one, or how several ranks hold the model together. Raises `ConfigError` for
    "model_parallel", which does not say how.
    """
    if strategy == PARALLEL:
        raise ConfigError(
            f"strategy={strategy!r}: several ranks hold one model on the command line alone, which builds the model "
            f"(igc-dist fabric.strategy={PARALLEL} ...): take strategy='auto' here"
        )
    _check(timeout, lease, threads, loggers)
    found = environment()
    size = 1 if found is None else int(found.world_size())
    if accelerator == "auto":  # not MPS, which lacks float64 for the sums
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    world = World(loggers=loggers, silence=timeout, lease=timeout / 6 if lease is None else lease)
    counted = ExitStack()
    try:
        counted.enter_context(numerics.threads(threads))
        if found is not None and size > 1:
            world.rank, world.size = int(found.global_rank()), size
            world.store, world.whole = _connect(world, found, accelerator, timeout, meeting)
            world.group = world.whole
        if isinstance(strategy, str):
            world.device = _device(found if size > 1 else None, accelerator, strategy, size)
        else:
            distributed.replicas.place(world, strategy)
            world.replica = distributed.replicas.Replica.formed(world, strategy, found, accelerator)
            world.device = world.replica.device
        with _signals(world):
            try:
                with world.linked():
                    # a first sign of life, without which a rank could not count as silent
                    world.watch("the first look at model and data", force=True)
                    yield world
                    world.done = True
                    if not world.bereft:
                        world.meet("end")
            except BaseException as error:
                world.abort(error)
                raise
            world.part()
            if world.whole is not None and not world.bereft:
                with together(None):  # gloo sometimes aborts if a rank leaves while another still uses it
                    dist.barrier(group=world.whole)
    finally:
        world.part()
        counted.close()
        world.leave()


def _check(timeout: Any, lease: Any, threads: Any, loggers: Any) -> None:
    """Raise `ConfigError` for numbers that are none, and for loggers that cannot log."""
    for name, seconds in (("timeout", timeout), ("lease", lease)):
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < float("inf")
        if not number and not (seconds is None and name == "lease"):
            raise ConfigError(f"fabric.{name}={seconds!r}: give a number of seconds above 0")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise ConfigError(f"fabric.threads={threads!r}: give a number of at least 1, or null for that of the process")
    if isinstance(loggers, str) or not all(hasattr(logger, "log_metrics") for logger in loggers):
        raise ConfigError(
            f"loggers={loggers!r}: give a list of loggers of Lightning, such as [CSVLogger('logs')]; names are for the "
            "command line"
        )


def _device(found: Any, accelerator: str, strategy: str, size: int) -> torch.device:
    """The device of this rank. A single rank on a device that torch supports needs no Lightning."""
    if found is None and accelerator == "cpu":
        return torch.device("cpu")
    if found is None and accelerator in ("cuda", "gpu") and torch.cuda.is_available():
        torch.cuda.set_device(0)
        return torch.device("cuda", 0)
    if accelerator in ("cuda", "gpu") and not torch.cuda.is_available():
        raise ConfigError(
            f"fabric.accelerator={accelerator}, but torch finds no such device: take cpu or auto, or install a "
            "build of torch for it"
        )
    return distributed.lightning_door.launched(found, accelerator, strategy, size).device


GATHER = 30.0
"""Seconds beyond the lease that ranks may start apart: one that died before it came is known by nobody."""

_runs = 0
_stores: dict[tuple[str, int, int, int], Any] = {}
"""Kept until the process ends: else a rank's second run could connect to the closing server of the first run."""


def _connect(world: World, found: Any, accelerator: str, timeout: float, meeting: Path | None) -> tuple[Any, Any]:
    """A store of the ranks for this run, and a process group for it. The user's own group is not touched."""
    global _runs
    _runs += 1
    rank, size, limit = found.global_rank(), found.world_size(), timedelta(seconds=timeout)
    if dist.is_initialized():
        theirs = dist.PrefixStore("igc", dist.distributed_c10d._get_default_store())
        base = dist.PrefixStore(agree(theirs, rank, size, timeout, "your process group"), theirs)
        return dist.PrefixStore("run", base), dist.new_group(backend="gloo", timeout=limit)
    group: Any
    shared: Any
    if meeting is None:
        base = _at_address(found, min(timeout, world.lease + GATHER))
        base.set_timeout(limit)
        group, shared = dist.PrefixStore(f"{_runs}/group", base), dist.PrefixStore(f"{_runs}/run", base)
        world.alive = Alive(shared, rank, size, world.lease, lambda: world.steps)
    else:
        group, shared = dist.FileStore(str(meeting / f"group-{_runs}"), size), Board(meeting / "board", _runs)
        group.set_timeout(limit)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if accelerator in ("cuda", "gpu") else "gloo",
        store=group,
        rank=rank,
        world_size=size,
        timeout=limit,
    )
    return shared, dist.group.WORLD


def _at_address(found: Any, timeout: float) -> Any:
    """The store at the address of a cluster's first rank, under a prefix for this start of the ranks."""
    address, port = found.main_address, int(found.main_port)
    rank, size = found.global_rank(), found.world_size()
    key = (address, port, rank, size)
    if key not in _stores:
        whole = meet(address, port, rank, size, timeout)
        # without a new prefix, a restarted attempt would read the old addresses of the attempt that died
        _stores[key] = dist.PrefixStore(f"igc/{agree(whole, rank, size, timeout, f'{address}:{port}')}", whole)
    return _stores[key]


@contextmanager
def _signals(world: World) -> Iterator[None]:
    """SIGTERM, SIGINT and SIGUSR1 set a flag that is checked between micro-batches. A second SIGINT ends at once, and
    so does any signal during the first look at model and data.
    """

    def stop(number: int, frame: Any) -> None:
        if world.stopping and number == signal.SIGINT:
            raise KeyboardInterrupt
        first, world.stopping = not world.stopping, True
        world.interrupted |= number == signal.SIGINT
        if first and world.early:
            world.watch("the first look at model and data")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
