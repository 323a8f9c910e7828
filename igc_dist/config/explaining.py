"""What Hydra refuses on a command line, in our words: what was given, the nearest name, and the way out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf

from igc_dist.config.schemas import folder
from igc_dist.records import near

_CHOICE = re.compile(r"Could not find '(.+)/([^/']+)' Available options in '[^']+': (.*?)(?: Config search|$)")


def explained(error: Exception) -> str:
    """The message of an error of Hydra or OmegaConf, on one line."""
    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    if isinstance(error, OverrideParseException):
        return _unread(error.override)
    if found := re.search(r"Could not override '([^']+)'", text):
        return _unknown(found[1], free="is not in struct" in text)
    if found := _CHOICE.search(text):
        group, choice, known = found[1], found[2], found[3].split()
        return (
            f"{group}={choice} is unknown{near(choice, known)}: choose one of {', '.join(known)}, or give the folder "
            "of your own groups with --config-dir DIR"
        )
    return text.partition(" full_key:")[0]


def _unread(override: str) -> str:
    key, given, value = override.partition("=")
    if not given:
        return f"{override!r} is neither a command nor a setting: give key=value, see igc-dist --help"
    quote = '"' if "'" in value else "'"
    return (
        f"{override!r} cannot be read: a value with commas, brackets or quotes needs quotes of its own, "
        f"{key}={quote}...{quote}, besides those for the shell"
    )


def _unknown(key: str, free: bool) -> str:
    """A key that does not exist. `free`: its node takes any key."""
    home, _, name = key.rpartition(".")
    known = leaves()
    if free:
        beside = [leaf for leaf in known if leaf.startswith(f"{home}.") and not leaf.endswith("._target_")]
        return f"{home} has no {name!r} yet{near(key, beside)}: add it with +{key}=..."
    own = f"{home}.build.{name}"
    hint = f": an argument of your own class or function is +{own}=..." if f"{home}.build._target_" in known else ""
    return f"unknown setting {key!r}{near(key, known)}{hint}"


def leaves() -> list[str]:
    """Every dotted key of the default configuration."""

    def walk(node: Any, prefix: str) -> list[str]:
        if not isinstance(node, Mapping):
            return [prefix]
        return [key for name in node for key in walk(node[name], f"{prefix}.{name}" if prefix else str(name))]

    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(folder()), version_base="1.3"):
        return walk(OmegaConf.to_container(hydra.compose("config")), "")
