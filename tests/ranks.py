"""Ranks on this machine for tests: a group takes 0.2 s to start, since they fork from a server that has imported
everything.

`run_ranks` behaves as torchrun's agent does: when a rank is killed, it ends the others.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.utils.data import Dataset

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["pytest", "torch", "lightning.fabric", "zarr", "xarray", "numpy", "tests.ranks"]
    + [f"igc_dist.{name}" for name in ("run", "api", "config.groups", "config.compose", "cli.runs")]
)


@dataclass(frozen=True)
class Ended:
    """How a rank ended: its exit code (negative: the signal that killed it), and what `fn` returned or raised."""

    code: int
    value: Any = None
    error: str = ""
    """Class of the exception, or nothing."""
    message: str = ""
    trace: str = ""
    seconds: float = 0.0
    """From the start of the group to the end of the rank."""


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _main(pipe: Connection, environment: Mapping[str, str], fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        value = fn(*args)
    except BaseException as error:
        pipe.send((None, type(error).__name__, str(error), traceback.format_exc()))
        raise SystemExit(getattr(error, "exit_code", getattr(error, "code", 1))) from None
    pipe.send((value, "", "", ""))


class Group:
    """`n` ranks that run ``fn(*args)``."""

    def __init__(self, n: int, fn: Callable[..., Any], args: tuple[Any, ...], environment: Mapping[str, str]) -> None:
        port, self.began = str(free_port()), time.monotonic()
        self.processes, self.pipes = [], []
        self.said: dict[int, Any] = {}
        for rank in range(n):
            mine = (
                {}
                if n == 1
                else {"WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n), "LOCAL_RANK": str(rank), "RANK": str(rank)}
            )
            mine |= {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "TORCHELASTIC_RUN_ID": "test",
                "OMP_NUM_THREADS": "1",
            }
            if n == 1:  # alone, and not as a group of one
                del mine["TORCHELASTIC_RUN_ID"]
            here, there = CONTEXT.Pipe(duplex=False)
            process = CONTEXT.Process(target=_main, args=(there, {**mine, **environment}, fn, args), daemon=True)
            process.start()
            there.close()
            self.processes.append(process)
            self.pipes.append(here)

    def send(self, rank: int, number: signal.Signals) -> None:
        """Send a signal to a rank."""
        os.kill(int(self.processes[rank].pid or 0), number)

    def ends(self, timeout: float, agent: bool = True) -> list[Ended]:
        """Wait for all ranks. After `timeout` seconds every rank is killed; with `agent`, when one rank is killed the
        others are."""
        ended: dict[int, Ended] = {}
        deadline = self.began + timeout
        while len(ended) < len(self.processes) and time.monotonic() < deadline:
            left = [r for r in range(len(self.processes)) if r not in ended]
            # what a rank says is read as it comes: a pipe holds 64 KiB, and the rank waits until the rest is taken
            ears = [self.pipes[r] for r in left if r not in self.said]
            wait([*(self.processes[r].sentinel for r in left), *ears], timeout=max(0.0, deadline - time.monotonic()))
            for rank, process in enumerate(self.processes):
                self._listen(rank)
                if rank not in ended and not process.is_alive():
                    ended[rank] = self._ended(rank)
            if agent and any(end.code < 0 for end in ended.values()):
                break
        self.kill()
        return [ended.get(rank) or self._ended(rank) for rank in range(len(self.processes))]

    def _ended(self, rank: int) -> Ended:
        process = self.processes[rank]
        self._listen(rank)
        process.join()
        value, error, message, trace = self.said.get(rank, (None, "", "", ""))
        return Ended(int(process.exitcode or 0), value, error, message, trace, time.monotonic() - self.began)

    def _listen(self, rank: int) -> None:
        if rank not in self.said and self.pipes[rank].poll():
            try:
                self.said[rank] = self.pipes[rank].recv()
            except (EOFError, OSError):  # it was killed, maybe in the middle of a word
                self.said[rank] = (None, "", "", "")

    def kill(self) -> None:
        """End every rank now; also a stopped one."""
        for process in self.processes:
            if process.is_alive():
                process.kill()
        for process in self.processes:
            process.join()


@contextmanager
def ranks(n: int, fn: Callable[..., Any], *args: Any, **environment: str) -> Iterator[Group]:
    """A group of ranks that run; none of them outlives the block."""
    group = Group(n, fn, args, environment)
    try:
        yield group
    finally:
        group.kill()


def run_ranks(n: int, fn: Callable[..., Any], *args: Any, timeout: float = 60.0, **environment: str) -> list[Ended]:
    """Run ``fn(*args)`` on `n` ranks to the end."""
    with ranks(n, fn, *args, **environment) as group:
        return group.ends(timeout)


def values(ended: list[Ended]) -> list[Any]:
    """What the ranks returned; fails with the traceback of the first that did not."""
    for rank, end in enumerate(ended):
        assert end.code == 0, f"rank {rank} ended with {end.code}\n{end.trace}"
    return [end.value for end in ended]


# -- a tiny problem ----------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """Two nonlinear outputs of five features, with fixed weights; float32."""

    def __init__(self, features: int = 5, outputs: int = 2) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(features)
        self.hidden, self.head = nn.Linear(features, 7), nn.Linear(7, outputs)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.hidden(x)))


class Rows(Dataset[tuple[Tensor, Tensor]]):
    """`n` samples; the targets follow the model's outputs with noise. Each read takes `pause` seconds, on ranks `slow`
    if named."""

    def __init__(
        self,
        n: int = 7,
        features: int = 5,
        outputs: int = 2,
        slow: int | Collection[int] | None = None,
        pause: float = 0.0,
    ) -> None:
        generator = torch.Generator().manual_seed(100 + n)
        self.x = torch.randn(n, features, generator=generator)
        with torch.no_grad():
            self.y = Net(features, outputs)(self.x) + torch.randn(n, outputs, generator=generator)
        self.slow, self.pause = [slow] if isinstance(slow, int) else slow, pause

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self.slow is None or int(os.environ.get("RANK", "0")) in self.slow:
            time.sleep(self.pause)
        return self.x[index], self.y[index]


class Holed(Rows):
    """Sample 5 has a NaN."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = super().__getitem__(index)
        return (torch.full_like(x, torch.nan) if index == 5 else x), y


