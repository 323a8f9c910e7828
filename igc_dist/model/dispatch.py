"""Sees the operators that a block calls, one by one, without loading torch._dynamo, which takes a second."""

from __future__ import annotations

import sys
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Operators(TorchDispatchMode):
    """Calls `seen` for every operator within the block; it calls the operator and returns its result."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._uncompiled = staticmethod(torch._disable_dynamo(cls.seen))  # which loads it when it is called

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would wrap `__torch_dispatch__` likewise, and load torch._dynamo at the first operator

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "torch._dynamo" in sys.modules:  # something may be compiled, but not `seen`
            return self._uncompiled(self, func, args, kwargs or {})
        return self.seen(func, args, kwargs or {})

    @abstractmethod
    def seen(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Call an operator, and note what is to be known of it."""

    _uncompiled: ClassVar[Any]
