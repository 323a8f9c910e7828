"""The flags of a command line: ``--flag``, ``--option VALUE`` or ``--option=VALUE``. Others are refused.

Hydra has more of them, and some run code: one unpickles a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from igc_dist.records import ConfigError, near


class Flags(NamedTuple):
    """What a command line may have: flags without a value, with one, and ``--flag=VALUE`` that may lack it.

    `elsewhere`: flags that are taken before, for messages.
    """

    bare: tuple[str, ...] = ()
    valued: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()

    def __str__(self) -> str:
        names = [*self.bare, *self.free, *self.elsewhere, *(f"{name} VALUE" for name in self.valued)]
        return ", ".join(sorted(names)) or "none"


HYDRA = Flags(
    bare=("--multirun", "--resolve", "--hydra-help"),
    valued=("--config-dir", "--config-name", "--cfg", "--package", "--path"),
    elsewhere=("--allow-target", "--trust", "--help", "--version"),
)
"""The flags of Hydra that a command line may have, and ours beside them."""

SHORT = {"-cd": "--config-dir", "-cn": "--config-name", "-c": "--cfg", "-p": "--package", "-m": "--multirun"}


def taken(
    arguments: Sequence[str], flags: Flags, short: Mapping[str, str] | None = None
) -> tuple[list[tuple[str, str | None]], list[str]]:
    """The flags of a command line by their long names, with their values, and its other words.

    Raises `ConfigError` for any other flag, also for the beginning of one.
    """
    found: list[tuple[str, str | None]] = []
    others: list[str] = []
    words = iter(arguments)
    for word in words:
        if not word.startswith("-"):
            others.append(word)
            continue
        name, given, value = word.partition("=")
        name = (short or {}).get(name, name)
        if name in flags.valued:
            value = value if given else next(words, "")
            if not value:
                raise ConfigError(f"{name} needs a value: see igc-dist --help")
        elif name not in flags.free and (name not in flags.bare or given):
            hint = near(name, (*flags.bare, *flags.valued, *flags.free, *flags.elsewhere))
            raise ConfigError(f"{word} is not allowed{hint}: flags are {flags}; see igc-dist --help")
        found.append((name, value if given or name in flags.valued else None))
    return found, others


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags of a command line for Hydra, each one word by its long name, and its overrides."""
    found, overrides = taken(arguments, HYDRA, SHORT)
    return [name if value is None else f"{name}={value}" for name, value in found], overrides
