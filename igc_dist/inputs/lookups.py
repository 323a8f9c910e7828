"""Relaxed lookups in embedding tables: rows of a table are mixed by real coefficients.

The forward only knows categories. Here it gets numbers in place of categories: one number per position of each
categorical input, from `FIRST` on, which is beyond any table. The numbers pass through slices, reshapes, stacks and
casts in the forward. Where a number reaches a table, it selects the coefficients of its position. Lookups of other
numbers, such as places in a sequence, are not changed.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from igc_dist.records import ModelError
from igc_dist.tensors import Tensors

FIRST = 2**30
"""The first number of a position: larger than any table, and small enough not to overflow an int32."""


class Lookups(TorchFunctionMode):
    """In this context, a position with coefficients c of categories ids is looked up as ``sum_k c_k W[ids_k]``.

    `coefficients`: (p, K). `ids`: (p, K) categories, or None for ``0, 1, ..., K - 1``, so that the coefficients are
    those of the one-hot code. `met` collects, per lookup, the numbers looked up and the number of rows of the table.

    The module is not changed: the function that all `nn.Embedding`s call is intercepted. Raises `ModelError` if the
    forward changed the numbers, or if they reach an `nn.EmbeddingBag`.
    """

    def __init__(self, coefficients: Float[Tensor, "p K"], ids: Int64[Tensor, "p K"] | None) -> None:
        super().__init__()
        self.coefficients, self.ids = coefficients, ids
        self.met: list[tuple[Tensor, int]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in (functional.embedding, functional.embedding_bag):
            return func(*args, **kwargs)
        numbers, table = args[:2]
        if numbers.is_floating_point() or not numbers.numel() or int(numbers.max()) < FIRST:
            return func(*args, **kwargs)
        if func is functional.embedding_bag:
            raise ModelError("categories reach an nn.EmbeddingBag")
        return self._mixed(numbers.long() - FIRST, table)

    def _mixed(self, positions: Int64[Tensor, "..."], table: Float[Tensor, "C E"]) -> Float[Tensor, "..."]:
        if int(positions.max()) >= len(self.coefficients):
            raise ModelError("categories are changed before they are looked up (is an offset added to them?)")
        ours = positions >= 0
        self.met.append((positions[ours], len(table)))
        # advanced indexing has a deterministic backward on GPUs too
        at = positions.clamp_min(0)
        coefficients = self.coefficients[at]
        if self.ids is None:
            known = min(len(table), coefficients.shape[-1])
            rows = coefficients[..., :known].to(table) @ table[:known]
        else:
            ids = self.ids[at]
            rows = sum(
                (coefficients[..., k, None].to(table) * table[ids[..., k]] for k in range(ids.shape[-1])),
                table.new_zeros(()),
            )
        if bool(ours.all()):
            return rows
        # the forward added numbers of its own, such as that of a leading token
        return torch.where(ours[..., None], rows, table[(positions + FIRST).masked_fill(ours, 0)])


def numbered(coefficients: Tensors) -> tuple[Tensors, Float[Tensor, "p K"]]:
    """Number the positions of several inputs, and join their coefficients in one table.

    Returns numbers (rows, *S_i) for coefficients (rows, *S_i, K_i) of each input, and the table (p, K).
    """
    widest = max(c.shape[-1] for c in coefficients)
    numbers, tables, start = [], [], FIRST
    for c in coefficients:
        flat = c.reshape(-1, c.shape[-1])
        numbers.append(torch.arange(start, start + len(flat), device=c.device).reshape(c.shape[:-1]))
        tables.append(functional.pad(flat, (0, widest - c.shape[-1])))
        start += len(flat)
    return tuple(numbers), torch.cat(tables)
