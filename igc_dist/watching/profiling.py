"""`profile=true`: torch's profiler over a few forward passes of pass 2 on rank 0.

It writes a trace for a browser and a table of the top operators. The computation and its bits are the same, but the
recorded passes are slower.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile, supported_activities

from igc_dist import files

log = logging.getLogger(__name__)

SKIP, PASSES = 1, 8
"""The number of forward passes (with gradients) before the record, as warm-up, and in the record."""

SECONDS = 10.0
"""The longest record in seconds, checked after each pass. An operator takes 10 us and 20 bytes of the packed trace, so
the trace is at most 20 MB."""

ROWS = 15
"""The number of operators in the table."""


class Profile:
    """Records into a file. The record begins with a pass of the phase `attribute`."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._recording: Any = None
        self._passes, self._since = 0, 0.0

    def passed(self, phase: str) -> None:
        """Note that a forward pass is over."""
        if phase != "attribute" or self._passes > SKIP + PASSES:
            return
        self._passes += 1
        if self._recording is None and self._passes == SKIP:
            self._recording = profile(
                activities=[*({ProfilerActivity.CPU, ProfilerActivity.CUDA} & {*supported_activities()})]
            )
            self._since = time.monotonic()
            self._recording.start()
        elif self._passes == SKIP + PASSES or time.monotonic() - self._since > SECONDS:
            self.end()

    def end(self) -> None:
        """Write the record. A second call does nothing."""
        if self._passes < SKIP:
            log.info("profile=true: no forward pass of pass 2 was left to do here, so there is no trace")
        self._passes = SKIP + PASSES + 1
        if self._recording is None:
            return
        recording, self._recording = self._recording, None
        recording.stop()
        with files.Aside(self.file).trying(), files.draft(self.file) as part:
            recording.export_chrome_trace(str(part))
        found = recording.key_averages()
        of_device = any(event.self_device_time_total > 0 for event in found)
        by = "self_device_time_total" if of_device else "self_cpu_time_total"
        log.info(
            "profile: %s (open it in ui.perfetto.dev or chrome://tracing)\n%s",
            self.file,
            found.table(sort_by=by, row_limit=ROWS),
        )


@contextmanager
def profiled(file: Path | None) -> Iterator[Profile | None]:
    """A `Profile` into a file whose name ends in .json.gz; None without a file. It is also written after an error."""
    if file is None:
        yield None
        return
    made = Profile(file)
    try:
        yield made
    finally:
        made.end()
