"""Libraries of models: how they are imported, and how a name among theirs is chosen."""

from __future__ import annotations

import fnmatch
import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from igc_dist.records import ConfigError, near_names

FETCHING = ("pretrained", "checkpoint", "cache", "weights", "url", "file", "hf_hub", "custom_load", "force")
"""Beginnings of options with which libraries read or fetch files; weights come from `model.weights` alone."""


def imported(package: str, extra: str) -> Any:
    """A library that is an extra. Raises `ConfigError` if it does not import, with the way out."""
    try:
        return importlib.import_module(package)
    except Exception as error:  # a torchvision of another build of torch raises RuntimeError
        said = str(error).strip().splitlines()
        raise ConfigError(
            f"{package} does not import ({type(error).__name__}: {said[0] if said else ''}): install it with "
            f"pip install 'igc-dist[{extra}]'. timm and torchvision need a torchvision of the same build as torch "
            "(CPU or CUDA); otherwise give the module itself (model=module)"
        ) from error


def chosen(name: str | None, known: Sequence[str], family: str) -> str:
    """The name, if it is known. Raises `ConfigError` with the near ones."""
    if name in known:
        return str(name)
    near = near_names(str(name), known)
    hint = f": near are {', '.join(near)}" if near else ""
    raise ConfigError(
        f"model.name={name!r} is no model of {family}{hint}. `igc-dist models {family} 'PATTERN*'` lists its "
        f"{len(known):,} names"
    )


def matching(names: Sequence[str], pattern: str) -> list[str]:
    """The names that a pattern with * and ? matches; a pattern without them matches inside of names."""
    wild = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    return sorted(name for name in names if fnmatch.fnmatchcase(name.lower(), wild.lower()))


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options for a library's constructor. Raises `ConfigError` for one with which it would read or fetch a file."""
    for name in options:
        if name.startswith(FETCHING):
            raise ConfigError(f"the option {name} is not taken: weights are read from model.weights, never fetched")
    return dict(options)


def distinct(classes: Sequence[str]) -> list[str]:
    """Names that occur twice ("crane", "maillot" of ImageNet) with their numbers."""
    often = Counter(classes)
    return [f"{name} {k}" if often[name] > 1 else name for k, name in enumerate(classes)]
