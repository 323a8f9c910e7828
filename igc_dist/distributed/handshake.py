"""The ranks of one start find each other in a store that earlier starts may have used."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import torch.distributed as dist

from igc_dist.distributed.environments import variables
from igc_dist.records import ConfigError, PeerError

log = logging.getLogger(__name__)

POLL = 0.02
"""Seconds between looks at the store."""

NOTICE = 10.0
"""Seconds of waiting after which a rank says for whom it waits."""


def meet(address: str, port: int, rank: int, size: int, limit: float) -> dist.Store:
    """The store at `address`:`port` that all ranks share: rank 0 serves it, unless torchrun's agent does.

    Raises `PeerError` if rank 0 cannot be reached within `limit` seconds, `ConfigError` if rank 0 cannot serve.
    """
    served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not served and rank > 0:
        # torch's own client prints a trace of C++ for each attempt
        _until(lambda: _listens(address, port), limit, rank, 0, f"WORLD_SIZE={size} at {address}:{port}")
    try:
        return dist.TCPStore(
            address,
            port,
            size,
            is_master=rank == 0 and not served,
            timeout=timedelta(seconds=limit),
            wait_for_workers=False,  # `agree` waits, and says for whom
            multi_tenant=True,  # the port may be wanted again by a later group of this process
        )
    except dist.DistError as error:
        raise ConfigError(
            f"rank {rank} of {size} cannot use {address}:{port} ({str(error).splitlines()[0]}): set MASTER_ADDR to the "
            "machine of rank 0 and MASTER_PORT to a free port of it"
        ) from error


def _listens(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1.0):
            return True
    except OSError:
        return False


def agree(store: Any, rank: int, size: int, limit: float, where: str = "") -> str:
    """Agree on a name that all `size` ranks of this start share and that no other start used: a prefix in the store.

    torchrun's restart count cannot serve as such a name: an agent counts only the failures of its own ranks, so the
    counts of two nodes may differ. Rank 0 publishes a fresh name. Each other rank answers with a fresh word, and
    continues when rank 0 has repeated this word. So no rank follows the rank 0 of an earlier start. Raises `PeerError`
    if a rank does not come within `limit` seconds. `where`: the place of the store, for messages.
    """
    mine, came = uuid.uuid4().hex, f"WORLD_SIZE={size}{where and f' at {where}'}"
    if rank == 0:
        store.set("start", mine)
        words: dict[str, str] = {}
        until = time.monotonic() + limit
        for other in range(1, size):
            key = f"start/{mine}/{other}"
            _until(partial(store.check, [key]), until - time.monotonic(), rank, other, came)
            words[str(other)] = store.get(key).decode()
        store.set(f"start/{mine}", json.dumps(words))
        return mine
    agreed: list[str] = []

    def repeated() -> bool:
        if store.check(["start"]):
            name = store.get("start").decode()
            store.set(f"start/{name}/{rank}", mine)
            if store.check([f"start/{name}"]) and json.loads(store.get(f"start/{name}")).get(str(rank)) == mine:
                agreed.append(str(name))
        return bool(agreed)

    _until(repeated, limit, rank, 0, came)
    return agreed[0]


def _until(ready: Callable[[], bool], limit: float, rank: int, other: int, came: str) -> None:
    """Wait for rank `other`. Says so after `NOTICE` seconds; raises `PeerError` after `limit` seconds."""
    began, told = time.monotonic(), False
    while not ready():
        waited = time.monotonic() - began
        if waited > limit:
            raise PeerError(
                f"rank {other} of {came} did not come within {waited:.0f} s of rank {rank}: see the messages of its "
                f"node and run again to resume; if this process was meant to run alone, unset {variables()}"
            )
        if waited > NOTICE and not told:
            told = True
            log.warning(
                "rank %d waits for rank %d of %s: start it, or unset %s if this process is meant to run alone",
                rank,
                other,
                came,
                variables(),
            )
        time.sleep(POLL)
