"""The lock on a store: one run at a time, whoever dies.

A lock is an object ``.lock-000007`` that says who holds it; the holder writes it anew every few seconds. Whoever wants the
store reads all such objects: if one of them lives, the store is in use; if all are dead, it *creates* the next number,
which of all who try succeeds for one, and looks again. Only if nothing but its own has changed is the lock its own, and
then the dead ones go, the lowest first. So there is no moment between reading a stale lock and taking it over: nothing
is replaced or removed before the new lock is there, and one who acted on an old look finds another set, or other bytes,
and begins again. All it takes is a conditional create, which object stores have as well.

Whether a holder lives is known at once on its own machine. From elsewhere it lives if its object changes while one
looks on: no two clocks are compared.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from igc_dist.objects import LOCK, Objects
from igc_dist.owner import Owner
from igc_dist.records import StoreError

log = logging.getLogger(__name__)

RENEW = 5.0
"""Seconds between renewals: another machine knows after so long that a holder lives."""

EXPIRY = 30.0
"""Seconds without a renewal, under the eyes of another machine, after which a holder is dead: six renewals missed."""

TRIES = 1000
"""Each failure means that somebody else moved at the same moment."""


@dataclass(frozen=True)
class Holder:
    """What a lock says of the run that holds it."""

    owner: Owner
    ranks: int
    since: float
    """Seconds since 1970, by the owner's clock: for people only."""
    token: str
    beat: int = 0

    @classmethod
    def read(cls, text: bytes) -> Holder | None:
        """The holder, None if these bytes are no lock's (an interrupted write without hard links; somebody's own file)."""
        try:
            found = json.loads(text)
            owner = found.pop("owner")
            owner = Owner(str(owner["host"]), str(owner["machine"]), int(owner["pid"]), int(owner["began"]))
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
        host = "".join(letter if letter.isprintable() else "?" for letter in self.owner.host)  # a file's word, on a terminal
        return f"process {self.owner.pid} on {host} ({self.ranks} rank{'s' * (self.ranks != 1)}) since {since}"


class Lock:
    """The right of a run to write a store. For rank 0; `watch` is called while waiting, and may raise to end it."""

    def __init__(
        self, objects: Objects, ranks: int = 1, watch: Callable[[], None] = lambda: None, renew: float = RENEW, expiry: float = EXPIRY
    ) -> None:
        self.objects, self.ranks, self.watch = objects, ranks, watch
        self.renew, self.expiry = renew, expiry
        self.lost = False
        self.takeovers = 0
        """Locks of dead runs that were in the way."""
        self._key, self._text = "", b""
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def held(self) -> bool:
        """Whether this run may write."""
        return bool(self._key) and not self.lost

    def take(self) -> None:
        """Take the lock, and renew it from a thread until `release`. A dead process of this machine is no hindrance; one of another
        machine is waited for, at most `expiry` seconds.

        Raises `StoreError` that says who holds it, since when and what to do.
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
        """Raises `StoreError` if the lock was taken over: a run that slept so long may not write into another's store."""
        if self.lost:
            raise StoreError(
                f"store {self.objects.path}: another run has taken it over, since this one gave no sign of life for {self.expiry:g} s "
                "(suspended, or its disk did not answer). Shards that were committed are safe: see igc-dist info, and let one run go on"
            )

    def release(self) -> None:
        """Give the lock back; nothing if it is not held. If that fails, the end of this process gives it back."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(self.renew)
        with suppress(OSError, StoreError):
            if self.held and self.objects.get(self._key) == self._text:
                self.objects.drop(self._key)
        self._key = ""

    def _all_dead(self, seen: Mapping[str, bytes]) -> bool:
        """Whether nobody of these holds the store; raises if somebody lives, and False asks for a new look."""
        holders = {key: Holder.read(text) for key, text in seen.items()}
        for holder in holders.values():
            if holder is not None and holder.owner.near and holder.owner.lives():
                raise self._in_use(holder)
        afar = {key: seen[key] for key, holder in holders.items() if holder is None or not holder.owner.near}
        if not afar:
            return True
        who = " and ".join(f"{holder or 'somebody'}" for key, holder in holders.items() if key in afar)
        log.warning("store %s: the lock of %s; looking on for %g s whether it lives", self.objects.path, who, self.expiry)
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
            f"store {self.objects.path} is in use: {holder or 'a run'} is filling it. Two runs cannot share a store: {way}, "
            "or give another store.path. What it has committed is kept, and the lock of a run that died needs no care"
        )

    def _created(self, seen: Mapping[str, bytes]) -> bool:
        key = f"{LOCK}{max(map(_number, seen), default=0) + 1:06d}"
        text = Holder(Owner.this(), self.ranks, time.time(), uuid.uuid4().hex).text()
        if not self.objects.create(key, text):
            return False
        # its own once more, and last: a listing may miss a lock that comes while another goes, but then this one went before
        if _locks(self.objects) == {**seen, key: text} and self.objects.get(key) == text:
            self._key, self._text, self.takeovers = key, text, len(seen)
            for dead in seen:
                self.objects.drop(dead)
            return True
        self.objects.drop(key)
        return False

    def _renewing(self) -> None:
        """No part of the walk: a forward pass may take longer than the lock lasts."""
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
                log.warning("store %s: the lock was not renewed (%s)", self.objects.path, getattr(error, "strerror", None) or error)


def holder(objects: Objects) -> Holder | None:
    """Who holds a store, for readers: the highest lock whose owner lives, or is of another machine and may live."""
    for text in reversed([*_locks(objects).values()]):
        found = Holder.read(text)
        if found is not None and (not found.owner.near or found.owner.lives()):
            return found
    return None


def _locks(objects: Objects) -> dict[str, bytes]:
    """The bytes of all locks by key, the lowest first."""
    keys = [key for key in objects.beginning(LOCK) if key.removeprefix(LOCK).isdecimal()]
    return {key: text for key in sorted(keys, key=_number) if (text := objects.get(key)) is not None}


def _number(key: str) -> int:
    return int(key.removeprefix(LOCK))
