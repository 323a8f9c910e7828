"""How a module is cut into the parts that the ranks of a replica hold: FSDP2, tensor parallel, or both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from igc_dist.model import Parts
from igc_dist.records import ConfigError

SPLITS = {"colwise": ColwiseParallel, "rowwise": RowwiseParallel}


def divided(module: nn.Module, mesh: DeviceMesh, parts: Parts) -> nn.Module:
    """The module in parts on the mesh, whose axes are data_parallel and tensor_parallel.

    A function of the user's does all of it. Else layers are split first, and then each block is sharded, so that one
    block at a time is whole on a rank. Raises `ConfigError` for a plan that names no layer.
    """
    if callable(parts.how):
        return _own(module, mesh, parts.how)
    if isinstance(parts.how, Mapping):
        check(module, parts.how)
        plan = {name: SPLITS[style]() for name, style in parts.how.items()}
        parallelize_module(module, mesh["tensor_parallel"], plan)
    if parts.data > 1:
        for block in blocks(module):
            fully_shard(block, mesh=mesh["data_parallel"])
        fully_shard(module, mesh=mesh["data_parallel"])
    return module


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The blocks of a module: what its outermost lists and sequences hold, as far as it has weights."""
    listed = isinstance(module, nn.ModuleList | nn.Sequential)
    for child in module.children():
        if listed and not isinstance(child, nn.ModuleList | nn.ModuleDict):
            if next(child.parameters(), None) is not None:
                yield child
        else:
            yield from blocks(child)


def held(parameter: Tensor) -> tuple[Tensor, tuple[slice, ...]]:
    """What this rank holds of a parameter, and where that is in the whole; nothing says that it is the whole."""
    if not isinstance(parameter, DTensor):
        return parameter.data, ()
    its = parameter.shape, parameter.device_mesh, parameter.placements
    shape, start = compute_local_shape_and_global_offset(*its)
    return parameter.to_local(), tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))


def _own(module: nn.Module, mesh: DeviceMesh, how: Any) -> nn.Module:
    """What a function of the user's makes of the module. Raises `ConfigError` if it fails, or returns no module."""
    name = getattr(how, "__name__", None) or getattr(getattr(how, "func", None), "__name__", str(how))
    try:
        found = how(module, mesh)
    except Exception as error:
        raise ConfigError(f"model.parallelize: {name} failed ({type(error).__name__}: {error})") from error
    if not isinstance(found, nn.Module):
        raise ConfigError(f"model.parallelize: {name} returned {type(found).__name__}, and has to return the module")
    return found


def check(module: nn.Module, plan: Mapping[str, str]) -> None:
    """Raise `ConfigError` for a name in the plan that is none of a layer that can be split."""
    fit = [name for name, each in module.named_modules() if isinstance(each, nn.Linear | nn.Embedding)]
    for name in plan:
        if not any(fnmatchcase(known, name) and known.count(".") == name.count(".") for known in fit):
            raise ConfigError(
                f"model.parallelize has {name!r}, which is no nn.Linear or nn.Embedding of {type(module).__name__}: "
                f"there are {', '.join(fit[-8:]) or 'none'}"
            )
