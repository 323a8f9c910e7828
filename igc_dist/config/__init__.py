"""Schemas of the Hydra groups, composition, and the allow-list. Only this wing imports hydra and omegaconf.

May import: job, planning, inputs, baselines, metrics, distributed, data, model, paths, statistics, targets, secrets,
files, records. Its public names stand in `__init__.pyi` and are loaded when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
