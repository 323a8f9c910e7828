"""The data set as a source addressed by index.

May import: targets, tensors, arrays, files, records. Its public names stand in `__init__.pyi` and are loaded when they
are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
