"""Weights of a model from a file: only numbers, no code, unless the command line trusts the file."""

from __future__ import annotations

import mmap
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from igc_dist.records import ModelError

FEW = 5
"""Tensors that are named where weights do not fit."""


def load_weights(module: nn.Module, path: str, trust: bool = False) -> None:
    """Load weights into a module: safetensors, or a state dict read with `weights_only=True`.

    A prefix that all names have in common in the file and not in the module ("model.", of a LightningModule), or the
    other way round, makes no difference. `trust` is for the user's own files: pickled objects, whose code runs on
    loading, and TorchScript archives. It is given on the command line only (--trust), never in a file. Raises
    `ModelError`; for weights of another architecture it names the first tensors that differ.
    """
    fit(module, numbers_in(path, trust)[0], path)


def numbers_in(path: str, trust: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state dict in a file, and the `hyper_parameters` of a Lightning checkpoint. Raises `ModelError`."""
    path = os.path.expanduser(path)
    if not Path(path).is_file():
        raise ModelError(f"model.weights={path!r}: there is no such file")
    if (why := _code(path)) and not trust:
        raise ModelError(_refused(path, why))
    if not trust and (swells := _swells(path)):
        raise ModelError(
            f"model.weights={path!r} {swells}: it could take any size in memory. Save the state dict again "
            "(torch.save, or safetensors), or give --trust on the command line if the file is your own"
        )
    try:
        state = _state(path, trust, bool(why))
    except pickle.UnpicklingError as error:
        raise ModelError(
            _refused(path, f"is a pickle of objects, or no file of weights ({str(error).splitlines()[0][:200]})")
        ) from error
    except Exception as error:
        raise ModelError(f"model.weights={path!r} do not load: {error}") from error
    if not isinstance(state, Mapping):
        raise ModelError(f"model.weights={path!r} do not load: the file holds a {type(state).__name__}, no state dict")
    settings = state.get("hyper_parameters", {})
    return dict(state.get("state_dict", state)), dict(settings) if isinstance(settings, Mapping) else {}


def fit(module: nn.Module, state: Mapping[str, Any], path: str) -> None:
    """Load a state dict of the file `path`. Raises `ModelError` with what differs."""
    wanted, kind = module.state_dict(), type(module).__name__
    state = renamed(state, wanted, path)
    try:
        module.load_state_dict(state)
    except Exception as error:
        why = misfit(wanted, state) or str(error)
        raise ModelError(f"model.weights={path!r} do not load into {kind}, {why}") from error


def misfit(wanted: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """What differs between the tensors that a module wants and those of a file, which are named alike; or nothing."""
    different = [f"{name} is missing" for name in wanted if name not in state]
    different += [f"{name} is not in the module" for name in state if name not in wanted]
    different += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if isinstance(tensor, Tensor) and isinstance(state.get(name), Tensor) and state[name].shape != tensor.shape
    ]
    more = f", and {len(different) - FEW} more" if len(different) > FEW else ""
    return f"they are of another architecture: {'; '.join(different[:FEW])}{more}" if different else ""


def renamed(state: Mapping[str, Any], wanted: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """The state dict under the names of the module, if they differ by one prefix of all.

    Raises `ModelError` if the file has the module under several prefixes.
    """
    if not state or not wanted or {*state} & {*wanted}:
        return state
    first = next(iter(wanted))
    prefixes = [name.removesuffix(first) for name in state if name.endswith(f".{first}")]
    if len(prefixes) > 1:
        raise ModelError(
            f"model.weights={path!r} has the module {len(prefixes)} times, as {', '.join(sorted(prefixes))}: save one "
            "of them as safetensors, without the others"
        )
    if prefixes:
        return {name.removeprefix(prefixes[0]): state[name] for name in state if name.startswith(prefixes[0])}
    outer = next((first.removesuffix(name) for name in state if first.endswith(f".{name}")), "")
    return {f"{outer}{name}": value for name, value in state.items()}


def _refused(path: str, why: str) -> str:
    return (
        f"model.weights={path!r} {why}: loading it would run code of whoever made it. Save the state dict as "
        "safetensors "
        "(safetensors.torch.save_file(model.state_dict(), ...)), or give --trust on the command line if the file is "
        "your own"
    )


def _state(path: str, trust: bool, archive: bool) -> Any:
    if path.endswith(".safetensors"):
        return load_file(path)
    if archive:
        return torch.jit.load(path, map_location="cpu").state_dict()
    state = torch.load(path, map_location="cpu", weights_only=not trust)
    return state.state_dict() if isinstance(state, nn.Module) else state


def _code(path: str) -> str:
    """The reason why an archive is TorchScript, or an empty text; other pickled content is found during reading."""
    if path.endswith(".safetensors"):
        return ""
    parts = {part.filename.split("/", 1)[-1] for part in _parts(path)}
    return (
        "is a TorchScript archive"
        if "constants.pkl" in parts or any(part.startswith("code/") for part in parts)
        else ""
    )


def _swells(path: str) -> str:
    """The reason why a few bytes of a file could become many in memory, or an empty text."""
    size = Path(path).stat().st_size
    if path.endswith(".safetensors") or size == 0:
        return ""
    parts = _parts(path)
    if any(part.compress_type for part in parts) or sum(part.file_size for part in parts) > size:
        return "has compressed or overlapping parts, which torch.save never writes"
    # of all that torch builds without trust, only this takes memory by a number in the file
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return "makes a bytearray" if text.find(b"\nbytearray\n") >= 0 else ""


def _parts(path: str) -> list[zipfile.ZipInfo]:
    """The parts of an archive; none for another file, and for a broken archive, which torch refuses."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.infolist()
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError):
        return []
