"""A module whose weights are still in a file: each rank of a replica reads its own part of each, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from igc_dist.model.weights import misfit, renamed
from igc_dist.records import ModelError

Slices = tuple[slice, ...]


@contextmanager
def without_weights() -> Iterator[None]:
    """Modules that are built in here have parameters without numbers (on the device meta); buffers are as ever."""

    def emptied(module: nn.Module, name: str, parameter: Any) -> Any:
        if not isinstance(parameter, nn.Parameter) or parameter.is_meta:  # a shared one stays the same
            return None
        return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)

    hook = register_module_parameter_registration_hook(emptied)
    try:
        yield
    finally:
        hook.remove()


def fillable(module: nn.Module) -> bool:
    """Whether each parameter can be filled by itself: none is shared by two layers, or bounded when it is looked up."""
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    bounded = any(getattr(each, "max_norm", None) is not None for each in module.modules())
    return len(names) == len([*module.named_parameters()]) and not bounded


@dataclass(frozen=True)
class Unfilled:
    """The weights of a module in a file of safetensors. `names`: those of the file, by the module's."""

    path: str
    names: Mapping[str, str]

    @classmethod
    def of(cls, module: nn.Module, path: str) -> Unfilled:
        """Look at the file, and fill the buffers. Raises `ModelError` for weights of another architecture."""
        with safe_open(path, "pt") as file:
            kinds = {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in file.keys()}  # noqa: SIM118
            wanted = module.state_dict()
            places = renamed({name: name for name in kinds}, wanted, path)
            if why := misfit(wanted, {name: kinds[str(place)] for name, place in places.items()}):
                raise ModelError(f"model.weights={path!r} do not load into {type(module).__name__}, {why}")
            for name, buffer in module.named_buffers():
                if name in places:
                    buffer.copy_(file.get_tensor(places[name]))
        return cls(path, dict(places))

    def whole(self, name: str) -> Tensor:
        """A weight as the file has it."""
        with safe_open(self.path, "pt") as file:
            found: Tensor = file.get_tensor(self.names[name])
            return found

    def fill(self, module: nn.Module, device: torch.device, mine: Callable[[Tensor], tuple[Tensor, Slices]]) -> None:
        """Give numbers to the parameters of a module in parts. ``mine(p)``: what this rank holds of one, and where."""
        module._apply(lambda t: torch.empty_like(t, device=device) if t.is_meta else t)
        with safe_open(self.path, "pt") as file, torch.no_grad():
            for name, parameter in module.named_parameters():
                held, where = mine(parameter)
                held.copy_(file.get_slice(self.names[name])[where] if where else file.get_tensor(self.names[name]))
