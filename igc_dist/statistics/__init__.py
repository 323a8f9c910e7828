"""Statistics of attributions over a data set. One algebra per file; the algebra they share is `state.py`."""

from igc_dist.statistics.agreement import Agreement
from igc_dist.statistics.autocorrelation import AutoCorrelation
from igc_dist.statistics.base import Finalized, Statistic
from igc_dist.statistics.correlation import Correlation
from igc_dist.statistics.moments import Moments
from igc_dist.statistics.state import Centre, State, empty, of, tree_sum

STATISTICS: dict[str, type[Statistic]] = {kind.name: kind for kind in (Correlation, AutoCorrelation, Moments)}
"""What a user can ask for by name; `Agreement` is always computed."""

__all__ = [
    "STATISTICS",
    "Agreement",
    "AutoCorrelation",
    "Centre",
    "Correlation",
    "Finalized",
    "Moments",
    "State",
    "Statistic",
    "empty",
    "of",
    "tree_sum",
]
