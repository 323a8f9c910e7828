"""A replica: the ranks that hold one model together. It is one claim unit: its leader claims, and all walk in lockstep.

Only leaders claim, read data, fold and write; to the rest of the package they are the ranks. The other ranks of a
replica wait for what their leader says, and go through the model with it (`igc_dist.model.lockstep`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from igc_dist import distributed
from igc_dist.distributed.reasons import together
from igc_dist.distributed.world import World
from igc_dist.model import Parts, Unfilled
from igc_dist.records import ConfigError, IgcError, ModelError, PeerError
from igc_dist.tensors import Tensors

WORD = 4096
"""Bytes of what a leader says before each step."""

AXES = ("data_parallel", "tensor_parallel")
"""The axes of Lightning's mesh."""

QUICK, SLOW = 5e-5, 2e-2
"""Seconds between looks whether the leader has spoken: at first, and after a while."""

AGES = timedelta(days=3650)
"""A leader may be silent for as long as it likes. One that is gone is noticed by its connections, and on the board."""

BREATH = 2.0
"""Seconds in which a rank that failed says why."""


def place(world: World, parts: Parts) -> None:
    """Number the replicas, and their ranks. Raises `ConfigError` if the ranks do not make whole replicas."""
    if world.size % parts.ranks:
        raise ConfigError(
            f"{world.size} ranks do not make whole replicas of {parts.ranks} (fabric.data_parallel_size="
            f"{parts.data} x fabric.tensor_parallel_size={parts.tensor}): start a multiple of {parts.ranks} ranks, on "
            "one machine by fabric.devices"
        )
    world.rank, world.member = divmod(world.rank, parts.ranks)
    world.size, world.members = world.size // parts.ranks, parts.ranks


def attend(world: World, leader: int) -> None:
    """For a rank that waits for its leader: passes on a signal; raises `Stopped` or `PeerError` if the leader left."""
    world.steps += 1
    if world.stopping:
        world.store.set("stop", json.dumps(world.interrupted))
    if world.alive is not None:
        world.alive.check()
    if world.store.check([f"left/{leader}"]):
        world.hearken("a replica")


@dataclass(frozen=True)
class Replica:
    """The ranks of this rank's replica: groups for their steps, and for what the leader says before each.

    `strategy`: Lightning's, whose mesh has the axes data_parallel and tensor_parallel.
    """

    world: World
    parts: int
    ranks: Sequence[int]
    steps: Any
    words: Any
    strategy: Any

    @classmethod
    def formed(cls, world: World, parts: Parts, found: Any, accelerator: str) -> Replica:
        """Form the groups of all replicas, with all other ranks. The leaders get a group of their own."""
        limit, every = timedelta(seconds=world.silence), range(world.size * parts.ranks)
        of = [[*every[start : start + parts.ranks]] for start in every[:: parts.ranks]]
        tables = [torch.tensor(its).reshape(parts.data, parts.tensor) for its in of]
        columns = [column.tolist() for table in tables for column in table.T]
        rows = [row.tolist() for table in tables for row in table]
        leaders = dist.new_group([its[0] for its in of], timeout=limit, backend="gloo")
        if world.member == 0:
            world.group = leaders
        steps = dist.new_subgroups_by_enumeration(of, timeout=limit)[0]
        words = dist.new_subgroups_by_enumeration(of, timeout=AGES, backend="gloo")[0]
        axes = [dist.new_subgroups_by_enumeration(its, timeout=limit)[0] for its in (columns, rows)]

        def mesh(device: torch.device) -> DeviceMesh:
            return DeviceMesh.from_group(axes, device.type, tables[world.rank], mesh_dim_names=AXES)

        strategy = distributed.lightning_door.divided(found, accelerator, len(every), parts, mesh)
        return cls(world, parts.data, of[world.rank], steps, words, strategy)

    @property
    def device(self) -> torch.device:
        """The device of this rank."""
        found: torch.device = self.strategy.root_device
        return found

    def split(self, module: nn.Module, unfilled: Unfilled | None = None) -> nn.Module:
        """The module, of which this rank holds its part, on its device. `unfilled`: a file with the weights."""
        self.strategy.unfilled = unfilled
        found: nn.Module = self.strategy.setup_module(module)
        return found.to(self.device)

    def say(self, word: Mapping[str, Any]) -> None:
        """Tell the others what is done next."""
        text = json.dumps({"attempt": self.world.attempt, **word}).encode()
        assert len(text) <= WORD
        dist.broadcast(torch.frombuffer(bytearray(text.ljust(WORD)), dtype=torch.uint8), self.ranks[0], self.words)

    def hear(self) -> dict[str, Any]:
        """What the leader says next. Raises `PeerError` or `Stopped` if it has left."""
        text, pause, looked = torch.empty(WORD, dtype=torch.uint8), QUICK, time.monotonic()
        with self.guarded():
            coming = dist.broadcast(text, self.ranks[0], self.words, async_op=True)
            while not coming.is_completed():
                time.sleep(pause)
                pause = min(pause * 1.2, SLOW)
                if time.monotonic() - looked > SLOW:
                    looked = time.monotonic()
                    attend(self.world, self.ranks[0])
            coming.wait()
        found: dict[str, Any] = json.loads(text.numpy().tobytes())
        self.world.attempt = found["attempt"]  # they leave together, by the counters of this attempt
        return found

    def spread(self, tensors: Tensors | Sequence[tuple[list[int], torch.dtype]]) -> Tensors:
        """This rank's rows of the leader's tensors; the others give their shapes and types."""
        mine = []
        for given in tensors:
            x = (
                given.contiguous()
                if isinstance(given, Tensor)
                else torch.empty(given[0], dtype=given[1], device=self.device)
            )
            dist.broadcast(x, self.ranks[0], self.steps)
            mine.append(x.chunk(self.parts)[self.strategy.device_mesh.get_local_rank(AXES[0])])
        return tuple(mine)

    def collect(self, mine: Tensor) -> Tensor:
        """The rows of all parts, on the leader."""
        if self.parts == 1:
            return mine
        mine = mine.contiguous()
        all_of = [torch.empty_like(mine) for _ in self.ranks] if self.world.member == 0 else None
        dist.gather(mine, all_of, self.ranks[0], self.steps)
        return mine if all_of is None else torch.cat(all_of[:: len(self.ranks) // self.parts])

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """For work that needs the other ranks: says which of them failed, in place of the error of a connection."""
        try:
            yield
        except IgcError as error:
            if isinstance(error, ModelError) and isinstance(error.__cause__, RuntimeError):
                self._ask(error.__cause__)
            raise
        except RuntimeError as error:
            self._ask(error)
            raise

    def _ask(self, error: RuntimeError) -> None:
        """Raise what another rank says about its end; `PeerError` if the error is one of a connection."""
        words = str(error).lower()
        if not isinstance(error, dist.DistError) and not any(name in words for name in ("gloo", "nccl", "connection")):
            return
        with together(None, dist.DistError):
            until = time.monotonic() + BREATH
            while time.monotonic() < until:
                self.world.hearken("a step of its replica")
                time.sleep(SLOW)
        raise PeerError(
            f"a rank of the replica of ranks {self.ranks[0]} to {self.ranks[-1]} is gone, see its own message; run "
            f"again to resume ({str(error).splitlines()[0]})"
        ) from error
