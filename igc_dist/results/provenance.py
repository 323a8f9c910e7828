"""Where results come from: versions, platform, device, ranks, time."""

from __future__ import annotations

import platform
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from igc_dist.distributed import World
from igc_dist.job import Job
from igc_dist.model import numerics


def versions() -> dict[str, str]:
    """Versions of this package, of the packages that decide its numbers, and of Python."""
    packages = ("igc-dist", "torch", "lightning", "numpy", "zarr")
    return {name: _version(name) for name in packages} | {"python": platform.python_version()}


def provenance_of(job: Job, world: World, started: float) -> dict[str, Any]:
    """The provenance of a run that began at `started`, in seconds since the epoch."""
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(world.device)
        if world.device.type == "cuda"
        else platform.processor() or platform.machine(),
        "ranks": world.size,
        **({} if world.members == 1 else {"ranks_of_a_replica": world.members}),
        "rule": job.attributor.rule,
        "threads": torch.get_num_threads(),
        "numerics": {**numerics.context(), "in_one_order": job.model.in_one_order},
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 3),
        **{name: str(value) for name, value in job.labels.items()},
    }


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
