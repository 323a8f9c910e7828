"""Ranks: launch through Lightning Fabric, process group, claims, exchange, heartbeat. The only torch.distributed.

There is no collective between the start of a pass and its end: ranks claim shards from a counter in the process group's
store, so a slow rank costs little. Every rank says now and then where it is; those that wait name the silent one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import ClusterEnvironment, LightningEnvironment

from igc_dist.environments import environment, world_size
from igc_dist.faults import fault
from igc_dist.handshake import agree
from igc_dist.pulse import Pulse, Pulsing
from igc_dist.records import ConfigError, PeerError, Stopped, Superseded, said

log = logging.getLogger(__name__)

LINGER = 5.0  # seconds that rank 0 waits for the others to hear that it ends

POLL = 0.05
"""Seconds between looks at the store while waiting: 25 us each, so a waiting rank costs 0.05 % of a core."""


@dataclass
class World:
    """This rank among the others. Alone, `store` is None and every exchange is the identity."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    fabric: Fabric | None = None
    store: Any = None
    silence: float = 1800.0
    """Seconds without a sign of life after which a rank counts as lost."""
    lease: float = 300.0
    """Seconds without a sign of life after which others do the shard of a rank."""
    held: str = ""
    """The lease of the shard that this rank is at (`igc_dist.leases`)."""
    reissued: int = 0
    """Shards of silent ranks that others did, as known at the end of a pass."""
    stopping: bool = False
    done: bool = False  # a signal is too late: who left now, counted as there, would fail the others
    attempt: int = 0  # a run that begins again counts from 0
    pulse: Pulsing = field(default_factory=Pulsing)
    _beat: float = 0.0
    _counts: dict[str, int] = field(default_factory=dict)
    _heard: dict[int, tuple[bytes, float]] = field(default_factory=dict)

    @property
    def first(self) -> bool:
        """Whether this rank writes what is written once."""
        return self.rank == 0

    def count(self, name: str, step: int = 0) -> int:
        """Add to a counter that all ranks share; returns the new value."""
        name = f"{name}/{self.attempt}"
        if self.store is None:
            self._counts[name] = self._counts.get(name, 0) + step
            return self._counts[name]
        return int(self.store.add(name, step))

    def watch(self, where: str, force: bool = False) -> None:
        """Say where this rank is (once a second); raises `Stopped` after a signal here or on another rank, `PeerError` if one failed,
        `Superseded` if this rank was silent for so long that another does its shard."""
        if self.stopping and not self.done:
            if self.store is not None:
                self.store.set("stop", "1")
            raise Stopped(
                f"rank {self.rank} stopped by a signal at {where}: shards that were committed are safe, run the same command again to go on"
            )
        now = time.monotonic()
        if self.store is None or (now - self._beat < 1 and not force):
            return
        self._beat = now
        beat = {"n": self._next("beat"), "at": where, "held": self.held, "pulse": self.pulse.said()}
        self.store.set(f"beat/{self.rank}", json.dumps(beat))
        self._check_peers()
        if self.store.check(["stop"]):
            raise Stopped(f"rank {self.rank} stops at {where}, since another rank was told to: run the same command again to go on")
        if self.held and self.count(self.held):
            log.warning("rank %d was silent for so long that another rank does what it is at: %s", self.rank, where)
            raise Superseded(where)

    def _check_peers(self) -> None:
        if self.store.check(["abort"]):
            rank, message, code = json.loads(self.store.get("abort"))
            if rank != self.rank:
                raise PeerError(f"rank {rank} failed: {message}", code)

    def abort(self, error: BaseException, own_group: bool = False) -> None:
        """Tell the other ranks why this one fails, unless one did before. Rank 0 may hold the store, so it leaves them time to hear it."""
        if self.store is None:
            return
        with contextlib.suppress(Exception):
            if not isinstance(error, Stopped):  # of which they hear by themselves
                text = json.dumps([self.rank, f"{type(error).__name__}: {said(error)}", getattr(error, "exit_code", 1)])
                self.store.compare_set("abort", "", text)
            if own_group:
                dist.destroy_process_group()  # wakes those that exchange, while the store can still tell them why
            ended, until = self.count("ended", 1), time.monotonic() + LINGER
            while self.first and ended < self.size and time.monotonic() < until:
                time.sleep(POLL)
                ended = self.count("ended")

    def meet(self, name: str, while_waiting: Callable[[], None] = lambda: None) -> None:
        """Wait for all ranks. Raises `PeerError` that names a rank, and where it was, if it failed or stays silent."""
        fault("barrier")
        if self.store is None:
            return
        self.count(f"meet/{name}", 1)
        self.wait(lambda: self.count(f"meet/{name}") >= self.size, f"waiting at {name}", while_waiting)

    def wait(self, ready: Callable[[], bool], where: str, while_waiting: Callable[[], None] = lambda: None) -> None:
        """Wait until something that other ranks do is there; raises as `meet` does."""
        warned: set[int] = set()
        while not ready():
            time.sleep(POLL)
            while_waiting()
            self.watch(where)
            for rank, silent, beat in self.silent():
                last = beat["at"]
                if silent > self.silence:
                    raise PeerError(
                        f"rank {rank} is silent for {silent:.0f} s, last seen at {last}: it hangs or is gone; run again to resume"
                    )
                if silent > self.silence / 10 and rank not in warned and self.first:
                    warned.add(rank)
                    log.warning("rank %d is silent for %.0f s, last seen at %s", rank, silent, last)

    def silent(self) -> Iterator[tuple[int, float, dict[str, Any]]]:
        """Every other rank, for how long its sign of life has not changed under these eyes (clocks of nodes differ), and what that was."""
        for rank in range(self.size):
            if rank != self.rank and self.store.check([f"beat/{rank}"]):
                beat, now = self.store.get(f"beat/{rank}"), time.monotonic()
                if self._heard.get(rank, (b"", 0.0))[0] != beat:
                    self._heard[rank] = beat, now
                yield rank, now - self._heard[rank][1], json.loads(beat)

    def pulses(self) -> dict[int, tuple[Pulse, float]]:
        """What each rank last said of itself, and the seconds since it did under these eyes."""
        heard = [] if self.store is None else self.silent()
        others = {rank: (Pulse.read(beat["pulse"]) or Pulse(), seconds) for rank, seconds, beat in heard}
        return dict(sorted({self.rank: (self.pulse.now(), 0.0), **others}.items()))

    def sum(self, array: np.ndarray) -> np.ndarray:
        """All-reduce by addition, in place. Exact when each element has one contributor and zeros otherwise."""
        if self.store is not None:
            with _together(self):
                dist.all_reduce(torch.from_numpy(array), op=dist.ReduceOp.SUM)
        return array

    def deal(self, hand: np.ndarray, sizes: Sequence[int], theirs: Sequence[int]) -> np.ndarray:
        """Hand a flat array round, cut into a piece of ``sizes[r]`` numbers for each rank r; returns the pieces for this rank, one
        after the other, of which rank r gives ``theirs[r]`` numbers."""
        if self.store is None:
            return hand
        taken = torch.empty(sum(theirs), dtype=torch.float64)
        with _together(self):
            dist.all_to_all_single(taken, torch.from_numpy(hand), [*theirs], [*sizes])
        return taken.numpy()

    def log(self, metrics: Mapping[str, int | float]) -> None:
        """Hand metrics to the loggers, on rank 0."""
        if self.first and self.fabric is not None:
            self.fabric.log_dict(metrics, step=self._next("log"))

    def gather(self, value: Any) -> list[Any]:
        """The objects of all ranks."""
        if self.store is None:
            return [value]
        values: list[Any] = [None] * self.size
        with _together(self):
            dist.all_gather_object(values, value)
        return values

    def share(self, make: Callable[[], Any]) -> Any:
        """What rank 0 makes (of JSON). Through the store, so that the others hear of it if rank 0 fails instead."""
        if self.store is None:
            return make()
        key = f"share/{self._next('share')}"
        if self.first:
            self.store.set(key, json.dumps(make()))
        self.wait(lambda: self.store.check([key]), "waiting for rank 0")
        return json.loads(self.store.get(key))

    def _next(self, name: str) -> int:
        self._counts[name] = self._counts.get(name, 0) + 1
        return self._counts[name]


