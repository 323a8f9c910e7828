"""What a configuration may name: `_target_`s with an allowed prefix, and settings of Hydra that run nothing.

Configurations are data: files of others, sweeps, copied command lines. What may run is decided in Python or on the
command line.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from igc_dist.records import ConfigError

ALLOWED = (
    "igc_dist.model.outputs.", "igc_dist.model.families.", "igc_dist.attributors.", "igc_dist.baselines.",
    "igc_dist.data.huggingface.", "igc_dist.data.images.", "igc_dist.data.stored.", "igc_dist.data.tar.",
    "igc_dist.demo.", "igc_dist.features.", "igc_dist.metrics.", "igc_dist.paths.", "igc_dist.store.groups.",
)  # fmt: skip
"""Prefixes of `_target_`s that a configuration may name. Only the command line can add more (--allow-target)."""

BARRED = (
    "igc_dist.demo.train.", "igc_dist.demo.train_network.", "igc_dist.demo.train_scene_nets.",
    "igc_dist.model.families.library.",
)  # fmt: skip
"""Not allowed in spite of their prefix: training the demos would overwrite the weights in the package, and what imports
a library of models by name could import any package."""

TRUST = "--trust"
"""A flag of the command line that allows weight files that contain code."""

HYDRA = (
    "hydra._internal.core_plugins.basic_launcher.",
    "hydra._internal.core_plugins.basic_sweeper.",
    "hydra_plugins.hydra_submitit_launcher.",
)
"""Launchers and sweepers that Hydra itself builds. What other plug-ins run, nobody here has looked at."""

COMMANDS = frozenset(("setup", "python", "additional_parameters", "srun_args", "custom_search_space"))
"""Settings of plug-ins that are shell commands, or dotted names that are called."""

HANDLERS = frozenset(
    (
        "logging.StreamHandler",
        "logging.FileHandler",
        "logging.NullHandler",
        "logging.Formatter",
        "colorlog.ColoredFormatter",
    )
)
"""Classes allowed in a logging configuration. Hydra would build any other class with any arguments."""


FILES = frozenset(("run.dir", "sweep.dir", "sweep.subdir", "job.name", "verbose", "searchpath"))
"""What a file may set under ``hydra:``, and `NAMING`. All else of Hydra is for the command line."""

NAMING = "job.config.override_dirname."
"""How Hydra names the folder of a job of a sweep."""


def check_targets(node: Any, allowed: Sequence[str]) -> None:
    """Raise `ConfigError` for a `_target_` anywhere in `node` that is under none of the prefixes.

    `node` is resolved and made of plain containers. A remaining interpolation is also an error: Hydra resolves once
    more, and `${oc.create:...}` would then give a node that was not checked.
    """
    for keys, value in _leaves(node):
        if (isinstance(value, str) and "${" in value) or any("${" in str(key) for key in keys):
            raise ConfigError(
                f"{'.'.join(map(str, keys))}={value!r} is not allowed: an interpolation is resolved once, do not "
                "escape it"
            )
        if keys[-1] == "_target_" and not is_allowed(value, allowed):
            raise ConfigError(_refused(value, allowed))


def _refused(target: Any, allowed: Sequence[str]) -> str:
    home = str(target).rsplit(".", 1)[0]
    if isinstance(target, str) and _under(target, allowed):  # a package shows it that does not define it
        home = str(getattr(_located(target), "__module__", home))
    return f"_target_ {target!r} is not allowed: the command line may allow it with --allow-target {home}"


def is_allowed(target: Any, allowed: Sequence[str]) -> bool:
    """Whether a target is under a prefix and is defined there.

    A module under a prefix may import other things into its name space; these are not allowed. A target that does not
    exist is not allowed, nor one with `__` in its name: `f.__globals__` gives access to everything.
    """
    if (
        not isinstance(target, str)
        or not _under(target, allowed)
        or any(part.startswith("__") for part in target.split("."))
    ):
        return False
    found = _located(target)
    home = getattr(found, "__module__", None)
    return callable(found) and isinstance(home, str) and _under(f"{home}.", allowed) and not _under(f"{home}.", BARRED)


def _under(name: str, prefixes: Sequence[str]) -> bool:
    return any(name.startswith(prefix.rstrip("*").rstrip(".") + ".") for prefix in prefixes)


def _located(target: str) -> Any:
    """The object of a dotted name, found as Hydra finds it.

    Attributes come first, so `igc_dist.baselines.base.np.load` is numpy's. Raises `ConfigError` if the name does not
    exist.
    """
    first, *rest = target.split(".")
    try:
        found: Any = importlib.import_module(first)
        for n, name in enumerate(rest, 1):
            # a module loaded by Hydra's plug-in search is not an attribute of its package
            found = (
                getattr(found, name) if hasattr(found, name) else importlib.import_module(".".join((first, *rest[:n])))
            )
    except Exception as error:
        # the command does not import from the current folder, as python -m does
        there = isinstance(error, ModuleNotFoundError) and error.name == first
        hint = ", and the current folder is not searched: give its folder with --path DIR" if there else ""
        why = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise ConfigError(f"_target_ {target!r} is not found: {why}{hint}") from error
    return found


def check_file(name: str, node: Any) -> None:
    """Raise `ConfigError` if the file `name` says to Hydra what it may not. `node`: what it has as ``hydra``."""
    for keys, value in _leaves(node):
        dotted = ".".join(map(str, keys))
        nothing = value is None and dotted in ("output_subdir", "")
        if not (dotted in FILES or dotted.startswith(NAMING) or nothing):
            raise ConfigError(
                f"{name} sets hydra{dotted and '.'}{dotted}, which is not allowed in a file: give it on the command "
                f"line. Files may set hydra.{{{','.join(sorted((*FILES, NAMING + '*')))}}}"
            )


def check_search(path: Any) -> None:
    """Raise `ConfigError` for an entry of Hydra's search path that is no folder: Hydra would import a package."""
    if "://" in str(path) and not str(path).startswith("file://"):
        raise ConfigError(f"hydra.searchpath has {path!r}, which is not allowed: give a folder")


