"""The cluster that started this process: torchrun and its like, SLURM, LSF, MPI, as Lightning knows them."""

from __future__ import annotations

import os

from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LSFEnvironment,
    MPIEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)


class Torchrun(TorchElasticEnvironment):
    """torchrun, on nodes that need not have the same number of ranks."""

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Nothing to refuse: Lightning would ask for `num_devices` on every node, but uses neither number for anything else."""


def environment() -> ClusterEnvironment | None:
    """The cluster that started this process as one of several ranks, if any."""
    # a launcher that sets torchrun's variables is one too, as Kubeflow's
    if ("RANK" in os.environ and "WORLD_SIZE" in os.environ) or TorchElasticEnvironment.detect():
        return Torchrun()
    for kind in (SLURMEnvironment, LSFEnvironment, MPIEnvironment):
        # asked outside SLURM, Lightning warns wherever srun is installed
        if (kind is not SLURMEnvironment or "SLURM_NTASKS" in os.environ) and kind.detect():
            return kind()
    return None


def world_size() -> int:
    """Ranks of the job that this process belongs to; 1 when it was started alone."""
    found = environment()
    return 1 if found is None else found.world_size()