@contextmanager
def _together(world: World | None, failure: type[Exception] = RuntimeError) -> Iterator[None]:
    """What needs the other ranks: raises `PeerError` when one is gone, `Stopped` if it was told to, not the errors of sockets."""
    try:
        yield
    except failure as error:
        if world is not None:
            with contextlib.suppress(dist.DistError):
                world.watch("an exchange", force=True)  # which may know why
        raise PeerError(f"another rank is gone, see its own message; run again to resume ({str(error).splitlines()[0]})") from error


@contextmanager
def joined(
    *,
    accelerator: str = "auto",
    strategy: str = "auto",
    timeout: float = 1800.0,
    lease: float | None = None,
    threads: int | None = None,
    loggers: Sequence[Any] = (),
) -> Iterator[World]:
    """Join the ranks of this job for one run; leaves threads, signal handlers and process group as they were.

    `timeout`: seconds of silence after which a rank is lost; `lease`: after which its shard is done by others (None: a sixth of it).
    `threads`: of each rank on CPU. Bits are the same for any number of ranks only if this is the same, since a BLAS may
    cut its sums by threads; None leaves the process's own.
    """
    found, size = environment(), world_size()
    if accelerator == "auto":  # not MPS, which has no float64 for the sums
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    before, store, own_group = torch.get_num_threads(), None, False
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        if found is not None and size > 1:
            store, own_group = _connect(found, accelerator, timeout)
        fabric = _fabric(found if size > 1 else None, accelerator, strategy, size, list(loggers))
        world = World(
            fabric.global_rank, size, fabric.device, fabric, store, silence=timeout, lease=timeout / 6 if lease is None else lease
        )
        with _signals(world):
            try:
                with _together(None, dist.DistError):  # the store goes with the rank that holds it
                    world.watch("the first look at model and data", force=True)  # a rank that never spoke could not fall silent
                    yield world
                    world.done = True
                    world.meet("end")
            except BaseException as error:
                world.abort(error, own_group)
                raise
            if own_group:
                with _together(None):
                    dist.barrier()  # gloo aborts now and then if a rank leaves while another still talks to it
    finally:
        torch.set_num_threads(before)
        if own_group and dist.is_initialized():
            dist.destroy_process_group()


