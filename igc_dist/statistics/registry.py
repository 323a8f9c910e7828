"""The statistics that a user can ask for by name."""

from __future__ import annotations

from igc_dist.statistics.area import Area
from igc_dist.statistics.autocorrelation import AutoCorrelation
from igc_dist.statistics.base import Statistic
from igc_dist.statistics.controlled import ControlledCorrelation
from igc_dist.statistics.correlation import Correlation
from igc_dist.statistics.moments import Moments
from igc_dist.statistics.pearson import Pearson
from igc_dist.statistics.ttest import TTest

STATISTICS: dict[str, type[Statistic]] = {
    kind.name: kind for kind in (Correlation, AutoCorrelation, Moments, Pearson, TTest, ControlledCorrelation, Area)
}
"""Statistics by the name that a user can choose; `Agreement` is always computed."""
