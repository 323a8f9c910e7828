"""The borrowing of a user's modules: they are frozen, in eval mode and moved while a block lasts, then restored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from igc_dist.model import numerics
from igc_dist.records import ModelError


def check(where: torch.device, device: torch.device | str) -> None:
    """Raise `ModelError` if a module on `where` cannot be borrowed on `device`."""
    if where.type == "meta" or (where != torch.device("cpu") and where.type != torch.device(device).type):
        raise ModelError(
            f"the model's parameters are on {where}, the run uses {device}: move the model with "
            f"model.to({str(device)!r})"
        )


def check_tensors(module: nn.Module) -> None:
    """Raise `ModelError` for parameters without a shape yet, or that cannot take part in a graph."""
    tensors = [*module.parameters(), *module.buffers()]
    if any(map(nn.parameter.is_lazy, tensors)):
        raise ModelError(
            f"{type(module).__name__} has lazy layers whose parameters have no shape yet: call the model once on a "
            "batch first"
        )
    if any(tensor.is_inference() for tensor in tensors):
        raise ModelError(
            f"the parameters of {type(module).__name__} were made under torch.inference_mode, so nothing can be "
            "differentiated through them: give copy.deepcopy(model), made outside of it"
        )


_lent: dict[int, list[object]] = {}
"""Who holds a module or a tensor, by its id, each as often as it holds it."""


@contextmanager
def reserved(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Reserve modules, and all that they share with others, for this thread while the block lasts.

    A run changes the modules that it borrows. So another thread waits until it is done, even if it only shares
    parameters. A run within a run may borrow again what that run holds.
    """
    keys = {id(part) for m in modules for part in (*m.modules(), *m.parameters(), *m.buffers())}
    with numerics.holding() as holder:
        with numerics.TURN:
            numerics.wait(
                lambda: all(other is holder for key in keys for other in _lent.get(key, ())),
                f"it runs the same {type(modules[0]).__name__}, or one that shares parameters with it",
            )
            for key in keys:
                _lent.setdefault(key, []).append(holder)
        try:
            yield
        finally:
            with numerics.TURN:
                for key in keys:
                    _lent[key].pop()
                    if not _lent[key]:
                        del _lent[key]
                numerics.TURN.notify_all()


class Belongings:
    """The state of modules before they are borrowed: training flags, requires_grad, data, buffers, bounds of norms."""

    def __init__(self, modules: Sequence[nn.Module], parameters: Sequence[nn.Parameter]) -> None:
        self.training = [(m, m.training) for m in modules if hasattr(m, "training")]  # frozen TorchScript has none
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
        _to_eval(whole)
        whole.requires_grad_(False).to(device)
        yield
    finally:
        belongings.restore()


def hand_over(module: nn.Module, doubled: bool) -> None:
    """Freeze a module in eval mode for good, with weights of float32 at least, or of float64: nothing is restored."""
    bounded = [m for m in module.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag) and m.max_norm is not None]
    _renormalise(bounded)
    _to_eval(module)
    module.requires_grad_(False)
    widen(module)
    if doubled:
        double([*module.parameters(), *module.buffers()])


def widen(whole: nn.Module) -> None:
    """Make weights of half precision float32: the precision of a run says where half precision is used."""
    for tensor in (*whole.parameters(), *whole.buffers()):
        if tensor.dtype in (torch.bfloat16, torch.float16):
            tensor.data = tensor.data.float()


def double(tensors: Iterable[Tensor]) -> None:
    """Make weights float64, and complex ones complex128: `nn.Module.double` leaves these as they are."""
    for tensor in tensors:
        if tensor.is_floating_point() or tensor.is_complex():
            tensor.data = tensor.data.to(torch.complex128 if tensor.is_complex() else torch.float64)


@contextmanager
def data_kept(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Parameters and buffers of modules that hold no integers. Their data is restored when the block ends."""
    every = (t for m in modules for t in (*m.parameters(), *m.buffers()))
    held = {t: t.data for t in every if t.is_floating_point() or t.is_complex()}
    try:
        yield [*held]
    finally:
        for tensor, data in held.items():
            tensor.data = data


def _to_eval(module: nn.Module) -> None:
    """Eval mode, except for exported programs: they keep the mode in which they were exported."""
    try:
        module.eval()
    except NotImplementedError:
        for child in module.children():
            _to_eval(child)


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
