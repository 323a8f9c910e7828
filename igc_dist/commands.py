"""Commands on stores: `igc-dist verify | report | compare | info`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from igc_dist import lock, reading, report, store
from igc_dist.address import beside, objects_at
from igc_dist.records import ConfigError


def verify(arguments: Sequence[str]) -> int:
    """Every damage of a store, a line each; 2 if there is any."""
    path = arguments[0]
    damage = store.Store.existing(path).verify()
    for line in damage:
        print(line)
    if damage and (filling := lock.holder(objects_at(path))) is not None:
        print(f"{path}: running, {filling} is filling it; what is missing above may be still to come: verify it again after its end")
    else:
        print(f"{path}: {f'{len(damage)} damages; run the same command again to repair them' if damage else 'complete and undamaged'}")
    return 2 if damage else 0


def info(arguments: Sequence[str]) -> int:
    """What a store holds, and who fills it."""
    filling = lock.holder(objects_at(arguments[0]))
    Console().print(report.info(reading.open(arguments[0], allow_partial=True), None if filling is None else str(filling)))
    return 0


def write_report(arguments: Sequence[str]) -> int:
    """The page of a store, beside it or in a folder of one's own."""
    path = arguments[0]
    print(report.write_report(reading.open(path), Path(arguments[1]) if len(arguments) > 1 else beside(path)))
    return 0


def compare(arguments: Sequence[str]) -> int:
    """What differs between stores."""
    Console().print(report.compare({argument: reading.open(argument) for argument in arguments}))
    return 0


class Command(NamedTuple):
    """A command: what it does, and how many arguments it takes."""

    do: Callable[[Sequence[str]], int]
    least: int
    most: int


COMMANDS = {
    "verify": Command(verify, 1, 1),
    "report": Command(write_report, 1, 2),
    "compare": Command(compare, 2, 99),
    "info": Command(info, 1, 1),
}


def call(name: str, arguments: Sequence[str]) -> int:
    """Do a command; returns its exit code. Raises `ConfigError` for the wrong number of arguments."""
    command = COMMANDS[name]
    if not command.least <= len(arguments) <= command.most or any(argument.startswith("-") for argument in arguments):
        raise ConfigError(f"igc-dist {name} takes {'a store' if command.most == 1 else 'stores'}, got {[*arguments]}: see igc-dist --help")
    return command.do(arguments)
