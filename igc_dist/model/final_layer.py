"""The final linear layer of a model, ``f = W z + c``: how to cut it off the forward and how to compute f from z."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from igc_dist.model.vision import last_linear
from igc_dist.records import ConfigError, ModelError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

Call = Callable[[Tensor], Tensor]
Run = Callable[[Call | None], Tensor]
"""Returns the outputs as a table, with the layer replaced by a function (None: not replaced)."""


@dataclass(frozen=True)
class Layout:
    """Where the channels of the layer lie in the tables of outputs (n, J * S) and of latents (n, Z * S).

    `positions`: S. It is more than 1 if the layer maps each of S positions (pixels, tokens) and the forward flattens
    them. `channels_first`: the column is ``channel * S + position``, as images are flattened; otherwise it is
    ``position * channels + channel``.
    """

    positions: int
    channels_first: bool

    def split(self, column: int, channels: int) -> tuple[int, int]:
        """(channel, position) of a column."""
        one, two = divmod(column, self.positions if self.channels_first else channels)
        return (one, two) if self.channels_first else (two, one)

    def column(self, channel: int, position: int, channels: int) -> int:
        return channel * self.positions + position if self.channels_first else position * channels + channel


class FinalLayer:
    """A layer ``f = W z + c`` at the end of a module: an `nn.Linear`, or a convolution with a kernel of 1.

    `layer`: the module, or its dotted name in `module`. `inside`, which `place` finds out: True if the forward itself
    applies the layer, as its last learned step; False if the forward returns z and its caller applies the layer.
    Nothing of the layer is kept or changed: W and c are read when they are used, and `replaced` restores the layer.

    Raises `ConfigError` for an unknown name, with the nearest one, or for a module that is no such layer.
    """

    def __init__(self, module: nn.Module, layer: nn.Module | str) -> None:
        self.name = (
            layer if isinstance(layer, str) else next((name for name, m in module.named_modules() if m is layer), None)
        )
        found = _named(module, layer) if isinstance(layer, str) else layer
        problem = _unfit(found)
        if problem is not None:
            raise ConfigError(
                f"final_layer ({self.name or type(found).__name__}) is {problem}: give an nn.Linear, or a 1x1 "
                "convolution"
            )
        assert isinstance(found, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
        self.layer = found
        self.inside = self.half = False
        self.layout: Layout | None = None

    @property
    def weight(self) -> Float[Tensor, "J Z"]:
        return self.layer.weight.detach().flatten(1)

    @contextmanager
    def replaced(self, call: Call) -> Iterator[None]:
        """Make `call` the layer's forward while the block lasts."""
        before = self.layer.__dict__.get("forward")
        self.layer.__dict__["forward"] = call
        try:
            yield
        finally:
            del self.layer.__dict__["forward"]
            if before is not None:
                self.layer.__dict__["forward"] = before

    def place(self, run: Run, *, compiled: bool, half: bool) -> None:
        """Find out whether the forward applies the layer and how outputs follow from latents; prove it on a probe.

        `run` runs the probe. `compiled`: the forward is compiled; `half`: it computes in half precision.

        There are two proofs, because what follows the layer must be linear: one with the latents of the probe, and one
        with random latents of either sign. The second finds a softmax, or a ReLU that is open for the probe by chance.
        Raises `ModelError` if the outputs are not ``W z + c``, and `ConfigError` if the layer is inside a compiled
        forward, which cannot be cut.
        """
        seen: list[Tensor] = []
        original = self.layer.forward

        def recorded(h: Tensor) -> Tensor:
            seen.append(h)
            return original(h)

        self.layout, self.inside, self.half = None, True, half
        try:
            y = run(recorded)
        except ModelError:
            if seen:
                raise  # else the forward returns latents, which need not be a table
        self.inside = bool(seen)
        if len(seen) > 1:
            raise ModelError(f"{self._expected} The forward calls it {len(seen)} times")
        if self.inside and compiled:
            raise ConfigError(
                "final_layer is inside a compiled forward: switch compiled off, or let forward name a method that "
                "returns the latents"
            )
        if not self.inside:
            try:
                y = run(recorded)
            except Exception as error:
                raise ModelError(
                    f"{self._expected} The forward does not call it, and gives no input for it: {error}"
                ) from error
        self.layout = self._found(y, self._latents(run, lambda h: h))
        if self.inside:
            noise = torch.randn(seen[0].shape, generator=torch.Generator().manual_seed(0)).to(seen[0]) * self._scale(
                seen[0]
            )
            self._prove(self.layout, run(lambda h: original(noise)), self._latents(run, lambda h: noise))

    def _latents(self, run: Run, call: Call) -> Tensor:
        try:
            return run(call)
        except Exception as error:
            raise ModelError(
                f"{self._expected} The forward fails when the layer hands on its {self.weight.shape[1]} latents "
                "instead of its "
                f"{self.weight.shape[0]} outputs: {type(error).__name__}: {error}"
            ) from error

    def _scale(self, h: Tensor) -> Tensor:
        """A scale so large that outputs have either sign, whatever the bias is."""
        bias = (
            0.0
            if self.layer.bias is None
            else self.layer.bias.abs().max() / self.weight.norm(dim=1).max().clamp_min(1e-6)
        )
        return (1 + h.abs().max() + bias).to(h)

    def _found(self, y: Tensor, z: Tensor) -> Layout:
        """The layout under which the outputs follow from the latents."""
        n_channels, n_latents = self.weight.shape
        positions = z.shape[1] // n_latents
        if z.shape[1] != positions * n_latents or y.shape[1] != positions * n_channels:
            raise ModelError(
                f"{self._expected} With W of {n_channels} x {n_latents}, the forward gives {y.shape[1]} outputs and "
                f"{z.shape[1]} latents"
            )
        candidates = [Layout(positions, first) for first in ((True, False) if positions > 1 else (True,))]
        errors = [self._error(layout, y, z) for layout in candidates]
        best = min(range(len(candidates)), key=errors.__getitem__)
        self._prove(candidates[best], y, z)
        return candidates[best]

    @property
    def _placed(self) -> Layout:
        assert self.layout is not None, "the final layer is placed at the first forward pass"
        return self.layout

    def _error(self, layout: Layout, y: Tensor, z: Tensor) -> float:
        """Largest difference of the outputs from ``W z + c``, relative to their size."""
        J, Z = self.weight.shape
        wide = z.reshape(len(z), Z, -1) if layout.channels_first else z.reshape(len(z), -1, Z).transpose(1, 2)
        f = torch.einsum("jz,nzs->njs", self.weight.to(z), wide)
        if self.layer.bias is not None:
            f = f + self.layer.bias.detach().to(z)[:, None]
        f = (f if layout.channels_first else f.transpose(1, 2)).reshape(len(z), -1)
        assert f.shape[1] == J * layout.positions
        error = (f - y).abs().max() / torch.maximum(f.abs().max(), y.abs().max()).clamp_min(1e-30)
        return float(error) if bool(error.isfinite()) else float("inf")

    def _prove(self, layout: Layout, y: Tensor, z: Tensor) -> None:
        error = self._error(layout, y, z)
        # bf16 rounds to 4e-3; float32 products may be rounded to TF32 on GPUs
        tolerance = 2e-2 if self.half else 1e-9 if y.dtype == torch.float64 else 5e-3
        if not error <= tolerance:
            raise ModelError(f"{self._expected} They are off by {error:.2g} of their size")

    @property
    def _expected(self) -> str:
        return (
            f"final_layer ({self.name or type(self.layer).__name__}) must be the last learned step: the outputs are "
            "not W z + c. "
            "Only steps that treat channels alike may follow (flattening, mean over positions), no softmax or other "
            "activation, scale "
            "or skip connection; or forward must name a method that returns z, the input of the layer."
        )

    @property
    def n_latents(self) -> int:
        return self.weight.shape[1] * self._placed.positions

    def columns(self, outputs: Sequence[int]) -> list[int]:
        """The latents that these outputs need: all channels at their positions."""
        layout, (J, Z) = self._placed, self.weight.shape
        positions = sorted({layout.split(k, J)[1] for k in outputs})
        return [layout.column(z, position, Z) for position in positions for z in range(Z)]

    def expand(self, values: Tensor, outputs: Sequence[int]) -> Tensor:
        """``a_f = W a_z``, exact for everything that is linear in the output.

        From (n, L, *P), in the order of `columns`, to (n, J, *P).
        """
        layout, weight = self._placed, self.weight.to(values)
        J, Z = weight.shape
        split = [layout.split(k, J) for k in outputs]
        of_position = {p: values[:, i * Z : (i + 1) * Z] for i, p in enumerate(sorted({p for _, p in split}))}
        result = values.new_empty(len(values), len(outputs), *values.shape[2:])
        for position, latents in of_position.items():
            rows = [j for j, (_, p) in enumerate(split) if p == position]
            result[:, rows] = torch.einsum("jz,nz...->nj...", weight[[split[j][0] for j in rows]], latents)
        return result


