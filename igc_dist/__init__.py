"""igc-dist: what a model has learned from a whole data set, split over its input features."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from igc_dist import baselines as baselines
    from igc_dist import features as features
    from igc_dist.api import attribute as attribute
    from igc_dist.budget import Budget as Budget
    from igc_dist.quadrature import Quadrature as Quadrature
    from igc_dist.reading import open as open
    from igc_dist.targets import Targets as Targets

_HOMES = {
    "attribute": "api",
    "open": "reading",
    "Budget": "budget",
    "Quadrature": "quadrature",
    "Targets": "targets",
    "baselines": "",
    "features": "",
}

__all__ = ["Budget", "Quadrature", "Targets", "attribute", "baselines", "features", "open"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `igc-dist --help` does not wait for torch."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'igc_dist' has no attribute {name!r}")
    home = importlib.import_module(f"igc_dist.{_HOMES[name] or name}")
    return getattr(home, name) if _HOMES[name] else home
