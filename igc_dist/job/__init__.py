"""The job of a run: what is to be computed, and what identifies it.

May import: passes, store, planning, inputs, attributors, metrics, features, baselines, distributed, data, model,
paths, statistics, targets, secrets, files, tensors, records. Its public names stand in `__init__.pyi` and are loaded
when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