def last_of(module: nn.Module, layer: nn.Module | str) -> nn.Module | str:
    """The layer; "auto" is the one that a `Vision` names, else the last `nn.Linear`. Raises `ConfigError` for none."""
    if layer != "auto":
        return layer
    found = getattr(module, "final_layer", None) or last_linear(module)
    if not isinstance(found, str):
        raise ConfigError(f"final_layer=auto: {type(module).__name__} has no nn.Linear: name the layer, or give null")
    return found


def _named(module: nn.Module, name: str) -> nn.Module:
    try:
        return module.get_submodule(name)
    except AttributeError:
        known = [known for known, m in module.named_modules() if _unfit(m) is None]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(
            f"final_layer={name!r} is no module of {type(module).__name__}{hint}: its linear layers and 1x1 "
            "convolutions are "
            f"{', '.join(known[-8:]) or 'none'}"
        ) from None


def _unfit(layer: nn.Module) -> str | None:
    """The reason why a module is not a linear layer with a kernel of 1, or None."""
    if isinstance(layer, nn.Linear):
        return None
    if not isinstance(layer, CONVOLUTIONS):
        return f"of type {type(layer).__name__}"
    if (
        set(layer.kernel_size) != {1}
        or set(layer.stride) != {1}
        or layer.groups != 1
        or set(layer.padding) - {0, *"validsame"}
    ):
        return (
            f"a convolution with kernel {layer.kernel_size}, stride {layer.stride}, padding {layer.padding}, "
            f"{layer.groups} groups"
        )
    return None
