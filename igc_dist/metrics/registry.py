"""The metrics that a user can ask for by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from igc_dist.metrics.base import Metric
from igc_dist.metrics.completeness import Completeness
from igc_dist.metrics.deletion import Deletion
from igc_dist.metrics.insertion import Insertion
from igc_dist.metrics.sparseness import Sparseness
from igc_dist.records import ConfigError

METRICS: dict[str, type[Metric]] = {kind.name: kind for kind in (Insertion, Deletion, Completeness, Sparseness)}
"""Metrics by the name that a user can choose."""


def labelled(metrics: Sequence[str | Metric] | Mapping[str, str | Metric]) -> dict[str, Metric]:
    """Metrics by their names in the result: their own, or the keys of a mapping.

    Raises `ConfigError` for an unknown metric, a name given twice, and an empty list.
    """
    if isinstance(metrics, str):
        raise ConfigError(f"metrics={metrics!r}: give a list, [{metrics!r}]")
    pairs = metrics.items() if isinstance(metrics, Mapping) else [("", metric) for metric in metrics]
    found: dict[str, Metric] = {}
    for label, given in pairs:
        if isinstance(given, str) and given in METRICS:
            given = METRICS[given]()
        if not isinstance(given, Metric):
            raise ConfigError(f"metric {given!r}: choose from {', '.join(METRICS)}, or give a Metric")
        if (label or given.name) in found:
            raise ConfigError(
                f"{given.name} is asked for twice: give a mapping, such as {{'{given.name}_a': ..., "
                f"'{given.name}_b': ...}}"
            )
        found[label or given.name] = given
    if not found:
        raise ConfigError(f"no metrics: choose from {', '.join(METRICS)}")
    return found
