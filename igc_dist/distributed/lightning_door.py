"""Lightning: clusters, launch and loggers. Imported only if ranks are launched or joined, or something is logged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from igc_dist import distributed, files
from igc_dist.distributed.environments import variables
from igc_dist.model import Parts, Unfilled
from igc_dist.records import ConfigError


def culprit(trace: TracebackType | None) -> str:
    """The package that made an import fail: the first one in the traceback besides igc_dist and Lightning."""
    ours = ("igc_dist", "lightning", "lightning_utilities", "torchmetrics", "importlib", "_frozen_importlib")
    while trace is not None:
        package = str(trace.tb_frame.f_globals.get("__name__", "")).split(".")[0]
        if package and package not in ours and not package.startswith("_frozen"):
            return package
        trace = trace.tb_next
    return "lightning"


try:
    from lightning.fabric import Fabric
    from lightning.fabric.loggers import CSVLogger
    from lightning.fabric.plugins.environments import (
        ClusterEnvironment,
        LightningEnvironment,
        LSFEnvironment,
        MPIEnvironment,
        SLURMEnvironment,
        TorchElasticEnvironment,
    )
    from lightning.fabric.strategies import ModelParallelStrategy
    from lightning.fabric.strategies.parallel import ParallelStrategy
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
except Exception as error:
    raise ConfigError(
        f"lightning cannot be imported, since {(name := culprit(error.__traceback__))} fails "
        f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}): mend {name} so that it fits "
        f"this torch, or remove it with pip uninstall {name}"
    ) from error


class Torchrun(TorchElasticEnvironment):
    """torchrun, also on nodes with different numbers of ranks; and variables like its own that a user sets."""

    def local_rank(self) -> int:
        """The number of the rank on its machine; without LOCAL_RANK all ranks are on one."""
        return int(os.environ.get("LOCAL_RANK", self.global_rank()))

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Accepts everything: Lightning would require `num_devices` on every node, but uses neither number."""


class Grouped(Torchrun):
    """The ranks of a process group that the user's program has made."""

    def global_rank(self) -> int:
        """The rank in the group."""
        return dist.get_rank()

    def world_size(self) -> int:
        """The size of the group."""
        return dist.get_world_size()


class Divided(ModelParallelStrategy):
    """Lightning's strategy for a model in parts, with a mesh of one replica's ranks where Lightning takes all ranks."""

    def __init__(self, parts: Parts, mesh: Callable[[torch.device], DeviceMesh]) -> None:
        super().__init__(self._divided, parts.data, parts.tensor)
        self._parts, self._made = parts, mesh
        self.unfilled: Unfilled | None = None
        """The weights, where the module has none yet."""

    def _divided(self, module: nn.Module, mesh: DeviceMesh) -> nn.Module:
        found = distributed.sharding.divided(module, mesh, self._parts)
        if self.unfilled is not None:
            self.unfilled.fill(found, self.root_device, distributed.sharding.held)
        return found

    def setup_environment(self) -> None:
        """The device, and the mesh. The process group is there."""
        ParallelStrategy.setup_environment(self)
        self._setup_distributed()
        self._device_mesh = self._made(self.root_device)


def cluster() -> ClusterEnvironment | None:
    """The group of ranks that this process was started in, if any. Raises `ConfigError` if its variables are wrong."""
    try:
        found = _cluster()
        if found is None:
            return None
        rank, size, _ = found.global_rank(), found.world_size(), found.local_rank()
    except (RuntimeError, ValueError, KeyError) as error:
        says = f"{error} is not set" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise ConfigError(
            f"the environment names several ranks, but not which of them this process is ({says}): {_way_out()}"
        ) from error
    if not 0 <= rank < size:
        raise ConfigError(f"rank {rank} of {size} ranks cannot be, they are 0 to {size - 1}: {_way_out()}")
    return found