_runs = 0
_stores: dict[tuple[str, str, int, int], Any] = {}
"""Kept for the life of the process: at a second run, a rank could otherwise meet the server of the first as it closes."""


def _connect(found: ClusterEnvironment, accelerator: str, timeout: float) -> tuple[Any, bool]:
    """The process group's store under this run's own prefix, and whether the group is ours to destroy."""
    global _runs
    _runs += 1
    if dist.is_initialized():
        attempt = f"igc/{os.environ.get('TORCHELASTIC_RUN_ID', '')}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{_runs}"
        return dist.PrefixStore(attempt, dist.distributed_c10d._get_default_store()), False
    os.environ.setdefault("MASTER_ADDR", found.main_address)
    os.environ.setdefault("MASTER_PORT", str(found.main_port))
    rank, size, limit = found.global_rank(), found.world_size(), timedelta(seconds=timeout)
    key = (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"], rank, size)
    if key not in _stores:
        whole, _, _ = next(dist.rendezvous("env://", rank, size, timeout=limit))
        whole.set_timeout(limit)
        # without a prefix of its own, a restarted attempt reads the stale addresses of the one that died
        _stores[key] = dist.PrefixStore(f"igc/{agree(whole, rank, size, timeout)}", whole)
    base = _stores[key]
    base.set_timeout(limit)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if accelerator in ("cuda", "gpu") else "gloo",
        store=dist.PrefixStore(f"{_runs}/group", base),
        rank=rank,
        world_size=size,
        timeout=limit,
    )
    return dist.PrefixStore(f"{_runs}/run", base), True


def _fabric(found: ClusterEnvironment | None, accelerator: str, strategy: str, size: int, loggers: list[Any]) -> Fabric:
    if found is None:
        fabric = Fabric(accelerator=accelerator, devices=1, plugins=[LightningEnvironment()], loggers=loggers)
    else:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", size // int(os.environ.get("SLURM_NNODES", "1"))))
        kind, nodes = "ddp" if strategy == "auto" else strategy, max(1, size // local)
        fabric = Fabric(accelerator=accelerator, devices=local, num_nodes=nodes, strategy=kind, plugins=[found], loggers=loggers)
    fabric.launch()
    return fabric


@contextmanager
def _signals(world: World) -> Iterator[None]:
    """SIGTERM, SIGINT and SIGUSR1 set a flag that the walk looks at between micro-batches; a second SIGINT ends at once."""

    def stop(number: int, frame: Any) -> None:
        if world.stopping and number == signal.SIGINT:
            raise KeyboardInterrupt
        world.stopping = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def loggers(names: Sequence[str], folder: Path) -> list[Any]:
    """Lightning's loggers by name: csv always works, tensorboard and wandb need their packages. They write into `folder`."""
    from lightning.fabric.loggers import CSVLogger
    from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

    made: list[Any] = []
    for name in names:
        if name == "csv":
            made.append(CSVLogger(folder, name="csv", version="", flush_logs_every_n_steps=1))
        elif name in ("tensorboard", "wandb"):
            try:
                made.append(
                    TensorBoardLogger(folder, name="tensorboard", version="") if name == "tensorboard" else WandbLogger(save_dir=folder)
                )
            except ModuleNotFoundError as error:
                raise ConfigError(f"fabric.loggers has {name}, which is not installed: pip install 'igc-dist[{name}]'") from error
        else:
            raise ConfigError(f"fabric.loggers has {name!r}: choose from csv, tensorboard, wandb")
    return made
