"""Derivatives of the outputs of a forward pass: the only autograd, except for the graph that `function.py` builds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from igc_dist.model import numerics
from igc_dist.model.footprint import out_of_memory
from igc_dist.records import IgcError, ModelError
from igc_dist.tensors import Tensors

SCALE, BACK_OFF = 2.0**12, 2.0**4
"""Scale of the cotangent under 16-mixed. Without it, gradients of softmax probabilities underflow (18 to 72 % zeros in
a ResNet-18)."""


LOST = (
    "the forward detaches them, runs under torch.no_grad(), calls autograd.grad without create_graph=True, or has "
    "layers without a gradient, such as quantized ones (then give the model from before its quantization)"
)
"""Why an output that changes with the inputs may have no gradient, and the way out."""


def gradients(
    totals: Sequence[Tensor], points: Tensors, scaled: bool, in_one_order: bool = False
) -> Iterator[tuple[int, Tensors]]:
    """The gradient of each of these scalars to the points: (its place, one (n, *P) tensor per input).

    The last one frees the graph. `scaled`: whether there are float16 numbers inside. `in_one_order`: whether kernels
    are asked to add in one order. Raises `ModelError` if autograd cannot go through the graph.
    """
    for j, total in enumerate(totals):
        if total.requires_grad:
            with numerics.in_one_order(in_one_order):
                found = gradient(total, points, j < len(totals) - 1, scaled)
            yield j, found
        else:  # constant by construction; `passes.first_look` has refused outputs that lost their graph
            yield j, tuple(torch.zeros_like(x) for x in points)


def reached(total: Tensor, points: Tensors) -> list[bool]:
    """Whether a gradient of the scalar reaches each of the points."""
    if not total.requires_grad:
        return [False] * len(points)
    with _told():
        return [g is not None for g in torch.autograd.grad(total, points, allow_unused=True)]


def tried_in_one_order(total: Tensor, points: Tensors) -> None:
    """One backward pass by kernels that add in one order. Raises a `RuntimeError` if there is none for an operator."""
    if total.requires_grad:
        with numerics.in_one_order(True):
            torch.autograd.grad(total, points, retain_graph=True, allow_unused=True)


def gradient(total: Tensor, points: Tensors, retain: bool, scaled: bool) -> Tensors:
    """The gradient of a scalar. If `scaled`, the scalar is multiplied by a power of two, which is divided out exactly.

    Rows whose gradient is not finite are computed again at a smaller scale, down to 1. Each row has its own scale, so
    its gradient does not depend on other rows or earlier batches.
    """

    def at(scale: float) -> Tensors:
        seed = torch.full_like(total, scale) if scaled else None
        with _told():
            found = torch.autograd.grad(total, points, seed, retain_graph=retain or scale > 1, allow_unused=True)
        if all(g is None for g in found):
            raise ModelError(f"no gradient of an output reaches the inputs: {LOST}")
        grads = tuple(torch.zeros_like(x) if g is None else g for g, x in zip(found, points, strict=True))
        return tuple(g / scale for g in grads) if scaled else grads

    if not scaled:
        return at(1.0)
    scale, grads = SCALE, at(SCALE)
    while scale > 1:
        # one sum shows whether a row is finite
        fine = torch.stack([g.reshape(len(g), -1).sum(1).isfinite() for g in grads]).all(0)
        if bool(fine.all()):
            break
        scale /= BACK_OFF
        again = at(scale)
        grads = tuple(
            torch.where(fine.reshape(-1, *(1,) * (g.ndim - 1)), g, a) for g, a in zip(grads, again, strict=True)
        )
    return grads


def directional(forward: Callable[[Tensors], Tensor], points: Tensors, i: int, tangent: Tensor) -> Float[Tensor, "n J"]:
    """The change of all outputs when input `i` moves along `tangent` and the others rest: by dual numbers, no graph.

    Attention takes its plain form, because its fused kernels have no forward rule. Raises `RuntimeError` or
    `NotImplementedError` if another operator has no forward rule.
    """
    with torch.no_grad(), _PLAIN_ATTENTION.held(), forward_ad.dual_level():
        duals = (forward_ad.make_dual(x.detach(), tangent) if k == i else x.detach() for k, x in enumerate(points))
        y, moved = forward_ad.unpack_dual(forward(tuple(duals)))
        return torch.zeros_like(y) if moved is None else moved


@contextmanager
def _plain_attention() -> Iterator[None]:
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


_PLAIN_ATTENTION = numerics.Shared(_plain_attention)


@contextmanager
def _told() -> Iterator[None]:
    """Raise `ModelError` with the way out where a backward pass cannot go."""
    try:
        yield
    except RuntimeError as error:
        # not a fault of the model: the walk may go on in smaller pieces, or another rank is gone
        if out_of_memory(error) or isinstance(error, IgcError):
            raise
        raise ModelError(_explain(error)) from error


def _explain(error: RuntimeError) -> str:
    text = str(error)
    if "reentrant" in text or "torch.utils.checkpoint" in text:
        return (
            "reentrant activation checkpointing cannot give input gradients: use checkpoint(..., "
            f"use_reentrant=False) ({text})"
        )
    if "donated buffer" in text:
        return (
            "a compiled part of the model donates its buffers: set torch._functorch.config.donated_buffer = False "
            f"first ({text})"
        )
    if "does not require grad" in text:
        return f"an output has no gradient with respect to the inputs: {LOST} ({text})"
    return f"the backward pass failed: {text}"
