"""The families `module` and `lightning_checkpoint`: modules of the user's own, with their preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from igc_dist.model.vision import Intake, Vision, last_linear
from igc_dist.records import ConfigError
from igc_dist.targets import class_names


def module(
    module: nn.Module,
    weights: str | None = None,
    classes: Sequence[str] | str | Path | None = None,
    final_layer: str | None = None,
    **intake: Any,
) -> Vision:
    """A module of your own that takes images, with the preprocessing it was trained with.

    `intake`: fields of `Intake`, such as ``size=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)``.
    `weights`: a file that is loaded into it; None: as it is. `final_layer`: None is its last `nn.Linear`.
    """
    if not isinstance(module, nn.Module):
        raise ConfigError(f"module of type {type(module).__name__}: give a torch.nn.Module")
    identity = {"family": "module", "name": type(module).__name__}
    last = final_layer or last_linear(module)
    made = Vision(module, _intake(intake), identity, class_names(classes), last)
    if weights is not None:
        made.load(str(weights))
    return made


def lightning_checkpoint(
    module: nn.Module | Callable[..., nn.Module],
    weights: str | None = None,
    classes: Sequence[str] | str | Path | None = None,
    final_layer: str | None = None,
    **intake: Any,
) -> Vision:
    """A checkpoint of Lightning: the `state_dict` in it, without the name that the LightningModule gave the network.

    `module`: the LightningModule, the network inside of it, or its class (``_partial_: true`` in a configuration),
    which is then called with the checkpoint's `hyper_parameters`. The rest as for `module`.
    """
    if not callable(module):
        raise ConfigError(f"module of type {type(module).__name__}: give a module, or its class")
    built = isinstance(module, nn.Module)
    kind = type(module) if built else getattr(module, "func", module)
    identity = {"family": "lightning_checkpoint", "name": getattr(kind, "__name__", str(kind))}
    last = (final_layer or last_linear(module)) if isinstance(module, nn.Module) else final_layer
    made = Vision(module, _intake(intake), identity, class_names(classes), last, pending=True)
    if weights is not None:
        made.load(str(weights))
    return made


def _intake(given: Mapping[str, Any]) -> Intake:
    known = [*Intake.__dataclass_fields__]
    if wrong := [name for name in given if name not in known]:
        raise ConfigError(f"unknown argument {wrong[0]!r}: what a module takes is said by {', '.join(known)}")
    size = given.get("size")
    both = (size, size) if isinstance(size, int) else None if size is None else tuple(size)
    return Intake(**{**given, "size": both})
