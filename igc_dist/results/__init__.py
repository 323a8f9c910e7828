"""From the states of shards to results: exchange, merge in a fixed tree, finalize, standard errors.

May import: job, passes, store, planning, distributed, metrics, data, model, statistics, seeds, records. Its public
names stand in `__init__.pyi` and are loaded when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
