"""What a configuration may name: `_target_`s under a list of prefixes, and settings of Hydra that run nothing.

Configurations are data: files of others, sweeps, copied command lines. What may run is said in Python, or on the command line.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from igc_dist.records import ConfigError

ALLOWED = (
    "igc_dist.adapters.", "igc_dist.attributors.", "igc_dist.baselines.", "igc_dist.demo.", "igc_dist.features.", "igc_dist.paths.",
)  # fmt: skip
"""Prefixes of `_target_`s that a configuration may name. More are given on the command line only (--allow-target), never in a file."""

BARRED = ("igc_dist.demo.train.",)
"""Under a prefix, but with effects: the training of the demo writes the weights of the package anew."""

TRUST = "--trust"
"""Among what the command line allows: files of weights that hold code."""

HYDRA = ("hydra._internal.core_plugins.basic_launcher.", "hydra._internal.core_plugins.basic_sweeper.", "hydra_plugins.")
"""Launchers and sweepers that Hydra itself builds."""

COMMANDS = frozenset(("setup", "python", "additional_parameters", "srun_args", "custom_search_space"))
"""Settings of plug-ins that are commands of a shell, or dotted names that are called."""

HANDLERS = frozenset(
    ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter", "colorlog.ColoredFormatter")
)
"""Classes of a logging configuration; any other one is built with any arguments."""


def check_targets(node: Any, allowed: Sequence[str]) -> None:
    """Raise `ConfigError` for a `_target_` anywhere in `node` (resolved, of plain containers) that is under none of the prefixes, and for
    an interpolation that is left: Hydra resolves once more, and `${oc.create:...}` then is a node that was not looked at."""
    for keys, value in _leaves(node):
        if (isinstance(value, str) and "${" in value) or any("${" in str(key) for key in keys):
            raise ConfigError(f"{'.'.join(map(str, keys))}={value!r} is not allowed: an interpolation is resolved once, do not escape it")
        if keys[-1] == "_target_" and not is_allowed(value, allowed):
            raise ConfigError(_refused(value))


def _refused(target: Any) -> str:
    return f"_target_ {target!r} is not allowed: the command line may allow it with --allow-target {str(target).rsplit('.', 1)[0]}.*"


def is_allowed(target: Any, allowed: Sequence[str]) -> bool:
    """Whether a target is under a prefix, and is defined there: a module under a prefix may import something else into its name space.

    What is not there is not allowed either, nor what has `__` in its name: `f.__globals__` leads everywhere.
    """
    if not isinstance(target, str) or not _under(target, allowed) or any(part.startswith("__") for part in target.split(".")):
        return False
    found = _located(target)
    home = getattr(found, "__module__", None)
    return callable(found) and isinstance(home, str) and _under(f"{home}.", allowed) and not _under(f"{home}.", BARRED)


def _under(name: str, prefixes: Sequence[str]) -> bool:
    return any(name.startswith(prefix.rstrip("*").rstrip(".") + ".") for prefix in prefixes)


def _located(target: str) -> Any:
    """What a dotted name means, found as Hydra finds it: attributes first, so `igc_dist.baselines.np.load` is numpy's.

    Raises `ConfigError` for one that is not there.
    """
    first, *rest = target.split(".")
    try:
        found: Any = importlib.import_module(first)
        for n, name in enumerate(rest, 1):
            # a module that Hydra's search for plug-ins loaded is no attribute of its package
            found = getattr(found, name) if hasattr(found, name) else importlib.import_module(".".join((first, *rest[:n])))
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"_target_ {target!r} is not found: {error}") from error
    return found


def check_hydra(node: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Raise `ConfigError` for what Hydra would run of its own node before any of our code: plug-ins and callbacks, classes and files of
    logging, variables of the environment (LD_PRELOAD, PYTHONPATH), commands of launchers.

    Hydra builds these with its list of blocked names only, which lets `torch.hub.load` run.
    """
    for keys, value in _leaves(node):
        if keys[-1] == "_target_" and not is_allowed(value, (*HYDRA, *allowed)):
            raise ConfigError(_refused(value))
        named = f"hydra.{'.'.join(map(str, keys))}={value!r}"
        if keys[0] in ("job_logging", "hydra_logging"):
            if keys[-1] in ("()", "class") and value not in HANDLERS:
                raise ConfigError(f"{named} is not allowed: classes of logging are {', '.join(sorted(HANDLERS))}")
            if isinstance(value, str) and value.startswith(("ext://", "cfg://")) and value not in ("ext://sys.stdout", "ext://sys.stderr"):
                raise ConfigError(f"{named} is not allowed: give ext://sys.stdout or ext://sys.stderr")
            if isinstance(value, str) and "${" in value and keys[-1] != "filename":
                raise ConfigError(f"{named} is not allowed: give the value itself, not an interpolation")
            if keys[-1] in ("mode", "filemode") and value != "a":
                raise ConfigError(f"{named} is not allowed: a log is added to, give a")
        if keys[:2] == ("job", "env_set"):
            raise ConfigError(f"{named.split('=')[0]} is not allowed: set the variable in the shell that starts igc-dist")
        if keys[0] in ("launcher", "sweeper") and COMMANDS & {*keys} and value is not None and not _under("hydra_plugins.", allowed):
            raise ConfigError(f"{named} is not allowed: it runs a command, which --allow-target hydra_plugins.* on the command line allows")


def _leaves(node: Any, keys: tuple[Any, ...] = ("",)) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Keys from the top, and values: those below mappings and lists, and a `_target_` or class whatever it is."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            below = (*(keys if keys != ("",) else ()), key)
            if key in ("_target_", "()", "class") and isinstance(value, Mapping | list | tuple):
                yield below, value
            yield from _leaves(value, below)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _leaves(value, keys)
    else:
        yield keys, node
