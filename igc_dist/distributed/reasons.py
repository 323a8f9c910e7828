"""Why an exchange failed: what another rank said before it ended, in place of the error of a connection."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch.distributed as dist

from igc_dist.records import PeerError

if TYPE_CHECKING:
    from igc_dist.distributed.world import World


@contextmanager
def together(world: World | None, failure: type[Exception] = RuntimeError) -> Iterator[None]:
    """For code that needs the other ranks: replaces socket errors by `PeerError`, or by `Stopped` after a stop."""
    try:
        yield
    except failure as error:
        if world is not None:
            with contextlib.suppress(dist.DistError):
                world.watch("an exchange", force=True)  # may raise the reason
        raise PeerError(
            f"another rank is gone, see its own message; run again to resume ({str(error).splitlines()[0]})"
        ) from error
