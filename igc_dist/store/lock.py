"""The lock on a store: one run at a time, even if runs die.

A lock is an object ``.lock-000007`` that names its holder; the holder rewrites it every few seconds. A run that wants
the store reads all such objects. If the holder of one of them lives, the store is in use. If all are dead, the run
*creates* the next number, which succeeds for only one of all runs that try, and reads all objects again. If only its
own lock has changed, it holds the lock, and removes the dead ones, the lowest first. So there is no gap between reading
a stale lock and taking it over: nothing is replaced or removed before the new lock exists. A run that acted on an old
reading finds other locks, or other bytes, and begins again. This needs only a conditional create, which object stores
have as well.

On its own machine, a holder is known at once to live or not. On another machine, it lives if its object changes during
the observation: clocks are never compared.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from igc_dist.records import StoreError, printable
from igc_dist.store.objects import BEACON, LOCK, Objects
from igc_dist.store.owner import Owner

log = logging.getLogger(__name__)

MOST = 1 << 16
"""Bytes of a lock."""

_NUMBERED = re.compile(re.escape(LOCK) + "[0-9]{1,18}")

RENEW = 5.0
"""Seconds between renewals: after this time another machine knows that a holder lives."""

EXPIRY = 30.0
"""Seconds without a renewal, as seen by another machine, after which a holder is dead: six missed renewals."""

TRIES = 1000
"""Largest number of attempts. Each failure means that another run moved at the same moment."""


@dataclass(frozen=True)
class Holder:
    """The content of a lock: the run that holds it."""

    owner: Owner
    ranks: int
    since: float
    """Seconds since 1970, by the owner's clock: only for display."""
    token: str
    beat: int = 0

    @classmethod
    def read(cls, text: bytes) -> Holder | None:
        """The holder, or None if these bytes are not a lock's.

        They may be an interrupted write without hard links, or a user's own file.
        """
        try:
            found = json.loads(text)
            owner = found.pop("owner")
            owner = Owner(str(owner["host"]), str(owner["machine"]), int(owner["pid"]), int(owner["began"]))
            if not 0 < owner.pid < 1 << 31:  # a message asks the user to end this process
                return None
            return cls(owner, int(found["ranks"]), float(found["since"]), str(found["token"]), int(found["beat"]))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return None

    def text(self) -> bytes:
        """The bytes of the lock."""
        return json.dumps(asdict(self)).encode()

    def __str__(self) -> str:
        try:
            since = datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        except (ValueError, OverflowError, OSError):
            since = "an unknown time"
        host = printable(self.owner.host)
        return f"process {self.owner.pid} on {host} ({self.ranks} rank{'s' * (self.ranks != 1)}) since {since}"


