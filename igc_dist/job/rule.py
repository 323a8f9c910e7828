"""A rule that refuses a job, with its reason and the way out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from igc_dist.records import ConfigError


@dataclass(frozen=True)
class Rule:
    """A job is refused if it is `broken`. Reason and way out may use, in braces, the names that `of(job)` returns."""

    broken: Callable[[Any], bool]
    reason: str
    way_out: str
    of: Callable[[Any], Mapping[str, str]] = lambda job: {}

    def check(self, job: Any) -> None:
        """Raise `ConfigError` if the job breaks the rule."""
        if self.broken(job):
            raise ConfigError(f"{self.reason}: {self.way_out}".format(**self.of(job)))
