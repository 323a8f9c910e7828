"""`run.json`: one document at the end of a run, also of a failed run.

It says what ran, how it went, how good the results are, and which faults it survived.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from igc_dist import files
from igc_dist.distributed import GIB, Heard, rate, skew
from igc_dist.records import Stopped, said
from igc_dist.results import versions
from igc_dist.secrets import masked
from igc_dist.store import Store, unsealed
from igc_dist.watching.progress import Meter

SCHEMA = 1

QUALITY = ("igc_error", "quadrature_error", "completeness_error")
AUDITED = ("precision_error", "precision_completeness_error")


@dataclass
class Account:
    """The account of a run into a store. Its document always has the same keys; a key without a value is null."""

    file: Path
    store: str | Path
    overrides: Sequence[str] = ()
    options: Sequence[str] = ()
    """What else stood on the command line: ``--path``, ``--allow-target``."""
    meter: Meter | None = None
    before: dict[str, Any] = field(default_factory=dict)
    """The document that was there before: of an earlier attempt, or of another run."""
    began: float = field(default_factory=time.time)
    aside: files.Aside = field(init=False)
    _closed: list[BaseException | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.aside = files.Aside(self.file)
        with suppress(OSError, ValueError, RecursionError):
            found = json.loads(files.read(self.file))
            self.before = found if isinstance(found, dict) else {}

    def join(self, meter: Meter) -> None:
        """Take the progress from `meter` from now on. Once the store is open, the document says "running"."""
        self.meter = meter
        meter.opened = lambda: self.write("running")

    def close(self, error: BaseException | None) -> None:
        """Write the final document, unless it was written before. A new error is written again.

        A run that found everything done keeps the document of the run that did it.
        """
        if self._closed and (error is None or error in self._closed):
            return
        self._closed.append(error)
        store, status = (
            self._store,
            "complete" if error is None else "stopped" if isinstance(error, Stopped) else "failed",
        )
        idle = error is None and self.meter is not None and not self.meter.resumed
        if (
            idle
            and store is not None
            and self.before.get("status") == "complete"
            and self.before.get("spec_hash") == store.spec_hash
        ):
            return
        self.write(status, error)

    def write(self, status: str, error: BaseException | None = None) -> None:
        """Replace the document, masked, at once. Results do not depend on it."""
        with self.aside.trying():
            text = json.dumps(masked(_plain(self.document(status, error))), indent=1, allow_nan=False) + "\n"
            files.folder(self.file.parent)
            files.write(self.file, text.encode())

    @property
    def _store(self) -> Store | None:
        return None if self.meter is None else self.meter.store

    def document(self, status: str, error: BaseException | None) -> dict[str, Any]:
        """The whole account, not masked yet, and possibly with numbers that are not finite."""
        store, meter = self._store, self.meter
        about = {} if store is None else unsealed(store.objects.get("zarr.json")) or {}
        if store is not None and about.get("spec_hash") != store.spec_hash:
            about = {}  # it belongs to another run
        if meter is not None and status != "running":
            meter.clock.enter("")
        timings = {} if meter is None else meter.clock.seconds
        code = None if status == "running" else 0 if error is None else getattr(error, "exit_code", 1)
        where = about.get("provenance", {})
        return {
            "schema": SCHEMA,
            "status": status,
            "exit_code": code,
            "error": None if error is None else {"type": type(error).__name__, "message": said(error)},
            "store": str(self.store),
            "spec_hash": None if store is None else store.spec_hash,
            "spec": None if store is None else store.spec,
            "overrides": [*self.overrides],
            "options": [*self.options],
            "versions": versions(),
            "machine": {name: where.get(name) for name in ("platform", "device", "ranks", "threads", "rule")},
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.began)),
            "seconds": round(time.time() - self.began, 3),
            "timings": {
                name: timings.get(name) for name in ("first_look", "predict", "attribute", "replicate", "finalize")
            },
            "throughput": {
                phase: _throughput(*heard, timings.get(phase, 0.0))
                for phase, heard in (meter.heard if meter else {}).items()
            },
            "completeness": {name: _extremes(store, name, status) for name in QUALITY},
            "precision": {
                "audited": None if store is None else store.spec.get("audit"),
                **{name: _extremes(store, name, status) for name in AUDITED},
                "fallback": about.get("fallback") or None,
            },
            **{name: about.get(name) for name in ("cost", "budget", "skipped", "retried")},
            "survived": self._survived(),
        }

    def _survived(self) -> dict[str, Any]:
        """Faults that the run survived: what earlier attempts had done, and what was done again."""
        store, meter = self._store, self.meter
        again = (
            store is not None
            and self.before.get("spec_hash") == store.spec_hash
            and self.before.get("status") != "complete"
        )
        tallies = [
            tally
            for heard, _, _ in (meter.heard if meter else {}).values()
            for pulse, _ in heard.values()
            for tally in [pulse.tally]
        ]
        earlier = self.before.get("survived") if again else None
        attempts = earlier.get("earlier_attempts") if isinstance(earlier, dict) else None
        return {
            "earlier_attempts": (attempts if isinstance(attempts, int) else 0) + 1 if again else 0,
            "restarts": int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")),
            "resumed_shards": {} if meter is None else dict(meter.resumed),
            "lock_takeovers": 0 if meter is None else meter.takeovers,
            "out_of_memory_shards": sum(tally.retried for tally in tallies),
            "reissued_leases": 0 if meter is None else meter.world.reissued,
            "slow_ranks": [] if meter is None else [*meter.stragglers.told.values()],
        }


def _throughput(heard: Heard, per_sample: int, outputs: float, seconds: float) -> dict[str, Any]:
    """The throughput of a finished phase: of all ranks by the clock, and of each rank while it worked."""
    ranks = []
    for rank, (pulse, _) in heard.items():
        tally, rows = pulse.tally, rate(pulse)
        ranks.append(
            {
                "rank": rank,
                "shards": tally.shards,
                "busy_s": tally.busy,
                "data_wait_s": tally.waited,
                "images_per_s": rows / max(per_sample, 1),
                "grad_evals_per_s": rows * outputs,
                "memory_peak_gib": pulse.peak / GIB,
                "gpu_mem_peak_gib": pulse.device_peak / GIB if pulse.device_peak else None,
            }
        )
    rows = sum(pulse.tally.rows for pulse, _ in heard.values()) / seconds if seconds > 0 else 0.0
    return {
        "images_per_s": rows / max(per_sample, 1),
        "grad_evals_per_s": rows * outputs,
        "rank_skew": skew(heard),
        "ranks": ranks,
    }


def _extremes(store: Store | None, name: str, status: str) -> dict[str, float] | None:
    """The smallest and largest value of a result over the outputs.

    None if the method has no such number, or if there is no result yet.
    """
    if status != "complete" or store is None or store.objects.get(f"{name}/zarr.json") is None:
        return None
    values = np.asarray(store.array(name)[...], dtype=np.float64)
    fine = values[~np.isnan(values)]
    return {"min": float(fine.min()), "max": float(fine.max())} if fine.size else None


def _plain(value: Any) -> Any:
    """The value as JSON has it: no NaN and infinity, and text for what it does not know."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)


@contextmanager
def kept(account: Account | None) -> Iterator[None]:
    """Close the account when the block ends, also after an error. None: this is not the first rank."""
    try:
        yield
    except BaseException as error:
        if account is not None:
            account.close(error)
        raise
    if account is not None:
        account.close(None)
