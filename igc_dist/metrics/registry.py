"""The metrics that a user can ask for by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from igc_dist.metrics.aic import Aic
from igc_dist.metrics.average_drop import AverageDrop
from igc_dist.metrics.base import Metric
from igc_dist.metrics.completeness import Completeness
from igc_dist.metrics.deletion import Deletion
from igc_dist.metrics.infidelity import Infidelity
from igc_dist.metrics.insertion import Insertion
from igc_dist.metrics.lossy import Lossy
from igc_dist.metrics.max_sensitivity import MaxSensitivity
from igc_dist.metrics.mufidelity import MuFidelity
from igc_dist.metrics.overlap import Overlap
from igc_dist.metrics.pointing_game import PointingGame
from igc_dist.metrics.randomisation import Randomisation
from igc_dist.metrics.road import Road
from igc_dist.metrics.sensitivity_n import SensitivityN
from igc_dist.metrics.sic import Sic
from igc_dist.metrics.sparseness import Sparseness
from igc_dist.metrics.steps import Steps
from igc_dist.records import ConfigError

METRICS: dict[str, type[Metric]] = {
    kind.name: kind
    for kind in (
        Insertion,
        Deletion,
        Aic,
        Sic,
        Road,
        AverageDrop,
        Completeness,
        Infidelity,
        MaxSensitivity,
        SensitivityN,
        MuFidelity,
        Sparseness,
        PointingGame,
        Overlap,
        Lossy,
        Steps,
        Randomisation,
    )
}
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
        if not hasattr(given, "name"):
            raise ConfigError(f"the class {type(given).__name__} has no name: give it one, as other metrics have")
        if label and not str(label).isidentifier():
            raise ConfigError(f"metrics: {label!r} is no name for scores, give letters, digits and underscores")
        if (label or given.name) in found:
            raise ConfigError(
                f"{given.name} is asked for twice: give a mapping, such as {{'{given.name}_a': ..., "
                f"'{given.name}_b': ...}}"
            )
        found[label or given.name] = given
    if not found:
        raise ConfigError(f"no metrics: choose from {', '.join(METRICS)}")
    return found
