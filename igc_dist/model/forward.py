"""The forward pass of a user's module: which method it calls, in which precision and layout, and which outputs count.

Under `torch.compile` a batch is padded to a fixed number of rows. The final layer may be replaced by another function.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from igc_dist.model import numerics
from igc_dist.model.borrowing import check_tensors
from igc_dist.model.final_layer import Call, FinalLayer, last_of
from igc_dist.model.habits import Habits
from igc_dist.model.lockstep import Lockstep, Parts
from igc_dist.model.selection import Select, selected
from igc_dist.model.unfilled import Unfilled
from igc_dist.model.vision import Vision
from igc_dist.records import ConfigError, ModelError
from igc_dist.tensors import Tensors, floating

log = logging.getLogger(__name__)

AUTO = "auto"
TF32 = "32-tf32"
PRECISIONS = {"32-true": None, TF32: None, "64-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Lightning's names, and one for float32 with factors rounded to TF32 on CUDA. Mixed: autocast applies to the forward
only; path points and gradients stay float32."""

HIGHER = {"bf16-mixed": "32-true", "16-mixed": "32-true", TF32: "32-true", "32-true": "64-true"}
"""The higher precision with which an audit compares each precision."""


T = TypeVar("T")


@dataclass(eq=False)
class ForwardPass:
    """A module, how to call it, and which part of its output counts.

    `forward`: name of the method to call; `forward_kwargs`: constant keyword arguments for it.
    `output`: which part of the result is used. None: the result must be (n, J) or (n,). A name or index: that entry of
    a dict, tuple or ModelOutput. A sequence of them: one level after the other; in a tensor they index the dimensions
    after the batch. "flatten": all dimensions after the batch are outputs. A callable: ``result -> (n, J)``.
    `channels_last`: convolution layout, the largest free gain for convolutional nets, also on CPU; "auto" lets a trial
    choose (`trial.py`). `compiled`: `torch.compile` the forward when the plan has fixed its number of rows (`fix`).
    `cuda_graphs`: on a CUDA device, record the gradients of small nets once and replay them (`recorded`).
    `final_layer`: the layer ``f = W z + c`` at the end, its dotted name, or "auto" (the one that a `Vision` names, else
    the last `nn.Linear`); see `FinalLayer`. Then many outputs need no more gradients than there are latents z.
    `parts`: how several ranks hold the module together; `steps` is then their way through it (`lockstep`).
    """

    module: Any
    _: KW_ONLY
    forward: str | None = None
    forward_kwargs: Mapping[str, Any] | None = None
    output: Select = None
    precision: str = "32-true"
    channels_last: bool | str = False
    compiled: bool = False
    cuda_graphs: bool = False
    final_layer: nn.Module | str | None = None
    parts: Parts = field(default_factory=Parts)

    def __post_init__(self) -> None:
        module, forward = self.module, self.forward
        if not isinstance(module, nn.Module):
            way = ", so give its module()" if isinstance(module, torch.export.ExportedProgram) else ""
            raise ModelError(
                f"model of type {type(module).__name__}: expected a torch.nn.Module or LightningModule{way}"
            )
        check_tensors(module)
        if self.precision not in PRECISIONS:
            raise ConfigError(f"fabric.precision={self.precision!r}: choose one of {', '.join(PRECISIONS)}")
        if forward is not None and not callable(getattr(module, forward, None)):
            raise ModelError(
                f"{type(module).__name__} has no method {forward!r}: give the name of the method that maps inputs to "
                "outputs"
            )
        self.forward_kwargs = dict(self.forward_kwargs or {})
        if self.channels_last not in (True, False, AUTO):
            raise ConfigError(
                f"model.channels_last={self.channels_last!r}: choose true, false, or auto (a trial chooses)"
            )
        self._call: Callable[..., Any] = module if forward is None else getattr(module, forward)
        self._eager, self._rows = self._call, (1, 1)
        if isinstance(module, Vision):
            module.check()
        self.final = None if self.final_layer is None else FinalLayer(module, last_of(module, self.final_layer))
        self._as_layer: Call | None = None
        self._habits = Habits()
        self.steps: Lockstep | None = None
        self.unfilled: Unfilled | None = None
        self.known: dict[str, Any] | None = None  # what identifies a module that no rank holds as a whole

    @property
    def mixed(self) -> bool:
        """Whether the forward runs in half precision, under autocast."""
        return PRECISIONS[self.precision] is not None

    @property
    def rounded(self) -> bool:
        """Whether factors of the model's products are rounded to fewer bits than the numbers have."""
        return self.mixed or self.precision == TF32

    @property
    def in_one_order(self) -> bool | None:
        """Whether all kernels of the model on a card add in one order; None: not known, or no card."""
        return self._habits.in_one_order

    @property
    def above(self) -> str | None:
        """The next higher precision; None for the highest."""
        return HIGHER.get(self.precision)

    @property
    def device(self) -> torch.device:
        """The device of the parameters; cpu for a module without parameters and buffers.

        Raises `ModelError` if they are on several devices.
        """
        devices = {tensor.device for tensor in (*self.module.parameters(), *self.module.buffers())}
        if len(devices) > 1:
            raise ModelError(
                f"the model's parameters are on several devices ({', '.join(sorted(map(str, devices)))}): "
                "move it to one with model.to(device)"
            )
        return devices.pop() if devices else torch.device("cpu")

    def dtype(self, inputs: Tensors) -> torch.dtype:
        """Type of path points: that of the parameters, else of the inputs; at least float32, float64 under 64-true."""
        if self.precision == "64-true":
            return torch.float64
        return floating(self.module.parameters(), inputs)

    def fix(self, rows: tuple[int, int]) -> None:
        """Compile the forward from now on, for these numbers of rows: in passes without and with a graph.

        Compilers specialise on shapes, and a CUDA graph has one shape. A pass with fewer rows is filled with copies of
        its last row, whose results are removed again. Does nothing unless `compiled`.
        """
        if self.compiled:
            self._call = torch.compile(self._eager, dynamic=False) if self._call is self._eager else self._call
            self._rows = rows
            if self._habits.writes is None:
                self._habits.writes = False  # the first look is not compiled, and would have found out

    def _forward(self, inputs: Tensors) -> Tensor:
        n = len(inputs[0])
        missing = -n % self._rows[torch.is_grad_enabled()]
        if missing and n:
            return self._filled(inputs, missing)
        if n != 1:
            return self._outputs(inputs)
        if not self._habits.squeezes:
            try:
                return self._outputs(inputs)
            except (ModelError, IndexError) as error:
                reason = error
        try:
            y = self._filled(inputs, 1)
        except (ModelError, IndexError):
            if self._habits.squeezes:
                raise
            raise reason from None
        self._habits.squeezes = True
        return y

    def _filled(self, inputs: Tensors, missing: int) -> Tensor:
        """The outputs from a batch that is filled with copies of its last row."""
        filled = tuple(torch.cat((x, x[-1:].detach().expand(missing, *x.shape[1:]))) for x in inputs)
        return self._outputs(filled)[: len(inputs[0])]

    def _ungraphed(self, inputs: Tensors, work: Callable[[Tensors], T]) -> T:
        """The result of `work(inputs)` without a graph; with one if the forward turns out to need it."""
        if not self._habits.differentiates:
            try:
                with torch.no_grad():
                    return work(inputs)
            except RuntimeError as error:
                if "does not require grad" not in str(error):
                    raise
        with torch.enable_grad():
            found = work(tuple(x.detach().requires_grad_(x.is_floating_point()) for x in inputs))
        self._habits.differentiates = True
        return found

    def _outputs(self, inputs: Tensors) -> Tensor:
        return self.alone(inputs) if self.steps is None else self.steps(self, inputs)

    def alone(self, inputs: Tensors) -> Tensor:
        """The selected outputs, (n, J), of what this rank passes through the module itself."""
        if self.channels_last is True:
            inputs = tuple(x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs)
        if self.final is not None and self.final.layout is None:
            finite = tuple(x.detach().nan_to_num() for x in inputs)
            with torch.no_grad():
                self.final.place(
                    lambda call: self._ungraphed(finite, lambda points: self._table(points, call)).detach(),
                    compiled=self.compiled,
                    half=PRECISIONS[self.precision] is not None,
                )
        return self._table(inputs, self._as_layer)

    def _table(self, inputs: Tensors, as_layer: Call | None) -> Tensor:
        """The selected outputs as (n, J); if `as_layer` is a function, it replaces the final layer."""
        half, final, output = PRECISIONS[self.precision], self.final, self.output
        inside = final is not None and final.inside
        with (
            torch.autocast(inputs[0].device.type, dtype=half) if half else nullcontext(),
            final.replaced(as_layer) if final is not None and inside and as_layer is not None else nullcontext(),
            numerics.as_called(inputs[0].device),
        ):
            raw = self._called(inputs)
        if final is not None and not inside:
            z = selected(raw, None if output == "flatten" else output)
            output = "flatten" if output == "flatten" else None
            with torch.autocast(inputs[0].device.type, dtype=half) if half else nullcontext():
                raw = final.layer(z) if as_layer is None else as_layer(z)
        with numerics.as_called(inputs[0].device):
            y = selected(raw, output)
        if y.layout is not torch.strided or y.is_nested:
            kind, way = ("nested", "to_padded_tensor(0.0)") if y.is_nested else (f"sparse ({y.layout})", "to_dense()")
            raise ModelError(f"the model's output is {kind}: give a plain tensor, for example output=lambda z: z.{way}")
        if y.is_complex():
            raise ModelError(
                f"the model's output is complex ({y.dtype}), and only a real number has a gradient to follow: name the "
                "number to explain, for example output=lambda z: z.abs() (model.output)"
            )
        if y.ndim == 1 and len(y) == len(inputs[0]):
            y = y[:, None]
        if y.ndim != 2 or len(y) != len(inputs[0]):
            raise ModelError(
                f"the model's output has shape {tuple(y.shape)} for {len(inputs[0])} inputs, expected (n, outputs): "
                "set output (model.output) to the indices of the entry to explain, after the batch, to 'flatten' for "
                "all, or to a function of it"
            )
        # float64 outputs of a float64 model stay float64; half precision becomes float32 before anything is summed
        return y if y.dtype == torch.float64 else y.float()

    def _called(self, inputs: Tensors) -> Any:
        """The result of the module. A forward that writes into its inputs gets copies, also until that is known."""
        given = inputs if self._habits.writes is False else tuple(x.clone() for x in inputs)
        before = [x._version for x in given]
        try:
            with numerics.in_one_order(self._asked_for_order(given)):
                raw = self._call(*given, **(self.forward_kwargs or {}))
        except RuntimeError as error:
            if not self._asked_for_order(given) or numerics.LACKS not in str(error):
                raise
            self._lacks_order(error)
            return self._called(inputs)
        except AssertionError as error:  # of torch.export
            if "Guard failed" not in str(error):
                raise
            raise ModelError(
                f"the exported program takes other inputs ({error}): export it for batches of any size (dynamic_shapes)"
            ) from error
        writes = [x._version for x in given] != before
        if writes and self._habits.writes is False:
            raise ModelError(
                "the forward writes into its inputs, but not always: let it work on a copy (x = x.clone())"
            )
        if self._habits.writes is None:
            self._habits.writes = writes
        return raw

    def _asked_for_order(self, inputs: Tensors) -> bool:
        return inputs[0].device.type in numerics.CARDS and self._habits.in_one_order is not False

    def _lacks_order(self, error: Exception) -> None:
        """Note that an operator has no kernel that adds in one order. The run goes on, and its provenance says so."""
        self._habits.in_one_order = False
        log.warning("the last bits may differ from run to run: %s", str(error).splitlines()[0])

    def predict(self, inputs: Tensors) -> Float[Tensor, "n J"]:
        """f(x) for all outputs of the model, without a graph."""
        rows = self._rows[0] if self._rows[0] > 1 else len(inputs[0])
        pieces = [inputs] if len(inputs[0]) <= rows else zip(*(x.split(rows) for x in inputs), strict=True)
        made = [self._ungraphed(piece, self._forward).detach() for piece in pieces]
        return made[0] if len(made) == 1 else torch.cat(made)


def _donated_buffers_off() -> AbstractContextManager[Any]:
    import torch._functorch.config as functorch

    return functorch.patch(donated_buffer=False)


DONATED_BUFFERS_OFF = numerics.Shared(_donated_buffers_off)
"""Without this, a compiled forward frees its saved tensors after the first backward, and retain_graph raises."""