class Lock:
    """The right of a run to write a store, for rank 0. `watch` is called while waiting; it may raise to stop."""

    def __init__(
        self,
        objects: Objects,
        ranks: int = 1,
        watch: Callable[[], None] = lambda: None,
        renew: float = RENEW,
        expiry: float = EXPIRY,
    ) -> None:
        self.objects, self.ranks, self.watch = objects, ranks, watch
        self.renew, self.expiry = renew, expiry
        self.lost = False
        self.takeovers = 0
        """Number of locks of dead runs that were replaced."""
        self._key, self._text = "", b""
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def held(self) -> bool:
        """Whether this run may write."""
        return bool(self._key) and not self.lost

    def take(self) -> None:
        """Take the lock, and renew it from a thread until `release`.

        The lock of a dead process of this machine is replaced at once. For a lock of another machine the run waits at
        most `expiry` seconds. Raises `StoreError` that says who holds the lock, since when, and what to do.
        """
        if self.held:
            return
        for _ in range(TRIES):
            seen = _locks(self.objects)
            if self._all_dead(seen) and self._created(seen):
                break
            time.sleep(0.001)
        else:
            raise StoreError(f"store {self.objects.path}: its lock ({LOCK}*) changed hands all the time; run again")
        self.lost = False
        self._ended.clear()
        self._thread = threading.Thread(target=self._renewing, name="igc-dist lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `StoreError` if another run took the lock over: after a long sleep, writing is no longer allowed."""
        if self.lost:
            raise StoreError(
                f"store {self.objects.path}: another run has taken it over, since this one gave no sign of life for "
                f"{self.expiry:g} s "
                "(suspended, or its disk did not answer). Shards that were committed are safe: see igc-dist info, and "
                "let one run go on"
            )

    def release(self) -> None:
        """Release the lock if it is held. If that fails, the end of this process releases it."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(self.renew)
        with suppress(OSError, StoreError):
            if self.held and self.objects.get(self._key) == self._text:
                self.objects.drop(self._key)
        self._key = ""

    def _all_dead(self, seen: Mapping[str, bytes]) -> bool:
        """Whether all these holders are dead. False also asks for a new reading; raises if one of them lives."""
        holders = {key: Holder.read(text) for key, text in seen.items()}
        for holder in holders.values():
            if holder is not None and holder.owner.near and holder.owner.lives():
                raise self._in_use(holder)
        afar = {key: seen[key] for key, holder in holders.items() if holder is None or not holder.owner.near}
        if not afar:
            return True
        who = " and ".join(f"{holder or 'somebody'}" for key, holder in holders.items() if key in afar)
        log.warning(
            "store %s: the lock of %s; looking on for %g s whether it lives", self.objects.path, who, self.expiry
        )
        until = time.monotonic() + self.expiry
        while time.monotonic() < until:
            time.sleep(min(0.5, self.renew / 4))
            self.watch()
            for key, text in afar.items():
                if (now := self.objects.get(key)) is None:
                    return False
                if now != text:
                    raise self._in_use(Holder.read(now))
        return True

    def _in_use(self, holder: Holder | None) -> StoreError:
        way = "wait for it" if holder is None else f"wait for it or end it (kill {holder.owner.pid} on its machine)"
        return StoreError(
            f"store {self.objects.path} is in use: {holder or 'a run'} is filling it. Two runs cannot share a store: "
            f"{way}, "
            "or give another store.path. What it has committed is kept, and the lock of a run that died needs no care"
        )

    def _created(self, seen: Mapping[str, bytes]) -> bool:
        key = f"{LOCK}{max(map(_number, seen), default=0) + 1:06d}"
        text = Holder(Owner.this(), self.ranks, time.time(), uuid.uuid4().hex).text()
        if not self.objects.create(key, text):
            return False
        # reads its own lock again, last: a listing may miss a lock that is created while another one is removed, but
        # then this one was removed earlier
        if _locks(self.objects) == {**seen, key: text} and self.objects.get(key) == text:
            self._key, self._text, self.takeovers = key, text, len(seen)
            for dead in seen:
                self.objects.drop(dead)
            return True
        self.objects.drop(key)
        return False

    def _renewing(self) -> None:
        """Renew the lock from a thread: a forward pass may take longer than the lock lasts."""
        while not self._ended.wait(self.renew):
            try:
                if self.objects.get(self._key) != self._text or [*_locks(self.objects)][-1] != self._key:
                    self.lost = True
                    return
                holder = Holder.read(self._text)
                assert holder is not None
                text = replace(holder, beat=holder.beat + 1).text()
                self.objects.set(self._key, text)
                self._text = text
            except (OSError, StoreError) as error:
                log.warning(
                    "store %s: the lock was not renewed (%s)",
                    self.objects.path,
                    getattr(error, "strerror", None) or error,
                )


def tidy(objects: Objects) -> None:
    """Remove what runs that died after their last write left beside a complete store: locks, and a status.

    Only of dead processes of this machine: nothing tells those of another one from runs that end just now.
    """
    if objects.path is None:
        return
    with suppress(OSError, StoreError):  # a store that may only be read stays as it is
        seen = {key: Holder.read(text) for key, text in _locks(objects).items()}
        dead = [key for key, each in seen.items() if each is not None and each.owner.near and not each.owner.lives()]
        for key in [*([BEACON] if dead and len(dead) == len(seen) else []), *dead]:
            objects.drop(key)


def holder(objects: Objects) -> Holder | None:
    """The holder of a store, for readers: the highest lock whose owner lives, or may live on another machine."""
    for text in reversed([*_locks(objects).values()]):
        found = Holder.read(text)
        if found is not None and (not found.owner.near or found.owner.lives()):
            return found
    return None


def _locks(objects: Objects) -> dict[str, bytes]:
    """The bytes of all locks by key, the lowest first."""
    keys = [key for key in objects.beginning(LOCK) if _NUMBERED.fullmatch(key)]
    return {key: text for key in sorted(keys, key=_number) if (text := objects.get(key, MOST)) is not None}


def _number(key: str) -> int:
    return int(key.removeprefix(LOCK))
