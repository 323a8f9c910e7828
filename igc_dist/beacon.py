"""What a run says of itself beside its store, for other processes to see: an object that rank 0 writes anew every few seconds."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from igc_dist.objects import BEACON, Objects
from igc_dist.records import StoreError

log = logging.getLogger(__name__)


class Beacon:
    """Beside the store of a run; nothing for one in memory, and nothing without the right to write. For rank 0."""

    def __init__(self, objects: Objects, may: Callable[[], bool] = lambda: True) -> None:
        self.objects, self.may = objects, may
        self._warned = False

    def shine(self, document: Mapping[str, Any]) -> None:
        """Say something, in place of what was said before. A disk that refuses is told of once: results do not hang on it."""
        if self.objects.path is None or not self.may():
            return
        try:
            self.objects.set(BEACON, json.dumps({**document, "at": time.time()}).encode())
        except (OSError, StoreError) as error:
            if not self._warned:
                log.warning("store %s: what the run does cannot be shown (%s)", self.objects.path, error)
            self._warned = True

    def out(self) -> None:
        """Say no more; also what a run that died has left."""
        if self.objects.path is not None and self.may():
            with suppress(OSError, StoreError):
                self.objects.drop(BEACON)


def seen(objects: Objects) -> dict[str, Any] | None:
    """What a run said last; None if there is nothing, or nothing that can be read."""
    try:
        found = json.loads(objects.get(BEACON) or b"")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
