"""A device that is none: its tensors are on the CPU, but what would fail on a card fails here, and what would make the
host wait is noted.

Tensors say that they are on ``lazy:0``, a kind that torch knows and that no build supports. Operators on them work on
what they hold. An operator with tensors of both places fails, unless the host's has no dimension, and so does an index
or another tensor that torch would make on the device and wait for, as a list of Python in square brackets.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

THERE = torch.device("lazy", 0)

COPY, ITEM = torch.ops.aten._to_copy.default, torch.ops.aten._local_scalar_dense.default
ASKING = {
    ITEM: "item",
    torch.ops.aten.nonzero.default: "nonzero",
    torch.ops.aten.masked_select.default: "masked_select",
}
"""Operators whose result the host waits for."""

waits: list[str] = []
"""What the host waited for."""


class Fake(Tensor):
    """A tensor of the device. `held`: its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Fake:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=THERE,
        )  # fmt: skip
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(func, args, kwargs or {})


class _Device(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(func, args, kwargs or {})


def _called(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    fakes, wish = [t for t in given if isinstance(t, Fake)], kwargs.get("device")
    _noted(func, args, kwargs, fakes)
    mixed = [t for t in given if not isinstance(t, Fake) and t.ndim]
    if fakes and mixed and func is not torch.ops.aten.copy_.default:
        raise RuntimeError(f"Expected all tensors to be on the same device, but {func} has some on cpu and on {THERE}")
    inner, options = tree_map_only(Fake, lambda t: t.held, (args, kwargs))
    if wish is not None:
        options = {**options, "device": torch.device("cpu")}
    found = func(*inner, **options)
    if not (bool(fakes) if wish is None else torch.device(wish).type == THERE.type):
        return found
    known = {id(t.held): t for t in fakes}  # what is changed in place is what was given
    return tree_map_only(Tensor, lambda t: known[id(t)] if id(t) in known else Fake(t), found)


def _noted(func: Any, args: Any, kwargs: dict[str, Any], fakes: list[Fake]) -> None:
    if func in ASKING and fakes:
        waits.append(ASKING[func])
    elif func is torch.ops.aten.index.Tensor and any(
        t.dtype == torch.bool for t in tree_leaves(args[1]) if t is not None
    ):
        waits.append("index by a mask")
    elif func is COPY and kwargs.get("device") is not None:
        to = torch.device(kwargs["device"]).type
        if isinstance(args[0], Fake) and to == "cpu":
            waits.append("copy to the host")
        elif not isinstance(args[0], Fake) and to == THERE.type and not kwargs.get("non_blocking"):
            waits.append("copy to the device")


@contextmanager
def device() -> Iterator[list[str]]:
    """The device is there while the block lasts. Gives the list of what the host waits for."""
    waits.clear()
    with _Device():
        yield waits
