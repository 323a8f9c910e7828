"""Lightning: clusters, launch and loggers. Imported only if ranks are launched or joined, or something is logged."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

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
    from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
except Exception as error:
    raise ConfigError(
        f"lightning cannot be imported, since {(name := culprit(error.__traceback__))} fails "
        f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}): mend {name} so that it fits "
        f"this torch, or remove it with pip uninstall {name}"
    ) from error


class Torchrun(TorchElasticEnvironment):
    """torchrun, also on nodes with different numbers of ranks."""

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Accepts everything: Lightning would require `num_devices` on every node, but uses neither number."""


def cluster() -> ClusterEnvironment | None:
    """The cluster that started this process as one of several ranks, if any."""
    # other launchers that set torchrun's variables, such as Kubeflow's, count as torchrun
    if ("RANK" in os.environ and "WORLD_SIZE" in os.environ) or TorchElasticEnvironment.detect():
        return Torchrun()
    if "SLURM_NTASKS" in os.environ and SLURMEnvironment.detect():  # detect() warns wherever srun is installed
        return SLURMEnvironment()
    for kind in (LSFEnvironment, MPIEnvironment):
        if kind.detect():
            return kind()
    return None


def launched(found: ClusterEnvironment | None, accelerator: str, strategy: str, size: int) -> Fabric:
    """A Fabric for this rank and its device; for a single rank if `found` is None."""
    try:
        if found is None:
            fabric = Fabric(accelerator=accelerator, devices=1, plugins=[LightningEnvironment()])
        else:
            local = int(os.environ.get("LOCAL_WORLD_SIZE", size // int(os.environ.get("SLURM_NNODES", "1"))))
            kind, nodes = "ddp" if strategy == "auto" else strategy, max(1, size // local)
            fabric = Fabric(accelerator=accelerator, devices=local, num_nodes=nodes, strategy=kind, plugins=[found])
    except (RuntimeError, ValueError, ImportError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"fabric.accelerator={accelerator} cannot be used here ({why}): take cpu or auto") from error
    fabric.launch()
    return fabric


def loggers(names: Sequence[str], folder: Path) -> list[Any]:
    """Lightning's loggers by name, which write into `folder`. tensorboard and wandb need their packages."""
    made: list[Any] = []
    for name in names:
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
