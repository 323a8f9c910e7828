"""From a command line to configurations: Hydra's composition and sweeps, and errors that name the nearest setting."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import hydra
from hydra._internal import hydra as internal
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from igc_dist.config.discreet import check_folder, discreet, learn
from igc_dist.config.explaining import explained
from igc_dist.config.permitted import check_hydra
from igc_dist.config.schemas import folder
from igc_dist.config.sweeping import named
from igc_dist.records import ConfigError


class Checked(ConfigLoaderImpl):
    """Hydra's loader, which checks Hydra's own node before Hydra acts on it.

    Each job of a sweep is composed and checked again. This is a class of its own because launcher plug-ins hand it to
    other processes.
    """

    allow: tuple[str, ...] = ()

    def load_configuration(self, *args: Any, **keywords: Any) -> Any:
        cfg = super().load_configuration(*args, **keywords)
        learn(cfg)
        # not resolved, because some values are not known yet
        check_hydra(dict(OmegaConf.to_container(cfg.hydra, resolve=False)), self.allow)  # type: ignore[arg-type]
        _check_interpolations(cfg.hydra)
        check_folder(cfg, "hydra.sweep.dir" if keywords.get("run_mode") == RunMode.MULTIRUN else "hydra.run.dir")
        return cfg

    def load_sweep_config(self, *args: Any, **keywords: Any) -> Any:
        cfg = super().load_sweep_config(*args, **keywords)
        check_folder(cfg, "hydra.sweep.subdir")
        return cfg


def _check_interpolations(node: Any) -> None:
    """Raise `ConfigError` if a mapping or a list of Hydra's node is an interpolation: its result was not checked."""
    for key in range(len(node)) if OmegaConf.is_list(node) else node:
        if OmegaConf.is_missing(node, key):
            continue
        if OmegaConf.is_interpolation(node, key):
            raw = str(node._get_node(key)._value())
            try:
                whole = OmegaConf.is_config(node[key])
            except OmegaConfBaseException:
                whole = (
                    raw.count("${") > 1
                )  # not known yet: the job's number or folder is text, but a nested name may be anything
            if whole:
                raise ConfigError(f"hydra: {key}={raw} is not allowed: give the node itself, not an interpolation")
        elif OmegaConf.is_config(node[key]):
            _check_interpolations(node[key])


def compose_and_call(task: Callable[[Any], None], arguments: Sequence[str], allow: Sequence[str] = ()) -> None:
    """Compose the configuration from the command line and call `task` with it, once or per job of a sweep.

    Raises `ConfigError` with the nearest key or choice for an override that does not fit, and for anything that Hydra
    may not run.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints its errors and exits with 1
    tasks: list[Any] = []

    def told(cfg: Any) -> None:
        learn(cfg)
        tasks.append(cfg)
        task(cfg)
        tasks.clear()

    before, sys.argv = sys.argv, ["igc-dist", *named(arguments)]
    loader = internal.ConfigLoaderImpl
    internal.ConfigLoaderImpl, Checked.allow = Checked, tuple(allow)  # type: ignore[misc]
    try:
        with discreet():
            hydra.main(config_path=str(folder()), config_name="config", version_base="1.3")(told)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explained(error)) from error
    except Exception as error:
        if tasks or isinstance(error, ConfigError):
            raise
        # some inputs fail in Hydra's own assertions: `hydra.verbose=1`, `+=x`, a key below null
        said = f"{type(error).__name__}: {error}".rstrip(": ")
        raise ConfigError(
            f"the command line {[*arguments]} composes to no configuration ({said}): see igc-dist --help"
        ) from error
    except SystemExit as leaving:
        if leaving.code not in (0, None):
            raise ConfigError("the command line does not parse: see igc-dist --help") from leaving
    finally:
        sys.argv = before
        internal.ConfigLoaderImpl = loader  # type: ignore[misc]


def hydra_job() -> tuple[Path, list[str]]:
    """The job's folder and its overrides. Works only inside a task."""
    found = HydraConfig.get()
    return Path(found.runtime.output_dir), list(found.overrides.task)


def compose_again(overrides: Sequence[str]) -> Any:
    """The configuration of other overrides, inside a task. Raises `ConfigError` for an override that does not fit."""
    try:
        return hydra.compose("config", list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explained(error)) from error


def quoted(arguments: Sequence[str]) -> list[str]:
    """Arguments with ``~`` as in a shell, and with the words quoted that Hydra's grammar has no letters for.

    A shell replaces ``~`` at the start of a word only, and Hydra reads letters of ASCII only.
    """

    def word(found: re.Match[str]) -> str:
        text = os.path.expanduser(found[0])
        return found[0] if text == found[0] and text.isascii() else _in_quotes(text)

    def argument(text: str) -> str:
        name, given, value = text.partition("=")
        if text.startswith("-"):
            return f"{name}{given}{os.path.expanduser(value)}"
        return text if {"'", '"'} & {*value} else f"{name}{given}{_WORD.sub(word, value)}"

    return [argument(text) for text in arguments]


_WORD = re.compile(r"(?:\$\{[^{}]*\}|[^\s,\[\]{}()])(?:\$\{[^{}]*\}|[^,\[\]{}()])*")
"""A word in the value of an override: between commas and brackets, with its interpolations."""


def override(key: str, value: Any) -> str:
    """An override with its value quoted, because folders of sweeps contain "=" and ","."""
    return f"{key}={_in_quotes(str(value))}"


def _in_quotes(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def folder_flags(arguments: Sequence[str]) -> list[str]:
    """The folders that a command line names (--config-dir, --path, Hydra's search path), to pass on to ranks."""
    kept = [each for each in arguments if each.startswith(("hydra.searchpath=", "--config-dir=", "--path="))]
    for flag, value in pairwise(arguments):
        if flag in ("--config-dir", "-cd", "--path"):
            kept += [flag, value]
    return kept
