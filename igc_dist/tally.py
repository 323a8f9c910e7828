"""What a pass of the model does: operators, floating point operations and bytes, counted while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count


@dataclass(frozen=True)
class Tally:
    """Of one row of a pass: `operators` that make tensors (as many for any number of rows), their `flops`, and the `bytes` they write."""

    operators: int = 0
    flops: int = 0
    bytes: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.operators + other.operators, self.flops + other.flops, self.bytes + other.bytes)

    def __sub__(self, other: Tally) -> Tally:
        return Tally(self.operators - other.operators, self.flops - other.flops, self.bytes - other.bytes)


@dataclass(frozen=True)
class Passes:
    """A forward pass of one row, and a gradient of one output that follows it."""

    forward: Tally
    gradient: Tally


class _Counter(TorchDispatchMode):
    """Torch's own formulas. Not its `FlopCounterMode`, whose tracker of modules has hooks that `autograd.grad` to an input refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.tally = Tally()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = func(*args, **kwargs)
        made = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor) and t.untyped_storage()._cdata not in given]
        if made:
            self.tally += Tally(1, _flops(func, args, kwargs, result), sum(t.numel() * t.element_size() for t in made))
        return result


def _flops(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    packet = func._overloadpacket
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=result))
    if (formula := FUSED.get(packet.__name__)) is not None:
        return int(formula(*tree_map(lambda t: t.shape if isinstance(t, torch.Tensor) else t, args)))
    return 0


FUSED: dict[str, Callable[..., Any]] = {
    "_scaled_dot_product_flash_attention_for_cpu": lambda q, k, v, *_: sdpa_flop_count(q, k, v),
    "_scaled_dot_product_flash_attention_for_cpu_backward": lambda g, q, k, v, *_: sdpa_backward_flop_count(g, q, k, v),
}
"""What torch's registry lacks: the fused attention of the CPU."""


def passes(gradients: Callable[[], Iterable[Any]]) -> Passes:
    """Count a forward pass and its gradients; `gradients` yields after each of two, of one row: the second is counted alone."""
    marks: list[Tally] = []
    with _Counter() as counter:
        for _ in gradients():
            marks.append(counter.tally)
    first, both = marks
    gradient = both - first
    return Passes(first - gradient, gradient)
