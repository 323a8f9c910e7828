"""Ranks: launch, handshake, claims, exchange, heartbeat. Only this wing imports torch.distributed and lightning.

May import: model, tensors, secrets, files, faults, records. Its public names stand in `__init__.pyi` and are
loaded when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
