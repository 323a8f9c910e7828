"""The Zarr store: layout, objects, admission of what others wrote, lock. The only zarr and obstore.

May import: planning, distributed, data, statistics, secrets, files, faults, records. Its public names stand in
`__init__.pyi` and are loaded when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
