"""Starts ranks on this machine, as torchrun does, and returns their exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from igc_dist.records import Stopped


def launch(devices: int, arguments: Sequence[str], run_id: str) -> int:
    """Start `devices` ranks of ``python -m igc_dist`` on this machine, as torchrun does. Returns an exit code."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=run_id,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=0,
        monitor_interval=0.1,
        local_addr="127.0.0.1",
        signals_to_handle="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
    )
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # `_cause` reports it instead
    try:
        elastic_launch(config, sys.executable)("-m", "igc_dist", *arguments)
    except ChildFailedError as error:
        return _cause({rank: failure.exitcode for rank, failure in error.failures.items()})
    except (SignalException, KeyboardInterrupt):
        return Stopped.exit_code
    return 0


def _cause(codes: dict[int, int]) -> int:
    """The exit code of a run from those of its ranks. When one rank fails, the agent ends all others with SIGTERM."""
    killed = {rank: -code for rank, code in codes.items() if code < 0 and code != -signal.SIGTERM}
    for rank, number in killed.items():
        print(
            f"igc-dist: rank {rank} was killed by signal {number}: run the same command again to go on", file=sys.stderr
        )
    own = [code for code in codes.values() if code > 0 and code != Stopped.exit_code]
    return 1 if killed else own[0] if own else Stopped.exit_code