class Torn(Rows):
    """Sample 5 cannot be read."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == 5:
            raise OSError("truncated")
        return super().__getitem__(index)


def attribute(
    path: Path | None,
    n: int = 7,
    outputs: int = 2,
    slow: int | Collection[int] | None = None,
    pause: float = 0.05,
    labels: bool = False,
    image: bool = False,
    **settings: Any,
) -> dict[str, bytes]:
    """Attribute the tiny problem on this rank, or that with `labels`, or of images of one row; returns the bytes of
    every array."""
    import igc_dist

    chosen = {"n_steps": 4, "n_folds": 5, "samples": True, "threads": 1, "timeout": 60.0, **settings}
    data = Rows(n, outputs=outputs, slow=slow, pause=0.0 if slow is None else pause)
    if labels:
        data.y = data.y.argmax(1)
    net: nn.Module = Net(outputs=outputs)
    if image:
        data.x, net = data.x[:, None], nn.Sequential(nn.Flatten(), net)
    return arrays(igc_dist.attribute(net, data, store=path, **chosen))


def arrays(tree: xr.DataTree) -> dict[str, bytes]:
    """Type, shape and bytes of every array of a tree, shards and all."""
    found = {}
    for node in tree.subtree:
        for name, array in {**node.data_vars, **node.coords}.items():
            values = np.asarray(array.values)
            head = f"{values.dtype} {values.shape} ".encode()
            found[f"{node.path}/{name}".lstrip("/")] = head + (
                repr(values.tolist()).encode() if values.dtype.kind in "OT" else values.tobytes()
            )
    return found


def rewrite(store: Any, phase: str, number: int, **changed: np.ndarray) -> None:
    """Commit a shard again, with some of its arrays changed."""
    kept = {name: store.read_own(phase, number, name) for name in store.phases[phase].packed}
    for name, values in (kept | changed).items():
        store.write(phase, number, name, values)
    store.commit(phase, number)


def files(path: Path) -> dict[str, bytes]:
    """Every file of a store but the root's document, which holds the time of the run."""
    return {
        p.relative_to(path).as_posix(): p.read_bytes()
        for p in sorted(path.rglob("*"))
        if p.is_file() and p != path / "zarr.json"
    }