def check_word(word: str) -> None:
    """Raise `ConfigError` for an override that looks like a flag."""
    if word.startswith("-"):
        raise ConfigError(f"{word} is not allowed among overrides: they are key=value")


def check_column(word: str) -> None:
    """Raise `ConfigError` for a word of a gallery that a file may not say."""
    if re.match(r"[+~]*hydra\b", word):
        raise ConfigError(f"gallery has {word}, which is not allowed: settings of Hydra are for the command line")


def check_public(setting: str, name: Any) -> None:
    """Raise `ConfigError` if the name of an attribute, or one of several, has ``__``.

    A walk over such names reaches everything.
    """
    if any(isinstance(one, str) and "__" in one for one in (name if isinstance(name, list) else [name])):
        raise ConfigError(f"{setting}={name!r} is not allowed: give a name without __")


def check_hydra(node: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Raise `ConfigError` for anything in Hydra's own node that Hydra would run before any code of this package.

    That is plug-ins and callbacks, classes and files of logging, environment variables (LD_PRELOAD, PYTHONPATH), and
    commands of launchers. Hydra checks these only against its list of blocked names, which permits `torch.hub.load`.
    """
    for keys, value in _leaves(node):
        if keys[-1] == "_target_" and not is_allowed(value, (*HYDRA, *allowed)):
            raise ConfigError(_refused(value, (*HYDRA, *allowed)))
        named = f"hydra.{'.'.join(map(str, keys))}={value!r}"
        if keys[0] in ("job_logging", "hydra_logging"):
            if keys[-1] in ("()", "class") and value not in HANDLERS:
                raise ConfigError(f"{named} is not allowed: classes of logging are {', '.join(sorted(HANDLERS))}")
            if (
                isinstance(value, str)
                and value.startswith(("ext://", "cfg://"))
                and value not in ("ext://sys.stdout", "ext://sys.stderr")
            ):
                raise ConfigError(f"{named} is not allowed: give ext://sys.stdout or ext://sys.stderr")
            if isinstance(value, str) and "${" in value and keys[-1] != "filename":
                raise ConfigError(f"{named} is not allowed: give the value itself, not an interpolation")
            if keys[-1] == "style" and value != "%":  # another one reads attributes of attributes
                raise ConfigError(f"{named} is not allowed: the style of a format is %")
            if keys[-1] in ("mode", "filemode") and value != "a":
                raise ConfigError(f"{named} is not allowed: a log is added to, give a")
        if keys[:2] == ("job", "env_set"):
            raise ConfigError(
                f"{named.split('=')[0]} is not allowed: set the variable in the shell that starts igc-dist"
            )
        if (
            keys[0] in ("launcher", "sweeper")
            and COMMANDS & {*keys}
            and value is not None
            and not _under("hydra_plugins.", allowed)
        ):
            raise ConfigError(
                f"{named} is not allowed: it runs a command, which --allow-target hydra_plugins on the command line "
                "allows"
            )


def _leaves(node: Any, keys: tuple[Any, ...] = ("",)) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Pairs of keys from the top and a value: every leaf, and each `_target_` or class whatever its type."""
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
