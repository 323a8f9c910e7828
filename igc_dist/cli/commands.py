"""Commands on stores: `igc-dist verify | report | compare | info | merge | compact`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

# wings are loaded when a name in them is first used: `info` needs no torch, `merge` does
from igc_dist import report, store, upkeep, watching
from igc_dist.cli.screen import say
from igc_dist.records import ConfigError


def verify(arguments: Sequence[str], flags: Collection[str] = ()) -> int:
    """Print a line for every damage of a store. Returns 2 if there is any."""
    path = arguments[0]
    verdict = upkeep.verify(path, quick="--quick" in flags)
    for line in verdict.lines:
        say(line)
    if verdict.lines and (filling := store.holder(store.objects_at(path))) is not None:
        say(
            f"{path}: running, {filling} is filling it; what is missing above may be still to come: verify it again "
            "after its end"
        )
    elif verdict.wrong:
        say(
            f"{path}: no file changed since it was sealed, but {len(verdict.lines)} things do not follow from its "
            "shards: do not use it"
        )
    elif verdict.lines:
        say(f"{path}: {len(verdict.lines)} damages; run the same command again to repair them")
    elif "--quick" in flags or verdict.left_out:
        say(
            f"{path}: complete and undamaged; results were not made again{verdict.left_out and f': {verdict.left_out}'}"
        )
    else:
        say(f"{path}: complete and undamaged; its results are those of its shards, which cover every sample once")
    return 2 if verdict.lines else 0


def info(arguments: Sequence[str], flags: Collection[str] = ()) -> int:
    """Show the content of a store, and who fills it. With --watch, show the progress of its run until it ends."""
    for flag in flags:
        return watching.follow(arguments[0], _seconds(flag))
    filling = store.holder(store.objects_at(arguments[0]))
    with store.consistent(arguments[0]):
        tree = store.results(arguments[0], allow_partial=True)
        Console().print(report.info(tree, None if filling is None else str(filling)))
    return 0


def _seconds(option: str) -> float | None:
    """The seconds in --watch=SECONDS; None for --watch. Raises `ConfigError`."""
    _, given, text = option.partition("=")
    try:
        seconds = float(text) if given else None
    except ValueError:
        seconds = 0.0
    if seconds is not None and not 0 < seconds < 86400:
        raise ConfigError(f"{option}: give seconds between two looks, above 0 and below a day, or --watch alone")
    return seconds


def write_report(arguments: Sequence[str], flags: Collection[str] = ()) -> int:
    """Write the page of a store, next to the store or in a given folder."""
    path = arguments[0]
    with store.consistent(path):
        page = report.write_report(
            store.results(path), Path(arguments[1]) if len(arguments) > 1 else store.beside(path)
        )
    say(page)
    return 0


def compare(arguments: Sequence[str], flags: Collection[str] = ()) -> int:
    """Show the differences between stores."""
    with store.consistent(" and ".join(arguments)):
        Console().print(report.compare({argument: store.results(argument) for argument in arguments}))
    return 0


def merge_stores(arguments: Sequence[str], flags: Collection[str] = ()) -> int:
    """Merge shards of one run from several stores, or runs over disjoint data, into one store."""
    *paths, out = arguments
    with store.consistent(" and ".join(paths)):
        merged = upkeep.merge(paths, out, overlap="--overlap" in flags)
    if merged.complete:
        say(f"{out}: complete, of the data of {len(paths)} stores")
    else:
        say(f"{out}: {merged.done} of {merged.total} shards; run the same command with store.path={out} to finish")
    return 0


def make_compact(arguments: Sequence[str], flags: Collection[str] = ()) -> int:
    """Write a complete store in few files."""
    path, out = arguments
    with store.consistent(path):
        before, after = upkeep.compact(path, out)
    say(f"{out}: complete, {after:,} files instead of {before:,}; {path} may go")
    return 0


class Command(NamedTuple):
    """A command: its function, its numbers of arguments, and its flags. Some flags may have a value (--flag=value)."""

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
    """Run a command and return its exit code. Raises `ConfigError` for a wrong number of arguments or unknown flag."""
    command = COMMANDS[name]
    flags = {argument for argument in arguments if argument.startswith("-")}
    paths = [argument for argument in arguments if argument not in flags]
    if not command.least <= len(paths) <= command.most or not {flag.partition("=")[0] for flag in flags} <= {
        *command.flags
    }:
        raise ConfigError(
            f"igc-dist {name} takes {'a store' if command.most == 1 else 'stores'}, got {[*arguments]}: see igc-dist "
            "--help"
        )
    return command.do(paths, flags)
