"""The flags of Hydra that a command line may have. Hydra has others, which run code: one unpickles a file."""

from __future__ import annotations

from collections.abc import Sequence

from igc_dist.records import ConfigError

SHORT = {"-cd": "--config-dir", "-cn": "--config-name", "-c": "--cfg", "-p": "--package", "-m": "--multirun"}
VALUED = ("--config-dir", "--config-name", "--cfg", "--package", "--path")
BARE = ("--multirun", "--resolve", "--hydra-help")


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags of a command line, each one word by its long name, and its overrides.

    Raises `ConfigError` for any other flag: Hydra's parser would also take the beginning of a name.
    """
    flags: list[str] = []
    overrides: list[str] = []
    words = iter(arguments)
    for word in words:
        if not word.startswith("-"):
            overrides.append(word)
            continue
        name, given, value = word.partition("=")
        name = SHORT.get(name, name)
        if name in VALUED:
            found = value if given else next(words, None)
            if found is None:
                raise ConfigError(f"{name} needs a value: see igc-dist --help")
            flags.append(f"{name}={found}")
        elif name in BARE and not given:
            flags.append(name)
        else:
            known = sorted([*VALUED, *BARE, "--allow-target", "--trust", "--help", "--version"])
            raise ConfigError(f"{word} is not allowed: flags are {', '.join(known)}; see igc-dist --help")
    return flags, overrides
