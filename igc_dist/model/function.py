"""The model as a function: predictions, and gradients of outputs to inputs. The only autograd of the package.

The user's module is borrowed: inside `Model.borrowed` it is frozen, in eval mode, on the run's device and in the run's
dtype; afterwards it is as it was. It is never wrapped (`fabric.setup_module` refuses frozen modules under DDP, refuses
`autograd.grad` under mixed precision, and rounds inputs to bf16).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from igc_dist.model import borrowing, derivatives, numerics
from igc_dist.model.forward import DONATED_BUFFERS_OFF, HIGHER, PRECISIONS, TF32, ForwardPass
from igc_dist.model.habits import Habits
from igc_dist.model.recorded import Found, Recordings, recorder
from igc_dist.model.representation import Reading, Towards
from igc_dist.records import ConfigError, ModelError
from igc_dist.tensors import Tensors, there


class Model(ForwardPass):
    """A module as a function: its predictions, and the gradients of its outputs with respect to its inputs."""

    _of_rows: Callable[[Tensor], Callable[..., Any]] | None = None
    _recordings: Recordings | None = None
    _picks: Int64[Tensor, "n L"] | None = None

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Reserve the module for this thread, in the numeric context of a run (`numerics`), while the block lasts.

        Another thread with the same module, or one that shares parameters with it, waits.
        """
        with borrowing.reserved(self._layers), numerics.owned(self.dtype(()), self.precision == TF32):
            yield

    @contextmanager
    def borrowed(self, device: torch.device | str) -> Iterator[Model]:
        """The model, `reserved`, frozen and in eval mode on `device`, with weights of float32 at least.

        When the block ends, training flags, requires_grad, data and buffers are restored.
        """
        if self.steps is not None:  # it was handed over for good, see `lockstep.divide`
            with self.reserved(), numerics.tf32(self.precision == TF32):
                yield self
            return
        borrowing.check(self.device, device)
        # the final layer may be outside of the module; a list of modules does not change their owners
        whole = nn.ModuleList(self._layers)
        with self.reserved(), borrowing.borrowed(whole, device), numerics.tf32(self.precision == TF32):
            if self.precision == "64-true":
                whole.double()
                borrowing.double([*whole.parameters(), *whole.buffers()])
            borrowing.widen(whole)
            self._call, self._rows, self._habits = self._eager, (1, 1), Habits()
            if self.channels_last is True:
                whole.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if self.final is not None:
                self.final.layout = None  # weights may have changed since the last run
            record = recorder(torch.device(device)) if self.cuda_graphs else None
            self._recordings = None if record is None else Recordings(record)
            try:
                with DONATED_BUFFERS_OFF.held() if self.compiled else nullcontext():
                    yield self
            finally:
                self._recordings = None

    @property
    def _layers(self) -> list[nn.Module]:
        return [self.module] if self.final is None else [self.module, self.final.layer]

    def calling(self, call: Callable[..., Any], of_rows: Callable[[Tensor], Callable[..., Any]] | None = None) -> Model:
        """The same model with `call` in place of its forward: other inputs, the same outputs.

        `call` takes rows of whole batches, once or repeated. `of_rows(samples)`, if given, returns the `call` for rows
        of these samples.
        """
        view = copy.copy(self)
        view._call, view._of_rows = call, of_rows
        return view

    def of_rows(self, samples: Int64[Tensor, " R"]) -> Model:
        """The model for rows that are points of these samples of the batch.

        Some forwards need more of a sample than its point.
        """
        view = self if self._of_rows is None else self.calling(self._of_rows(samples))
        return view if self._picks is None else view.picking(self._picks[samples])

    def picking(self, outputs: Int64[Tensor, "n L"]) -> Model:
        """The same model with other outputs: l stands for the l-th of these outputs of the model, of each sample.

        It takes rows of whole batches of n, once or repeated; `of_rows` gives the model for other rows. Gradients of
        one of its outputs cost one backward pass, also where it is another output of the model for each sample.
        """
        view = copy.copy(self)
        view._picks = outputs
        return view

    def _forward(self, inputs: Tensors) -> Tensor:
        return self._picked(super()._forward(inputs))

    def predict(self, inputs: Tensors) -> Float[Tensor, "n J"]:
        """f(x) for all outputs of the model, or those that are picked, without a graph."""
        if self._picks is None:
            return super().predict(inputs)
        whole = copy.copy(self)
        whole._picks = None  # a forward pass of few rows is no whole batch
        return self._picked(whole.predict(inputs))

    def _picked(self, y: Tensor) -> Tensor:
        picks = self._picks
        if picks is None:
            return y
        assert len(y) % len(picks) == 0
        return y.gather(1, picks.repeat(len(y) // len(picks), 1))

    @contextmanager
    def higher(self) -> Iterator[Model]:
        """The same model in the next higher precision (`HIGHER`) while the block lasts. It must be borrowed.

        Under 64-true its weights become float64 in place, and get their own bits back afterwards.
        """
        view = copy.copy(self)
        view.precision, view._recordings = HIGHER[self.precision], None
        with borrowing.data_kept(self._layers) as held, numerics.tf32(False):
            if view.precision == "64-true":
                borrowing.double(held)
            yield view

    @property
    def n_latents(self) -> int:
        """Number of latents before the final linear layer, of all positions; 0 without one.

        Known after the first forward pass.
        """
        return 0 if self.final is None else self.final.n_latents

    def latent(self, outputs: Sequence[int]) -> Latent | None:
        """The latents that give these outputs; None without a final layer, or if there are not fewer than outputs."""
        if self.final is None:
            return None
        columns = self.final.columns(outputs)
        if len(columns) >= len(outputs):
            return None
        view = copy.copy(self)
        view._as_layer = _identity
        return Latent(view, columns, partial(self.final.expand, outputs=outputs))

    def gradients(
        self,
        points: Tensors,
        outputs: Sequence[int] | Int64[Tensor, "n L"],
        see: Callable[[Tensor], None] = lambda values: None,
    ) -> Iterator[tuple[int, Tensors]]:
        """``d f_k(x) / d x`` at each point for each k of `outputs`: yields (position in `outputs`, (n, *P) per input).

        `outputs` are the same for all points, or a table: column l has the l-th output of each point. `see` receives
        the predictions of these outputs, (n, L), before the first gradient.

        There is one forward for all outputs, and one backward per output on the same graph; the last backward frees it.
        The samples of a batch are independent, so the gradient of the sum over rows is each row's own. Only gradients
        to the inputs are computed.
        """
        assert not torch.is_inference_mode_enabled()
        if (recorded := self._recorded(points, outputs)) is not None:
            values, found = recorded
            see(values)
            yield from enumerate(found)
            return
        points = tuple(x.detach().requires_grad_() for x in points)
        y, sums = self._sums(points, outputs)
        see(y.gather(1, outputs) if isinstance(outputs, Tensor) else y.index_select(1, there(list(outputs), y.device)))
        yield from derivatives.gradients(sums, points, self._scaled, bool(self.in_one_order))

    def _sums(self, points: Tensors, outputs: Sequence[int] | Int64[Tensor, "n L"]) -> tuple[Tensor, list[Tensor]]:
        """f at points that require gradients, (n, J), and the sums of the requested outputs over the points."""
        with torch.enable_grad():
            y = self._forward(points)
            sums = (
                list(y.gather(1, outputs).sum(0)) if isinstance(outputs, Tensor) else [y[:, k].sum() for k in outputs]
            )
        self._find_order(sums, points)
        return y.detach(), sums

    def _recorded(self, points: Tensors, outputs: Sequence[int] | Int64[Tensor, "n L"]) -> Found | None:
        """Predictions and gradients from a recording (`recorded`); None if there can be none.

        Only of the module itself: what stands in its place may hold samples. Gradients of float16 are looked at by the
        host.
        """
        held = self._recordings
        whole = self._call is self._eager and self._picks is None and not self.compiled and not self._scaled
        if held is None or not whole or not held.fit(points, outputs):
            return None
        table = (outputs,) if isinstance(outputs, Tensor) else ()

        def work(given: Tensors) -> Found:
            points, asked = (given[:-1], given[-1]) if table else (given, outputs)
            y, sums = self._sums(points, asked)
            found = derivatives.gradients(sums, points, False, bool(self.in_one_order))
            # a list of numbers would be copied to the device
            values = y.gather(1, asked) if isinstance(asked, Tensor) else torch.stack([y[:, k] for k in asked], 1)
            return values, [gradients for _, gradients in found]

        key = (() if table else tuple(outputs), self._as_layer)
        return held.gradients(key, (*points, *table), work)

    def _find_order(self, totals: Sequence[Tensor], points: Tensors) -> None:
        """Find out, once, on a card, whether the backward pass has kernels that add in one order."""
        if self._asked_for_order(points) and self.in_one_order is None:
            try:
                derivatives.tried_in_one_order(totals[-1], points)
                self._habits.in_one_order = True
            except RuntimeError as error:
                if numerics.LACKS not in str(error):
                    raise
                self._lacks_order(error)

    def represent(self, inputs: Tensors, layer: str) -> tuple[Float[Tensor, "n J"], Float[Tensor, "n Z"]]:
        """f(x) for all outputs and the result of `layer` (`representation.Reading`), from one forward, no graph."""
        y, z = self._ungraphed(inputs, lambda points: self._represented(points, layer))
        return y.detach(), z.detach()

    def towards(self, points: Tensors, reference: Float[Tensor, "n Z"], layer: str, outputs: Sequence[int]) -> Towards:
        """The distance of each point's representation from its `reference`, its gradient, and f, from one forward.

        Raises `ConfigError` or `ModelError` if the layer cannot be read (`representation.Reading`) or lost its graph.
        """
        points = tuple(x.detach().requires_grad_() for x in points)
        with torch.enable_grad():
            y, z = self._represented(points, layer)
            distance = (z - reference).square().sum(1)
            totals = [distance.sum(), *(y[:, k].sum() for k in outputs)]
        if not distance.requires_grad:
            raise ModelError(
                f"the layer {layer!r} has no gradient with respect to the inputs: name one that the inputs act on"
            )
        self._find_order(totals, points)
        found = derivatives.gradients(totals, points, self._scaled, bool(self.in_one_order))
        _, descent = next(found)
        return Towards(
            distance.detach(), descent, y.detach()[:, list(outputs)], ((k - 1, gradients) for k, gradients in found)
        )

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
        """``sum_p d f_k(x) / d x_ip * tangent_p`` at each point for all k of `outputs` at once.

        Input `i` moves, the others rest. Forward mode with dual numbers: no graph, and no backward pass. Attention
        takes its plain form, because its fused kernels have no forward rule. Raises `RuntimeError` or
        `NotImplementedError` if another operator has no forward rule.
        """
        return derivatives.directional(self._forward, points, i, tangent)[:, outputs]

    def reached(self, inputs: Tensors) -> list[bool]:
        """Whether a gradient of the outputs reaches each input."""
        points = tuple(x.detach().requires_grad_() for x in inputs)
        with torch.enable_grad():
            y = self._forward(points)
        return derivatives.reached(y.sum(), points)


@dataclass(frozen=True)
class Latent:
    """A model up to its final layer ``f = W z + c``.

    `model`: its outputs are the latents z. `outputs`: the columns of z that are needed. `expand`: maps results for
    these latents, (n, L, *P), to results for the outputs of the whole model, (n, J, *P), by W; correct for everything
    that is linear in the output.
    """

    model: Model
    outputs: list[int]
    expand: Callable[[Tensor], Tensor]


def _identity(h: Tensor) -> Tensor:
    return h
