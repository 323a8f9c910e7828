"""Pass 1 predicts every sample, pass 2 walks the paths and folds attributions.

May import: store, planning, inputs, attributors, metrics, features, baselines, data, model, paths, statistics, targets,
faults, seeds, tensors, records. Its public names stand in `__init__.pyi` and are loaded when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
