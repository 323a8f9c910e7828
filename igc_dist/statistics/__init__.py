"""Statistics of attributions over a data set. One algebra per file; the algebra they share is `state.py`."""

from igc_dist.statistics.agreement import Agreement, unexplained
from igc_dist.statistics.autocorrelation import AutoCorrelation
from igc_dist.statistics.base import Finalized, Statistic
from igc_dist.statistics.cells import Cells, parted
from igc_dist.statistics.controlled import ControlledCorrelation
from igc_dist.statistics.correlation import Correlation
from igc_dist.statistics.moments import Moments
from igc_dist.statistics.pearson import Pearson
from igc_dist.statistics.state import Centre, State, empty, of, tree_sum
from igc_dist.statistics.ttest import TTest

STATISTICS: dict[str, type[Statistic]] = {
    kind.name: kind for kind in (Correlation, AutoCorrelation, Moments, Pearson, TTest, ControlledCorrelation)
}
"""What a user can ask for by name; `Agreement` is always computed."""

__all__ = [
    "STATISTICS",
    "Agreement",
    "AutoCorrelation",
    "Cells",
    "Centre",
    "ControlledCorrelation",
    "Correlation",
    "Finalized",
    "Moments",
    "Pearson",
    "State",
    "Statistic",
    "TTest",
    "empty",
    "of",
    "parted",
    "tree_sum",
    "unexplained",
]
