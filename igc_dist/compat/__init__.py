"""The signatures of other people's packages over the engine: of the IGC package, of Captum, and of PAIR's saliency.

May import: api, attributors, features, baselines, distributed, data, model, paths, statistics, seeds, tensors, arrays,
records. Its public names stand in `__init__.pyi` and are loaded when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
