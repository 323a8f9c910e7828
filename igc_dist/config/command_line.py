"""From a command line to configurations: Hydra's composition and sweeps, and errors that name the nearest setting."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra._internal import hydra as internal
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from igc_dist.config import flags
from igc_dist.config.discreet import discreet, learn
from igc_dist.config.explaining import explained
from igc_dist.config.loader import SEARCH, Checked
from igc_dist.config.permitted import check_column
from igc_dist.config.schemas import folder
from igc_dist.config.sweeping import named
from igc_dist.records import ConfigError


def compose_and_call(task: Callable[[Any], None], arguments: Sequence[str], allow: Sequence[str] = ()) -> None:
    """Compose the configuration from the command line and call `task` with it, once or per job of a sweep.

    Raises `ConfigError` with the nearest key or choice for an override that does not fit, and for anything that Hydra
    may not run.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints its errors and exits with 1
    tasks: list[Any] = []
    made: list[Path] = []

    def told(cfg: Any) -> None:
        learn(cfg)
        tasks.append(cfg)
        task(cfg)
        tasks.clear()

    chosen, overrides = flags.split(arguments)
    before, sys.argv = sys.argv, ["igc-dist", *named([*chosen, *map(_in_full, _chained(overrides))])]
    loader = internal.ConfigLoaderImpl
    internal.ConfigLoaderImpl = partial(Checked, allow=allow, made=made)  # type: ignore[misc, assignment]
    try:
        with discreet():
            hydra.main(config_path=str(folder()), config_name="config", version_base="1.3")(told)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explained(error)) from error
    except Exception as error:
        if tasks or isinstance(error, ConfigError):
            raise
        # some inputs fail in Hydra's own assertions: `hydra.verbose=1`, `+=x`, a key below null
        if isinstance(error, OSError):
            raise ConfigError(
                f"{error.filename}, which is or leads to the folder of the run, cannot be written ({error.strerror}): "
                "give another hydra.run.dir, or run from another folder"
            ) from error
        said, way = f"{type(error).__name__}: {error}".rstrip(": ").splitlines()[0], "see igc-dist --help"
        if any(one.lstrip("+").startswith("reduce.") for one in arguments):  # the one group whose default is null
            said = "reduce is none, and nothing can be set in it"
            way = "choose one first, reduce=patches reduce.size=4; yours is reduce=total reduce._target_=mypkg.Name"
        raise ConfigError(f"the command line {[*arguments]} composes to no configuration ({said}): {way}") from error
    except SystemExit as leaving:
        if leaving.code not in (0, None):
            raise ConfigError("the command line does not parse: see igc-dist --help") from leaving
    finally:
        for empty in made:  # what nobody has filled
            with suppress(OSError):
                empty.rmdir()
        sys.argv = before
        internal.ConfigLoaderImpl = loader  # type: ignore[misc]


def _in_full(word: str) -> str:
    """A word that is short for a setting: ``fabric.rates=h200`` names a card, ``target=top:5`` outputs of a sample.

    Filters have brackets, commas and signs that Hydra would read: they are quoted, each of a sweep.
    """
    name, given, value = word.partition("=")
    if name == "filter" and value not in ("", "null") and not {"'", '"', "$"} & {*value}:
        return f"filter={','.join(map(_in_quotes, re.split(r',(?![^(]*[)])', value)))}"
    if name == "target" and ":" in value:
        return f"target.each={value}"
    return f"{name}.card={value}" if name == "fabric.rates" and given and not value.startswith("{") else word


def _chained(words: Sequence[str]) -> list[str]:
    """``reduce=[channels,patches:16]`` names the parts of a chain; the group takes one choice."""
    found: list[str] = []
    for word in words:
        name, given, value = word.partition("=")
        if name == "reduce" and given and value.startswith("[") and value.endswith("]"):
            found += ["reduce=chain", f"reduce.parts={value}"]
        else:
            found.append(word)
    return found


def hydra_job() -> tuple[Path, list[str]]:
    """The job's folder and its overrides. Works only inside a task."""
    found = HydraConfig.get()
    return Path(found.runtime.output_dir), list(found.overrides.task)


def in_a_sweep() -> bool:
    """Whether the job is one of a sweep. Works only inside a task."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def sweep_folder() -> Path:
    """The folder of the sweep that the job is one of. Works only inside a task."""
    return Path(HydraConfig.get().sweep.dir)


def compose_again(overrides: Sequence[str], column: Sequence[str]) -> Any:
    """The configuration with the words of a gallery's `column` more, inside a task.

    Raises `ConfigError` for a word that does not fit, or that a file may not say.
    """
    for word in column:
        check_column(word)
    try:
        return hydra.compose(HydraConfig.get().job.config_name, [*overrides, *column])
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
    return QuotedString(text, Quote.single).with_quotes()


def for_ranks(arguments: Sequence[str]) -> list[str]:
    """The words that compose this job again, from those of the command line; inside a task."""
    said, _ = flags.split(arguments)
    kept = [flag for flag in said if flag.startswith(("--config-dir=", "--config-name=", "--path="))]
    found = HydraConfig.get().overrides
    return [*kept, *(word for word in found.hydra if word.startswith(f"{SEARCH}=")), *found.task]
