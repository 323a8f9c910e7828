"""A vision model that takes pixels of 0 to 1: its preprocessing is part of the function that is differentiated."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from igc_dist.model.weights import fit, load_weights, numbers_in
from igc_dist.records import ConfigError, ModelError

TOLERANCE = 0.05
"""How far pixels may leave 0 to 1: resampling of others than ours overshoots."""
INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "lanczos")


@dataclass(frozen=True)
class Intake:
    """What a vision model takes: the size of its images, and how pixels of 0 to 1 are scaled, ``(x - mean) / std``.

    `size`: height and width. `resize`: the shorter side before the centre of `size` is cut out; "squash": to `size`
    whatever the shape; None: as long as `size` needs. `mean`, `std`: one number for each channel, of pixels of 0 to 1.
    `layout`: NCHW, or NHWC for a module that takes channels last (data are NCHW in either case).

    Raises `ConfigError` for a std of 0, an unknown layout or interpolation.
    """

    size: tuple[int, int] | None = None
    resize: int | str | None = None
    interpolation: str = "bicubic"
    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    layout: str = "NCHW"

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(s > 0 and math.isfinite(s) for s in self.std):
            raise ConfigError(
                f"mean={[*self.mean]}, std={[*self.std]}: give one of each per channel, of pixels of 0 to 1, with std "
                "above 0"
            )
        if self.layout not in ("NCHW", "NHWC"):
            raise ConfigError(f"layout={self.layout!r}: choose NCHW, or NHWC for a module that takes channels last")
        if self.interpolation not in INTERPOLATIONS:
            raise ConfigError(f"interpolation={self.interpolation!r}: choose one of {', '.join(INTERPOLATIONS)}")


class Vision(nn.Module):
    """``f(x) = net((x - mean) / std)`` of images x (n, channels, height, width) with pixels of 0 to 1.

    Attributions are then of pixels, in their own units, and a baseline of 0 is black. `net`: the module, or a function
    that builds it from the `hyper_parameters` of the checkpoint that `load` reads. `intake`: see there. `identity`:
    what the module is, as JSON, for the spec of a run. `classes`: the names of the outputs, in their order.
    `final_layer`: the dotted name of the last linear layer in `net`. `notes`: what a user should know about its
    kernels. `pending`: the weights are still to be read by `load`; the forward refuses until then.
    """

    net: Any
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module | Callable[..., nn.Module],
        intake: Intake,
        identity: Mapping[str, Any],
        classes: Sequence[str] | None = None,
        final_layer: str | None = None,
        notes: Sequence[str] = (),
        pending: bool = False,
    ) -> None:
        super().__init__()
        self.net, self.intake, self.identity = net, intake, dict(identity)
        self.classes = None if classes is None else [str(name) for name in classes]
        self.final_layer = None if final_layer is None else f"net.{final_layer}"
        self.notes, self.pending = tuple(notes), pending
        for name in ("mean", "std"):
            values = torch.tensor([float(value) for value in getattr(intake, name)])
            self.register_buffer(name, values.reshape(-1, 1, 1))

    @property
    def takes(self) -> dict[str, Any]:
        """What images are decoded to, and the names of labels: ``ImageFolder("photos", **vision.takes)``."""
        wish = self.intake
        pixels = {"size": wish.size, "resize": wish.resize, "interpolation": wish.interpolation}
        return {**pixels, "classes": self.classes}

    def forward(self, x: Float[Tensor, "n channels height width"]) -> Any:
        self.check()
        x = (x - self.mean) / self.std
        return self.net(x if self.intake.layout == "NCHW" else x.permute(0, 2, 3, 1))

    def check(self) -> None:
        """Raise `ModelError` if weights are still to be loaded."""
        if self.pending:
            raise ModelError(
                f"{self.identity.get('family')} {self.identity.get('name', '')} has no weights: give their file "
                "(model.weights, weights=), safetensors or a state dict; nothing is downloaded"
            )

    def doubts(self, x: Tensor) -> list[str]:
        """What speaks for pixels that are normalised twice: in images x of the data, and in the net."""
        if not bool((self.std != 1).any() or (self.mean != 0).any()):
            return []
        least, most = (float(x.nan_to_num().amin()), float(x.nan_to_num().amax()))
        inside = [name for name, each in self.net.named_modules() if hasattr(each, "mean") and hasattr(each, "std")]
        found = []
        if least < -TOLERANCE or most > 1 + TOLERANCE:
            found.append(
                f"pixels run from {least:.3g} to {most:.3g}, but the model takes 0 to 1 and normalises them itself: "
                "leave the normalisation out of the data set, or of the model (mean, std)"
            )
        if inside:
            found.append(
                f"{type(self.net).__name__} has a mean and a std of its own ({inside[0] or 'itself'}): pixels may be "
                "normalised twice, leave mean and std out if it takes pixels of 0 to 1"
            )
        return found

    def load(self, path: str, trust: bool = False) -> None:
        """Read the weights of `net`, see `weights.load_weights`. Raises `ModelError`."""
        if isinstance(self.net, nn.Module):
            load_weights(getattr(self.net, "weighted", self.net), path, trust)
        else:
            state, settings = numbers_in(path, trust)
            net = self._built(self.net, path, settings)
            fit(net, state, path)
            self.net = net
        ready = getattr(self.net, "loaded", None)
        if callable(ready):
            ready()
        self.pending = False

    def _built(self, build: Callable[..., nn.Module], path: str, settings: Mapping[str, Any]) -> nn.Module:
        try:
            return build(**settings)
        except Exception as error:
            raise ModelError(
                f"the module of {path!r} cannot be built from its hyper_parameters ({', '.join(settings) or 'none'}): "
                f"{type(error).__name__}: {error}; give a module that is built"
            ) from error


def load(module: nn.Module, path: str, trust: bool = False) -> None:
    """Load weights into a module, or into the net of a `Vision`. Raises `ModelError`."""
    if isinstance(module, Vision):
        module.load(path, trust)
    else:
        load_weights(module, path, trust)


def last_linear(net: nn.Module, layer: nn.Module | None = None) -> str | None:
    """The dotted name of `layer` in the net, or of the last `nn.Linear` that is registered; None if there is none."""
    found = [name for name, each in net.named_modules() if each is layer or (layer is None and type(each) is nn.Linear)]
    return found[-1] if found else None
