"""Whether a model is smooth along a path, or has kinks where its gradient jumps. It decides the quadrature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from igc_dist.model.dispatch import Operators

KINKS = {
    "relu", "leaky_relu", "rrelu", "rrelu_with_noise", "_prelu_kernel", "prelu", "hardtanh", "hardsigmoid", "hardswish",
    "threshold",
    "softshrink", "hardshrink", "abs", "clamp", "clip", "maximum", "minimum", "fmax", "fmin", "max", "min", "amax",
    "amin", "topk", "sort",
    "kthvalue", "median", "round", "floor", "ceil", "sign", "max_pool1d", "max_pool2d", "max_pool3d",
    "max_pool1d_with_indices",
    "max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "fractional_max_pool2d", "fractional_max_pool3d", "mkldnn_max_pool2d", "mkldnn_max_pool3d",
}  # fmt: skip
"""Operators, as PyTorch names them, whose gradient jumps somewhere. ELU and similar operators are C1, so they are not
listed. The pieces of hardswish and softshrink are not all linear, but their gradients jump as well. A smooth function
that uses such an operator, as softsign uses abs, counts as kinked too: the rule for kinks is safe for all functions."""


class Kinks(Operators):
    """Records in `met` which operators of `KINKS` get floating-point tensors within the block.

    It sees modules and functions alike.
    """

    def __init__(self) -> None:
        super().__init__()
        self.met: set[str] = set()

    def seen(self, func: Any, args: Any, kwargs: Any) -> Any:
        name = func._schema.name.removeprefix("aten::").rstrip("_")
        floating = any(
            isinstance(leaf, torch.Tensor) and leaf.is_floating_point() for leaf in tree_leaves((args, kwargs))
        )
        # a bound other than 0 guards a division (normalize); a bound of 0 is a ReLU
        if floating and (
            name in KINKS
            or (name in ("clamp_min", "clamp_max") and not isinstance(args[1], torch.Tensor) and args[1] == 0)
        ):
            self.met.add(name)
        return func(*args, **kwargs)


def piecewise(forward: Callable[[], Any]) -> bool:
    """Whether a forward pass meets a kink. Raises what `forward` raises."""
    with Kinks() as kinks, torch.no_grad():
        forward()
    return bool(kinks.met)
