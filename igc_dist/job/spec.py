"""The identity of a run: its parts as JSON, and a hash over everything that changes the numbers."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from igc_dist.model import Vision
from igc_dist.paths import Quadrature

KINDS = {
    "igc_dist.compat.igc": "igc_dist.compat",
    "igc_dist.data.columns": "igc_dist.data",
    "igc_dist.data.pairs": "igc_dist.data",
    "igc_dist.data.source": "igc_dist.data",
    "igc_dist.model.outputs": "igc_dist.adapters",
    "igc_dist.paths.designs": "igc_dist.designs",
    "igc_dist.paths.path": "igc_dist.paths",
    "igc_dist.paths.quadrature": "igc_dist.quadrature",
}
"""Old module names of kinds whose file was moved. Specs keep the old name, because hashes must not change."""


def describe(value: Any) -> Any:
    """A part of a run as JSON: a dataclass by its fields, tensors by digest, modules by their weights."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Quadrature):
        return {"name": value.name, "digest": digest(value.nodes, value.weights)}
    if isinstance(value, np.ndarray | Tensor):
        return {"shape": list(value.shape), "digest": digest(value)}
    if isinstance(value, nn.Module):
        return describe_module(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            "kind": _name(type(value)),
            **{f.name: describe(getattr(value, f.name)) for f in dataclasses.fields(value)},
        }
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, functools.partial):
        return {"partial": describe(value.func), "args": describe(value.args), "keywords": describe(value.keywords)}
    if isinstance(value, Sequence):
        return [describe(item) for item in value]
    return _name(value) if hasattr(value, "__qualname__") else _name(type(value))


def describe_module(module: nn.Module, numbers: Callable[[str], Tensor] | None = None) -> dict[str, Any]:
    """A module by its weights. ``numbers(name)`` reads one that the module does not hold yet, one at a time."""
    state = {name: tensor for name, tensor in sorted(module.state_dict().items()) if isinstance(tensor, Tensor)}
    held = (t if numbers is None or not t.is_meta else numbers(name).to(t.dtype) for name, t in state.items())
    found = {"class": _name(type(module)), "weights": _digest(held), "names": list(state)}
    return found | ({"identity": describe(module.identity)} if isinstance(module, Vision) else {})


def _name(value: Any) -> str:
    return f"{KINDS.get(value.__module__, value.__module__)}.{value.__qualname__}"


def digest(*arrays: np.ndarray | Tensor) -> str:
    """SHA-256 of arrays or tensors: types, shapes and bytes."""
    return _digest(arrays)


def _digest(arrays: Iterable[np.ndarray | Tensor]) -> str:
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(f"{array.dtype} {tuple(array.shape)} ".encode())
        if isinstance(array, Tensor):
            array = array.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()  # numpy has no bfloat16
        sha.update(array.tobytes())
    return sha.hexdigest()


def spec_hash(spec: Mapping[str, Any]) -> str:
    """SHA-256 of the spec: everything that changes the numbers, and nothing else."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
