"""The time in which a run fills a store: it holds the lock, shows its status, and records there why it failed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from igc_dist.distributed import World
from igc_dist.records import IgcError, PeerError, Stopped, StoreError, said
from igc_dist.store.beacon import Beacon
from igc_dist.store.documents import unsealed
from igc_dist.store.folder import GONE
from igc_dist.store.lock import Lock
from igc_dist.store.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tenure:
    """What a run holds while it fills its store. `complete`: the store is complete, so there is nothing to do."""

    lock: Lock
    beacon: Beacon
    complete: bool


@contextmanager
def holding(store: Store, world: World, opened: Callable[[Lock], bool]) -> Iterator[Tenure]:
    """Hold a store while the block lasts. `opened(lock)` opens it, and returns whether it is complete.

    That another rank is gone is no error once the store is complete.
    """
    lock = Lock(store.objects, world.size, lambda: world.watch("waiting for the lock"))
    beacon = Beacon(store.objects, lambda: lock.held)
    store.guard = lock.check
    is_open = False
    try:
        tenure = Tenure(lock, beacon, opened(lock))
        is_open = True
        with world.linked():
            yield tenure
    except Stopped:
        raise
    except (IgcError, OSError) as error:
        if is_open and store.gone():
            raise StoreError(GONE.format(store.path)) from error
        about = unsealed(store.objects.get("zarr.json")) if isinstance(error, PeerError) else None
        if is_open and about is not None and about.get("status") == "complete":
            log.warning("%s. The store is complete", error)  # so nobody misses that rank
            world.bereft = True
            return
        if isinstance(error, OSError):
            raise
        if lock.held or store.path is None:  # never into the store of another run
            store.fail(said(error))
        raise
    finally:
        beacon.out()
        lock.release()
