"""The command line: the commands and their help.

May import: run, config, upkeep, watching, report, results, job, passes, store, planning, distributed, metrics, model,
secrets, files, records.
Its public names stand in `__init__.pyi` and are loaded when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
