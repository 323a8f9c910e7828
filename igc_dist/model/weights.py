"""Weights of a model from a file: only numbers, no code, unless the command line trusts the file."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from igc_dist.records import ModelError


def load_weights(module: nn.Module, path: str, trust: bool = False) -> None:
    """Load weights into a module: safetensors, or a state dict read with `weights_only=True`.

    `trust` is for the user's own files: pickled objects, whose code runs on loading, and TorchScript archives. It is
    given on the command line only (--trust), never in a file. Raises `ModelError`.
    """
    path = os.path.expanduser(path)
    if not Path(path).is_file():
        raise ModelError(f"model.weights={path!r}: there is no such file")
    if (why := _code(path)) and not trust:
        raise ModelError(_refused(path, why))
    try:
        module.load_state_dict(_state(path, trust, bool(why)))
    except pickle.UnpicklingError as error:
        raise ModelError(
            _refused(path, f"is a pickle of objects, or no file of weights ({str(error).splitlines()[0][:200]})")
        ) from error
    except Exception as error:
        raise ModelError(f"model.weights={path!r} do not load into {type(module).__name__}: {error}") from error


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
    return state.state_dict() if isinstance(state, nn.Module) else state.get("state_dict", state)


def _code(path: str) -> str:
    """The reason why an archive is TorchScript, or an empty text; other pickled content is found during reading."""
    if path.endswith(".safetensors") or not zipfile.is_zipfile(path):
        return ""
    with zipfile.ZipFile(path) as file:
        parts = {name.split("/", 1)[-1] for name in file.namelist()}
    return (
        "is a TorchScript archive"
        if "constants.pkl" in parts or any(part.startswith("code/") for part in parts)
        else ""
    )
