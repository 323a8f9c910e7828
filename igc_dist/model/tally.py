"""The work of a pass of the model: operators, floating point operations and bytes, counted while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from igc_dist.model.dispatch import Operators
from igc_dist.records import Passes, Tally


class _Counter(Operators):
    """Counts with torch's own formulas.

    Torch's `FlopCounterMode` is not used: `autograd.grad` to an input refuses the hooks of its module tracker.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tally = Tally()

    def seen(self, func: Any, args: Any, kwargs: Any) -> Any:
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = func(*args, **kwargs)
        made = [
            t for t in tree_leaves(result) if isinstance(t, torch.Tensor) and t.untyped_storage()._cdata not in given
        ]
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
"""Formulas that torch's registry lacks: the fused attention of the CPU."""


def passes(gradients: Callable[[], Iterable[Any]]) -> Passes:
    """Count a forward pass and its gradients.

    `gradients` computes two gradients of one row and yields after each; the second one is counted alone.
    """
    marks: list[Tally] = []
    with _Counter() as counter:
        for _ in gradients():
            marks.append(counter.tally)
    first, both = marks
    gradient = both - first
    return Passes(first - gradient, gradient)
