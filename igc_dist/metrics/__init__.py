"""Metrics of faithfulness: one score, one file.

May import: targets, statistics, model, data, tensors, arrays, seeds, records. Its public names stand in `__init__.pyi`
and are loaded when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
