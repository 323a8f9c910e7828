"""The status of a run beside its store, for other processes: an object that rank 0 rewrites every few seconds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from igc_dist import files
from igc_dist.records import StoreError
from igc_dist.secrets import masked
from igc_dist.store.objects import BEACON, Objects


class Beacon:
    """The status beside the store of a run, for rank 0. Writes nothing in memory, or without the right to write."""

    def __init__(self, objects: Objects, may: Callable[[], bool] = lambda: True) -> None:
        self.objects, self.may = objects, may
        self._aside = files.Aside(f"the status of store {objects.path}")

    def shine(self, document: Mapping[str, Any]) -> None:
        """Replace the status."""
        if self.objects.path is not None and self.may():
            with self._aside.trying():
                self.objects.set(BEACON, json.dumps({**masked(document), "at": time.time()}).encode())

    def out(self) -> None:
        """Remove the status, also that of a run that died."""
        if self.objects.path is not None and self.may():
            with suppress(OSError, StoreError):
                self.objects.drop(BEACON)


def seen(objects: Objects) -> dict[str, Any] | None:
    """The last status of a run; None if there is none, or if it cannot be read."""
    try:
        found = json.loads(objects.get(BEACON) or b"")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
