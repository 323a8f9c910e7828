"""Finds out whether this process is one of several ranks: of a cluster, or of a process group of the user's program.

Lightning is asked only if there is such a group, or if an environment variable hints at a cluster.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from igc_dist import distributed

HINTS = ("RANK", "TORCHELASTIC_", "SLURM_NTASKS", "LSB_", "JSM_", "OMPI_", "PMI_", "PMIX_", "MPI_", "MV2_", "PALS_")
"""Prefixes of the environment variables of launchers: torchrun and similar ones, SLURM, LSF, and MPI."""


def environment() -> Any:
    """Lightning's object for the group of ranks that this process belongs to; None if it was started alone.

    A process group that the program has made, as under ``torch.multiprocessing.spawn``, comes before the variables of a
    cluster. Raises `ConfigError` if the variables do not say which rank this is.
    """
    if not (_grouped() or any(name.startswith(HINTS) for name in os.environ)):
        return None
    return distributed.lightning_door.cluster()


def _grouped() -> bool:
    """Whether the program has made a process group. Without torch there is none, and a look is then not worth it."""
    torch = sys.modules.get("torch.distributed")
    return torch is not None and torch.is_available() and torch.is_initialized()


def rank() -> int:
    """The number of this rank, from 0; 0 if the process was started alone."""
    found = environment()
    return 0 if found is None else int(found.global_rank())


def variables() -> str:
    """The variables that say that this process is one of several ranks, for messages."""
    for names in (("RANK", "WORLD_SIZE"), ("SLURM_NTASKS",)):
        if names[0] in os.environ:
            return " and ".join(names)
    return ", ".join(sorted(name for name in os.environ if name.startswith(HINTS))) or "RANK and WORLD_SIZE"
