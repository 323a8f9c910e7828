"""The model as a function: predictions, and gradients of outputs with respect to inputs. The only autograd of the package.

The user's module is borrowed: inside `Model.borrowed` it is frozen, in eval mode, on the run's device and in the run's
dtype; afterwards it is as it was. It is never wrapped (`fabric.setup_module` refuses frozen modules under DDP, refuses
`autograd.grad` under mixed precision, and rounds inputs to bf16).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from igc_dist import derivatives
from igc_dist.final import Call, FinalLayer
from igc_dist.records import ConfigError, ModelError, Tensors
from igc_dist.representation import Reading
from igc_dist.selection import Select, selected

AUTO = "auto"
PRECISIONS = {"32-true": None, "64-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Lightning's names. Mixed: autocast round the forward only, path points and gradients stay float32."""

HIGHER = {"bf16-mixed": "32-true", "16-mixed": "32-true", "32-true": "64-true"}
"""The precision that an audit holds another against."""


class Model:
    """A module, how to call it, and which part of its output counts.

    `forward`: name of the method to call; `forward_kwargs`: constant keyword arguments for it.
    `output`: what to take of the result. None: it must be (n, J) or (n,). A name or index: that entry of a dict, tuple or
    ModelOutput; a sequence of them goes deeper, and indexes the dimensions after the batch once a tensor is reached;
    "flatten": all dimensions after the batch are outputs; a callable: ``result -> (n, J)``.
    `channels_last`: convolution layout, the largest free gain for convolutional nets, also on CPU; "auto" lets a trial
    choose (`trial.py`).
    `compiled`: `torch.compile` the forward, once the plan has fixed how many rows it sees (`fix`).
    `final_layer`: the layer ``f = W z + c`` at the end, or its dotted name; see `FinalLayer`. Many outputs then cost no more
    gradients than there are latents z.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        forward: str | None = None,
        forward_kwargs: Mapping[str, Any] | None = None,
        output: Select = None,
        precision: str = "32-true",
        channels_last: bool | str = False,
        compiled: bool = False,
        final_layer: nn.Module | str | None = None,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise ModelError(f"model of type {type(module).__name__}: expected a torch.nn.Module or LightningModule")
        if precision not in PRECISIONS:
            raise ConfigError(f"fabric.precision={precision!r}: choose one of {', '.join(PRECISIONS)}")
        if forward is not None and not callable(getattr(module, forward, None)):
            raise ModelError(f"{type(module).__name__} has no method {forward!r}: give the name of the method that maps inputs to outputs")
        self.module, self.forward, self.forward_kwargs, self.output = module, forward, dict(forward_kwargs or {}), output
        self.precision, self.channels_last, self.compiled = precision, channels_last, compiled
        if channels_last not in (True, False, AUTO):
            raise ConfigError(f"model.channels_last={channels_last!r}: choose true, false, or auto (a trial chooses)")
        self._call: Callable[..., Any] = module if forward is None else getattr(module, forward)
        self._eager, self._rows = self._call, (1, 1)
        self.final = None if final_layer is None else FinalLayer(module, final_layer)
        self._as_layer: Call | None = None
        self._of_rows: Callable[[Tensor], Callable[..., Any]] | None = None

    @property
    def device(self) -> torch.device:
        """Where the parameters are; cpu for a module without parameters and buffers. Raises `ModelError` if they are on several devices."""
        devices = {tensor.device for tensor in (*self.module.parameters(), *self.module.buffers())}
        if len(devices) > 1:
            raise ModelError(
                f"the model's parameters are on several devices ({', '.join(sorted(map(str, devices)))}): "
                "move it to one with model.to(device)"
            )
        return devices.pop() if devices else torch.device("cpu")

    def dtype(self, inputs: Tensors) -> torch.dtype:
        """Of path points: that of the parameters, else of the inputs; float64 under 64-true, never below float32."""
        if self.precision == "64-true":
            return torch.float64
        kinds = [tensor.dtype for tensor in self.module.parameters() if tensor.is_floating_point()]
        kinds = kinds or [x.dtype for x in inputs if x.is_floating_point()]
        return torch.float64 if kinds and all(kind == torch.float64 for kind in kinds) else torch.float32

    @contextmanager
    def borrowed(self, device: torch.device | str) -> Iterator[Model]:
        """Frozen and in eval mode on `device`; on leaving handed back as it was: training flags, requires_grad, data, buffers."""
        if self.device.type == "meta" or (self.device != torch.device("cpu") and self.device.type != torch.device(device).type):
            raise ModelError(
                f"the model's parameters are on {self.device}, the run uses {device}: move the model with model.to({str(device)!r})"
            )
        if torch.is_inference_mode_enabled():
            raise ModelError("torch.inference_mode is on, which makes input gradients impossible: leave it, or use torch.no_grad() instead")
        # the final layer may stand outside of the module; a list of modules takes nothing from them
        whole = nn.ModuleList([self.module] if self.final is None else [self.module, self.final.layer])
        modules = [m for m in whole.modules() if m is not whole]
        training = [m.training for m in modules]
        parameters = [(p, p.data, p.requires_grad) for p in whole.parameters()]
        bounds = [(m, m.max_norm) for m in modules if isinstance(m, nn.Embedding | nn.EmbeddingBag) and m.max_norm is not None]
        held = [(m, name, b) for m in modules for name, b in m._buffers.items()]
        buffers = [(b, b.data, b.detach().clone()) for _, _, b in held if b is not None]
        try:
            _renormalise([m for m, _ in bounds])
            whole.eval().requires_grad_(False).to(device)
            if self.precision == "64-true":
                whole.double()
            self._call, self._rows = self._eager, (1, 1)
            if self.channels_last is True:
                whole.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if self.final is not None:
                self.final.layout = None  # weights may have changed since the last run
            cudnn = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, benchmark=False, deterministic=True)
            with cudnn, _donated_buffers_off() if self.compiled else nullcontext():
                yield self
        finally:
            for m, flag in zip(modules, training, strict=True):
                m.training = flag
            for embedding, bound in bounds:
                embedding.max_norm = bound
            for p, data, requires_grad in parameters:
                p.data = data
                p.requires_grad_(requires_grad)
            for b, data, value in buffers:
                b.data = data
                b.copy_(value)
            for m, name, held_buffer in held:
                m._buffers[name] = held_buffer

    def fix(self, rows: tuple[int, int]) -> None:
        """Under `compiled`: from now on the forward is compiled, and sees these numbers of rows, in passes without and with a graph.

        Compilers specialise on shapes, and CUDA graphs have one. A pass of fewer rows is filled up with copies of its last one,
        which are cut off again before anybody sees them. Without `compiled` nothing happens.
        """
        if self.compiled:
            self._call = torch.compile(self._eager, dynamic=False) if self._call is self._eager else self._call
            self._rows = rows

    def _forward(self, inputs: Tensors) -> Tensor:
        n = len(inputs[0])
        missing = -n % self._rows[torch.is_grad_enabled()]
        if missing and n:
            filled = tuple(torch.cat((x, x[-1:].detach().expand(missing, *x.shape[1:]))) for x in inputs)
            return self._outputs(filled)[:n]
        return self._outputs(inputs)

    def _outputs(self, inputs: Tensors) -> Tensor:
        if self.channels_last is True:
            inputs = tuple(x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs)
        if self.final is not None and self.final.layout is None:
            finite = tuple(x.detach().nan_to_num() for x in inputs)
            with torch.no_grad():
                self.final.place(
                    lambda call: self._table(finite, call), compiled=self.compiled, half=PRECISIONS[self.precision] is not None
                )
        return self._table(inputs, self._as_layer)

    def _table(self, inputs: Tensors, as_layer: Call | None) -> Tensor:
        """The selected outputs as (n, J), with the final layer replaced by `as_layer`, if that is a function."""
        half, final, output = PRECISIONS[self.precision], self.final, self.output
        inside = final is not None and final.inside
        with (
            torch.autocast(inputs[0].device.type, dtype=half) if half else nullcontext(),
            final.replaced(as_layer) if final is not None and inside and as_layer is not None else nullcontext(),
        ):
            raw = self._call(*inputs, **self.forward_kwargs)
        if final is not None and not inside:
            z = selected(raw, None if output == "flatten" else output)
            output = "flatten" if output == "flatten" else None
            with torch.autocast(inputs[0].device.type, dtype=half) if half else nullcontext():
                raw = final.layer(z) if as_layer is None else as_layer(z)
        y = selected(raw, output)
        if y.ndim == 1 and len(y) == len(inputs[0]):
            y = y[:, None]
        if y.ndim != 2 or len(y) != len(inputs[0]):
            raise ModelError(
                f"the model's output has shape {tuple(y.shape)} for {len(inputs[0])} inputs, expected (n, outputs): set output "
                "(model.output) to the indices of the entry to explain, after the batch, to 'flatten' for all, or to a function of it"
            )
        # float64 outputs of a float64 model stay; half precision is lifted before anything is summed
        return y if y.dtype == torch.float64 else y.float()

    def calling(self, call: Callable[..., Any], of_rows: Callable[[Tensor], Callable[..., Any]] | None = None) -> Model:
        """The same model, seen through `call` in place of its forward: other inputs, the same outputs.

        `call` takes whole batches, any number of times over; `of_rows(samples)`, if needed, is the same for rows of these samples.
        """
        view = copy.copy(self)
        view._call, view._of_rows = call, of_rows
        return view

    def of_rows(self, samples: Int64[Tensor, " R"]) -> Model:
        """The model for rows that are points of these samples of the batch, as some forwards know more of a sample than its point."""
        return self if self._of_rows is None else self.calling(self._of_rows(samples))

    @contextmanager
    def higher(self) -> Iterator[Model]:
        """The same model in the precision above its own (`HIGHER`), for as long as the block lasts; it must be borrowed.

        Its weights take float64 in place where that is 64-true, and get their own bits back.
        """
        view = copy.copy(self)
        view.precision = HIGHER[self.precision]
        layers = [self.module] if self.final is None else [self.module, self.final.layer]
        held = {t: t.data for layer in layers for t in (*layer.parameters(), *layer.buffers()) if t.is_floating_point()}
        try:
            if view.precision == "64-true":
                for tensor, data in held.items():
                    tensor.data = data.double()
            yield view
        finally:
            for tensor, data in held.items():
                tensor.data = data

    @property
    def n_latents(self) -> int:
        """Latents before the final linear layer, of all positions; 0 without one. Known after the first forward pass."""
        return 0 if self.final is None else self.final.n_latents

    def latent(self, outputs: Sequence[int]) -> Latent | None:
        """The latents that give these outputs; None without a final layer, and where they are not fewer than the outputs."""
        if self.final is None:
            return None
        columns = self.final.columns(outputs)
        if len(columns) >= len(outputs):
            return None
        view = copy.copy(self)
        view._as_layer = _identity
        return Latent(view, columns, partial(self.final.expand, outputs=outputs))

    def predict(self, inputs: Tensors) -> Float[Tensor, "n J"]:
        """f(x) for all outputs of the model, without a graph."""
        rows = self._rows[0] if self._rows[0] > 1 else len(inputs[0])
        with torch.no_grad():
            if len(inputs[0]) <= rows:
                return self._forward(inputs)
            return torch.cat([self._forward(piece) for piece in zip(*(x.split(rows) for x in inputs), strict=True)])

    def gradients(
        self, points: Tensors, outputs: Sequence[int] | Int64[Tensor, "n L"], see: Callable[[Tensor], None] = lambda values: None
    ) -> Iterator[tuple[int, Tensors]]:
        """``d f_k(x) / d x`` at each point for each k of `outputs`: yields (position in `outputs`, one (n, *P) tensor per input).

        `outputs` are the same for all points, or a table: column l has the l-th output that each point asks for. `see` is given
        what the model predicts for them, (n, L), before the first gradient.

        One forward for all outputs; one backward per output on the same graph, which is freed with the last. The samples
        of a batch are independent, so the gradient of the sum over rows is each row's own. Gradients to the inputs only.
        """
        assert not torch.is_inference_mode_enabled()
        points = tuple(x.detach().requires_grad_() for x in points)
        with torch.enable_grad():
            y = self._forward(points)
            sums = list(y.gather(1, outputs).sum(0)) if isinstance(outputs, Tensor) else [y[:, k].sum() for k in outputs]
        see(y.detach().gather(1, outputs) if isinstance(outputs, Tensor) else y.detach()[:, list(outputs)])
        yield from derivatives.gradients(sums, points, self._scaled)

    def represent(self, inputs: Tensors, layer: str) -> tuple[Float[Tensor, "n J"], Float[Tensor, "n Z"]]:
        """f(x) for all outputs, and what the `layer` gives (`representation.Reading`), from one forward without a graph."""
        with torch.no_grad():
            return self._represented(inputs, layer)

    def towards(self, points: Tensors, reference: Float[Tensor, "n Z"], layer: str, outputs: Sequence[int]) -> Towards:
        """How far the representation of each point is from its `reference`, where to go, and f there: from one forward.

        Raises `ConfigError` or `ModelError` if the layer cannot be read (`representation.Reading`), or has lost its graph.
        """
        points = tuple(x.detach().requires_grad_() for x in points)
        with torch.enable_grad():
            y, z = self._represented(points, layer)
            distance = (z - reference).square().sum(1)
            totals = [distance.sum(), *(y[:, k].sum() for k in outputs)]
        if not distance.requires_grad:
            raise ModelError(f"the layer {layer!r} has no gradient with respect to the inputs: name one that the inputs act on")
        found = derivatives.gradients(totals, points, self._scaled)
        _, descent = next(found)
        return Towards(distance.detach(), descent, y.detach()[:, list(outputs)], ((k - 1, gradients) for k, gradients in found))

    def _represented(self, inputs: Tensors, layer: str) -> tuple[Tensor, Tensor]:
        if self.compiled:
            raise ConfigError(f"the layer {layer!r} cannot be read inside a compiled forward: switch compiled off")
        reading = Reading(self.module, layer, self._call)
        y = self.calling(reading)._forward(inputs)
        return y, reading.of(len(y))

    @property
    def _scaled(self) -> bool:
        return PRECISIONS[self.precision] is torch.float16

    def directional(self, points: Tensors, i: int, tangent: Tensor, outputs: Sequence[int]) -> Float[Tensor, "n J"]:
        """``sum_p d f_k(x) / d x_ip * tangent_p`` at each point for all k of `outputs` at once: input `i` moves, the others rest.

        Forward mode with dual numbers: no graph, and no backward pass. Attention takes its plain form, as its fused kernels
        have no forward rule. Raises `RuntimeError` or `NotImplementedError` where another operator has none.
        """
        return derivatives.directional(self._forward, points, i, tangent)[:, outputs]

    def differentiable(self, inputs: Tensors) -> bool:
        """Whether the outputs depend on the inputs through the autograd graph."""
        with torch.enable_grad():
            return self._forward(tuple(x.detach().requires_grad_() for x in inputs)).requires_grad


@dataclass(frozen=True)
class Latent:
    """A model up to its final layer ``f = W z + c``.

    `model`: its outputs are the latents z. `outputs`: the columns of z that are needed. `expand`: takes what was computed
    for them, (n, L, *P), to the outputs of the whole model, (n, J, *P), by W; right for what is linear in the output.
    """

    model: Model
    outputs: list[int]
    expand: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Towards:
    """What one forward says of points that are to move in the space of a representation phi.

    `distance`: ``||phi(x) - phi_ref||**2``; `descent`: its gradient, (n, *P) per input; `value`: f of the outputs that were asked for;
    `gradients`: theirs, as of `Model.gradients`, taken as they are asked for.
    """

    distance: Float[Tensor, " n"]
    descent: Tensors
    value: Float[Tensor, "n J"]
    gradients: Iterator[tuple[int, Tensors]]


def _identity(h: Tensor) -> Tensor:
    return h


def _renormalise(embeddings: Sequence[nn.Embedding | nn.EmbeddingBag]) -> None:
    """Bound the norms of whole tables once, on copies: the forward would do it in place, row by row as they are looked up."""
    for m in embeddings:
        assert m.max_norm is not None
        table = m.weight.detach().clone()
        m.weight.data = torch.embedding_renorm_(table, torch.arange(len(table), device=table.device), m.max_norm, m.norm_type)
        m.max_norm = None


@contextmanager
def _donated_buffers_off() -> Iterator[None]:
    # a compiled forward frees its saved tensors after the first backward otherwise, and retain_graph raises
    import torch._functorch.config as functorch

    with functorch.patch(donated_buffer=False):
        yield
