"""Finds out whether a cluster started this process as one of several ranks.

Lightning is asked only if an environment variable hints at a cluster.
"""

from __future__ import annotations

import os
from typing import Any

from igc_dist import distributed

HINTS = ("RANK", "TORCHELASTIC_", "SLURM_NTASKS", "LSB_", "JSM_", "OMPI_", "PMI_", "PMIX_", "MPI_", "MV2_", "PALS_")
"""Prefixes of the environment variables of launchers: torchrun and similar ones, SLURM, LSF, and MPI."""


def environment() -> Any:
    """Lightning's object for the cluster that started this process as one of several ranks; None without a cluster."""
    if not any(name.startswith(HINTS) for name in os.environ):
        return None
    return distributed.lightning_door.cluster()


def world_size() -> int:
    """The number of ranks of the job that this process belongs to; 1 if it was started alone."""
    found = environment()
    return 1 if found is None else int(found.world_size())
