"""The borrowing of a user's modules: they are frozen, in eval mode and moved while a block lasts, then restored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from igc_dist.records import ModelError


def check(where: torch.device, device: torch.device | str) -> None:
    """Raise `ModelError` if a module on `where` cannot be borrowed on `device`, or in inference mode."""
    if where.type == "meta" or (where != torch.device("cpu") and where.type != torch.device(device).type):
        raise ModelError(
            f"the model's parameters are on {where}, the run uses {device}: move the model with "
            f"model.to({str(device)!r})"
        )
    if torch.is_inference_mode_enabled():
        raise ModelError(
            "torch.inference_mode is on, which makes input gradients impossible: leave it, or use torch.no_grad() "
            "instead"
        )


class Belongings:
    """The state of modules before they are borrowed: training flags, requires_grad, data, buffers, bounds of norms."""

    def __init__(self, modules: Sequence[nn.Module], parameters: Sequence[nn.Parameter]) -> None:
        self.training = [(m, m.training) for m in modules]
        self.parameters = [(p, p.data, p.requires_grad) for p in parameters]
        self.bounds = [
            (m, m.max_norm) for m in modules if isinstance(m, nn.Embedding | nn.EmbeddingBag) and m.max_norm is not None
        ]
        self.held = [(m, name, b) for m in modules for name, b in m._buffers.items()]
        self.buffers = [(b, b.data, b.detach().clone()) for _, _, b in self.held if b is not None]

    def restore(self) -> None:
        """Give everything back, to the bit."""
        for m, flag in self.training:
            m.training = flag
        for embedding, bound in self.bounds:
            embedding.max_norm = bound
        for p, data, requires_grad in self.parameters:
            p.data = data
            p.requires_grad_(requires_grad)
        for b, data, value in self.buffers:
            b.data = data
            b.copy_(value)
        for m, name, held_buffer in self.held:
            m._buffers[name] = held_buffer


@contextmanager
def borrowed(whole: nn.ModuleList, device: torch.device | str) -> Iterator[None]:
    """Modules frozen and in eval mode on `device`. They are restored when the block ends."""
    belongings = Belongings([m for m in whole.modules() if m is not whole], [*whole.parameters()])
    try:
        _renormalise([m for m, _ in belongings.bounds])
        whole.eval().requires_grad_(False).to(device)
        yield
    finally:
        belongings.restore()


@contextmanager
def data_kept(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Floating-point parameters and buffers of modules. Their data is restored when the block ends."""
    held = {t: t.data for m in modules for t in (*m.parameters(), *m.buffers()) if t.is_floating_point()}
    try:
        yield [*held]
    finally:
        for tensor, data in held.items():
            tensor.data = data


def _renormalise(embeddings: Sequence[nn.Embedding | nn.EmbeddingBag]) -> None:
    """Bound the norms of whole tables once, on copies.

    The forward would do it in place, for each row when it is looked up.
    """
    for m in embeddings:
        assert m.max_norm is not None
        table = m.weight.detach().clone()
        m.weight.data = torch.embedding_renorm_(
            table, torch.arange(len(table), device=table.device), m.max_norm, m.norm_type
        )
        m.max_norm = None
