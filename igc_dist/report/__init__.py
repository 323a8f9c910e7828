"""Pages, figures and tables of a store. Only this wing imports matplotlib and jinja2.

May import: results, statistics, secrets, files, records. Its public names stand in `__init__.pyi` and are loaded when
they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
