"""igc-dist: what a model has learned from a whole data set, split over its input features."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