def _cluster() -> ClusterEnvironment | None:
    if dist.is_initialized():
        return Grouped()
    # other launchers that set torchrun's variables, such as Kubeflow's, count as torchrun
    if ("RANK" in os.environ and "WORLD_SIZE" in os.environ) or TorchElasticEnvironment.detect():
        return Torchrun()
    if "SLURM_NTASKS" in os.environ and SLURMEnvironment.detect():  # detect() warns wherever srun is installed
        return SLURMEnvironment()
    for kind in (LSFEnvironment, MPIEnvironment):
        if kind.detect():
            return kind()
    return None


def _way_out() -> str:
    names = variables()
    if names == "SLURM_NTASKS":
        n = os.environ[names]
        return (
            f"start all ranks with srun --ntasks-per-node=N (SLURM_NTASKS is {n}), or unset {names} to run on one rank"
        )
    return f"start all ranks with torchrun or srun, or unset {names} to run on one rank"


def divided(
    found: ClusterEnvironment, accelerator: str, size: int, parts: Parts, mesh: Callable[[torch.device], DeviceMesh]
) -> ModelParallelStrategy:
    """The strategy of a Fabric on this rank, one of `size`, whose model is in parts on the ranks of `mesh`."""
    made = Divided(parts, mesh)
    launched(found, accelerator, made, size)
    return made


def launched(found: ClusterEnvironment | None, accelerator: str, strategy: str | Divided, size: int) -> Fabric:
    """A Fabric for this rank and its device; for a single rank if `found` is None.

    Raises `ConfigError` for an accelerator or a strategy that this machine does not have.
    """
    with _only_our_settings():
        try:
            if found is None:
                fabric = Fabric(accelerator=accelerator, devices=1, plugins=[LightningEnvironment()])
            else:
                local = int(os.environ.get("LOCAL_WORLD_SIZE", size // int(os.environ.get("SLURM_NNODES", "1"))))
                kind, nodes = "ddp" if strategy == "auto" else strategy, max(1, size // local)
                fabric = Fabric(accelerator=accelerator, devices=local, num_nodes=nodes, strategy=kind, plugins=[found])
            fabric.launch()
        except (RuntimeError, ValueError, ImportError, MisconfigurationException) as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(
                f"fabric.accelerator={accelerator} with fabric.strategy={strategy} cannot be used here ({why}): "
                "take cpu or auto, with strategy auto"
            ) from error
    return fabric


@contextmanager
def _only_our_settings() -> Iterator[None]:
    """Hide the variables of Lightning's own command line, which would override what Fabric is given.

    With OMP_NUM_THREADS set, Lightning leaves the number of threads alone, on which the last bits depend.
    """
    hidden = {name: os.environ.pop(name) for name in [*os.environ] if name.startswith("LT_")}
    bare = "OMP_NUM_THREADS" not in os.environ
    if bare:
        os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        os.environ.update(hidden)
        if bare:
            os.environ.pop("OMP_NUM_THREADS", None)


def loggers(names: Sequence[str], folder: Path) -> list[Any]:
    """Lightning's loggers by name, which write into `folder`. tensorboard and wandb need their packages."""
    made: list[Any] = []
    for name in names:
        files.refuse_links(folder, name, f"{name}/metrics.csv")
        if name == "csv":
            made.append(CSVLogger(folder, name="csv", version="", flush_logs_every_n_steps=1))
        elif name in ("tensorboard", "wandb"):
            try:
                made.append(
                    TensorBoardLogger(folder, name="tensorboard", version="")
                    if name == "tensorboard"
                    else WandbLogger(save_dir=folder)
                )
            except ModuleNotFoundError as error:
                raise ConfigError(
                    f"fabric.loggers has {name}, which is not installed: pip install 'igc-dist[{name}]'"
                ) from error
        else:
            raise ConfigError(f"fabric.loggers has {name!r}: choose from csv, tensorboard, wandb")
    return made
