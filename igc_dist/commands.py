"""Commands on stores: `igc-dist verify | report | compare | info`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from igc_dist import lock, objects, reading, report, store, watch
from igc_dist.records import ConfigError


def verify(arguments: Sequence[str]) -> int:
    """Every damage of a store, a line each; 2 if there is any."""
    path = arguments[0]
    damage = store.Store.existing(path).verify()
    for line in damage:
        print(line)
    if damage and (filling := lock.holder(objects.Objects(path))) is not None:
        print(f"{path}: running, {filling} is filling it; what is missing above may be still to come: verify it again after its end")
    else:
        print(f"{path}: {f'{len(damage)} damages; run the same command again to repair them' if damage else 'complete and undamaged'}")
    return 2 if damage else 0


def info(arguments: Sequence[str]) -> int:
    """What a store holds, and who fills it; with --watch, how its run goes on, until it ends."""
    options = [argument for argument in arguments if argument.startswith("-")]
    if options:
        path = next(argument for argument in arguments if not argument.startswith("-"))
        return watch.follow(path, _seconds(options[-1]))
    filling = lock.holder(objects.Objects(arguments[0]))
    Console().print(report.info(reading.open(arguments[0], allow_partial=True), None if filling is None else str(filling)))
    return 0


def _seconds(option: str) -> float | None:
    """Of --watch=SECONDS; None for --watch. Raises `ConfigError`."""
    _, given, text = option.partition("=")
    try:
        seconds = float(text) if given else None
    except ValueError:
        seconds = 0.0
    if seconds is not None and not 0 < seconds < 86400:
        raise ConfigError(f"{option}: give seconds between two looks, above 0 and below a day, or --watch alone")
    return seconds


def write_report(arguments: Sequence[str]) -> int:
    """The page of a store, beside it or in a folder of one's own."""
    path = Path(arguments[0])
    beside = path.parent if path.name == "store.zarr" else path.with_name(f"{path.name}.run")
    print(report.write_report(reading.open(path), Path(arguments[1]) if len(arguments) > 1 else beside))
    return 0


def compare(arguments: Sequence[str]) -> int:
    """What differs between stores."""
    Console().print(report.compare({argument: reading.open(argument) for argument in arguments}))
    return 0


class Command(NamedTuple):
    """A command: what it does, how many stores it takes, and its options, which may have a value (--option=value)."""

    do: Callable[[Sequence[str]], int]
    least: int
    most: int
    options: tuple[str, ...] = ()


COMMANDS = {
    "verify": Command(verify, 1, 1),
    "report": Command(write_report, 1, 2),
    "compare": Command(compare, 2, 99),
    "info": Command(info, 1, 1, ("--watch",)),
}


def call(name: str, arguments: Sequence[str]) -> int:
    """Do a command; returns its exit code. Raises `ConfigError` for the wrong number of arguments, or an option it does not have."""
    command = COMMANDS[name]
    options = [argument for argument in arguments if argument.startswith("-")]
    unknown = [option for option in options if option.partition("=")[0] not in command.options]
    if unknown or not command.least <= len(arguments) - len(options) <= command.most:
        raise ConfigError(f"igc-dist {name} takes {'a store' if command.most == 1 else 'stores'}, got {[*arguments]}: see igc-dist --help")
    return command.do(arguments)
