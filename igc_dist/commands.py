"""Commands on stores: `igc-dist verify | report | compare | info | merge | compact`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from igc_dist import compact, lock, merge, reading, report, watch
from igc_dist import verify as looked
from igc_dist.address import beside, objects_at
from igc_dist.records import ConfigError


def verify(arguments: Sequence[str], flags: Collection[str] = ()) -> int:
    """Every damage of a store, a line each; 2 if there is any."""
    path = arguments[0]
    verdict = looked.verify(path, quick="--quick" in flags)
    for line in verdict.lines:
        print(line)
    if verdict.lines and (filling := lock.holder(objects_at(path))) is not None:
        print(f"{path}: running, {filling} is filling it; what is missing above may be still to come: verify it again after its end")
    elif verdict.wrong:
        print(f"{path}: no file changed since it was sealed, but {len(verdict.lines)} things do not follow from its shards: do not use it")
    elif verdict.lines:
        print(f"{path}: {len(verdict.lines)} damages; run the same command again to repair them")
    elif "--quick" in flags or verdict.left_out:
        print(f"{path}: complete and undamaged; results were not made again{verdict.left_out and f': {verdict.left_out}'}")
    else:
        print(f"{path}: complete and undamaged; its results are those of its shards, which cover every sample once")
    return 2 if verdict.lines else 0


def info(arguments: Sequence[str], flags: Collection[str] = ()) -> int:
    """What a store holds, and who fills it; with --watch, how its run goes on, until it ends."""
    for flag in flags:
        return watch.follow(arguments[0], _seconds(flag))
    filling = lock.holder(objects_at(arguments[0]))
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


def write_report(arguments: Sequence[str], flags: Collection[str] = ()) -> int:
    """The page of a store, beside it or in a folder of one's own."""
    path = arguments[0]
    print(report.write_report(reading.open(path), Path(arguments[1]) if len(arguments) > 1 else beside(path)))
    return 0


def compare(arguments: Sequence[str], flags: Collection[str] = ()) -> int:
    """What differs between stores."""
    Console().print(report.compare({argument: reading.open(argument) for argument in arguments}))
    return 0


def merge_stores(arguments: Sequence[str], flags: Collection[str] = ()) -> int:
    """Shards of one run from several stores, or runs over disjoint data, in one store."""
    *paths, out = arguments
    merged = merge.merge(paths, out, overlap="--overlap" in flags)
    if merged.complete:
        print(f"{out}: complete, of the data of {len(paths)} stores")
    else:
        print(f"{out}: {merged.done} of {merged.total} shards; run the same command with store.path={out} to finish")
    return 0


def make_compact(arguments: Sequence[str], flags: Collection[str] = ()) -> int:
    """A complete store in few files."""
    path, out = arguments
    before, after = compact.compact(path, out)
    print(f"{out}: complete, {after:,} files instead of {before:,}; {path} may go")
    return 0


class Command(NamedTuple):
    """A command: what it does, how many arguments it takes, and which flags, of which some may have a value (--flag=value)."""

    do: Callable[[Sequence[str], Collection[str]], int]
    least: int
    most: int
    flags: tuple[str, ...] = ()


COMMANDS = {
    "verify": Command(verify, 1, 1, ("--quick",)),
    "report": Command(write_report, 1, 2),
    "compare": Command(compare, 2, 99),
    "info": Command(info, 1, 1, ("--watch",)),
    "merge": Command(merge_stores, 3, 99, ("--overlap",)),
    "compact": Command(make_compact, 2, 2),
}


def call(name: str, arguments: Sequence[str]) -> int:
    """Do a command; returns its exit code. Raises `ConfigError` for the wrong number of arguments, or a flag that it has not."""
    command = COMMANDS[name]
    flags = {argument for argument in arguments if argument.startswith("-")}
    paths = [argument for argument in arguments if argument not in flags]
    if not command.least <= len(paths) <= command.most or not {flag.partition("=")[0] for flag in flags} <= {*command.flags}:
        raise ConfigError(f"igc-dist {name} takes {'a store' if command.most == 1 else 'stores'}, got {[*arguments]}: see igc-dist --help")
    return command.do(paths, flags)
