"""Commands on stores: `igc-dist verify | report | export | compare | info | merge | compact`; the list of models."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import xarray as xr
from rich.console import Console

# wings are loaded when a name in them is first used: `info` needs no torch, `merge` does
from igc_dist import cli, model, report, store, upkeep, watching
from igc_dist.cli.screen import say
from igc_dist.config import flags
from igc_dist.records import ConfigError

Flags = Mapping[str, str | None]
"""The flags of a command line, and their values."""

NONE: Flags = {}


def verify(arguments: Sequence[str], given: Flags = NONE) -> int:
    """Print a line for every damage of a store. Returns 2 if there is any."""
    path = arguments[0]
    verdict = upkeep.verify(path, quick="--quick" in given)
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
    elif "--quick" in given or verdict.left_out:
        say(
            f"{path}: complete and undamaged; results were not made again{verdict.left_out and f': {verdict.left_out}'}"
        )
    else:
        say(f"{path}: complete and undamaged; its results are those of its shards, which cover every sample once")
    return 2 if verdict.lines else 0


def info(arguments: Sequence[str], given: Flags = NONE) -> int:
    """Show the content of a store, and who fills it. With --watch, show the progress of its run until it ends."""
    if "--watch" in given:
        return watching.follow(arguments[0], _seconds(given["--watch"]))
    filling = store.holder(store.objects_at(arguments[0]))
    with store.consistent(arguments[0]):
        tree = store.results(arguments[0], allow_partial=True)
        Console().print(report.info(tree, None if filling is None else str(filling)))
    return 0


def _seconds(text: str | None) -> float | None:
    """The seconds in --watch=SECONDS; None for --watch. Raises `ConfigError`."""
    try:
        seconds = None if text is None else float(text)
    except ValueError:
        seconds = 0.0
    if seconds is not None and not 0 < seconds < 86400:
        raise ConfigError(f"--watch={text}: give seconds between two looks, above 0 and below a day, or --watch alone")
    return seconds


def write_report(arguments: Sequence[str], given: Flags = NONE) -> int:
    """Write the page of a store, next to the store or in a given folder."""
    path, folder = arguments[0], Path(arguments[1]) if len(arguments) > 1 else store.beside(arguments[0])
    most, names = given.get("--max-outputs") or "32", given.get("--outputs")
    if not most.isdecimal():
        raise ConfigError(f"--max-outputs {most}: give the number of outputs to draw, 1 or more")
    outputs = None if names is None else names.split(",")
    with store.consistent(path):
        tree = store.results(path)
        try:
            fetch, means = _pictures(tree, path, given)
            found = report.Beside(fetch, means, store.beside(path))
            written = report.write_report(tree, folder, int(most), outputs, given.get("--sort"), found)
        except OSError as error:
            raise ConfigError(f"the page cannot be written to {folder} ({error}): give another folder") from error
    say(written)
    return 0


def _pictures(tree: xr.DataTree, path: str, given: Flags) -> tuple[report.Fetch | None, Mapping[str, report.Mean]]:
    """The thumbnails that the run of a store kept beside it: those of samples, and means; none with --no-images."""
    kept = report.Thumbnails.beside(tree, store.beside(path))
    return (None, {}) if "--no-images" in given else (kept.fetch, kept.means)


def export(arguments: Sequence[str], given: Flags = NONE) -> int:
    """Write a store for another program into a new folder."""
    path, folder = arguments
    if (to := given.get("--to")) is None:
        raise ConfigError(f"igc-dist export {path} {folder}: say for what, --to folder, --to fiftyone or --to virelay")
    with store.consistent(path):
        tree = store.results(path)
        try:
            written = report.write_export(tree, to, folder, _pictures(tree, path, given)[0])
        except OSError as error:
            raise ConfigError(f"nothing can be written to {folder} ({error}): give another folder") from error
    say(written)
    return 0


def compare(arguments: Sequence[str], given: Flags = NONE) -> int:
    """Show the differences between stores, and with --to write their page. Scores of samples are joined and written."""
    names = report.told_apart(arguments)
    with store.consistent(" and ".join(arguments)):
        trees = dict(zip(names, map(store.results, arguments), strict=True))
        if not report.scored(trees):
            if "--reference" in given:
                raise ConfigError("--reference: for stores with metrics, and not all of these have them")
            Console().print(report.compare(trees))
            if (there := given.get("--to")) is not None:
                say(f"page: {report.write_sweep(trees, there)}")
            return 0
        table = report.joined(trees, given.get("--reference"))
    Console().print(report.study_table(table))
    folder = Path(given.get("--to") or "study")
    try:
        say(f"page: {report.write_study(table, folder)}")
    except OSError as error:
        raise ConfigError(f"the study cannot be written to {folder} ({error}): give another with --to") from error
    return 0


def merge_stores(arguments: Sequence[str], given: Flags = NONE) -> int:
    """Merge shards of one run from several stores, or runs over disjoint data, into one store."""
    *paths, out = arguments
    with store.consistent(" and ".join(paths)):
        merged = upkeep.merge(paths, out, overlap="--overlap" in given)
    if merged.complete:
        say(f"{out}: complete, of the data of {len(paths)} stores")
    else:
        say(f"{out}: {merged.done} of {merged.total} shards; run the same command with store.path={out} to finish")
    return 0


def make_compact(arguments: Sequence[str], given: Flags = NONE) -> int:
    """Write a complete store in few files."""
    path, out = arguments
    with store.consistent(path):
        before, after = upkeep.compact(path, out)
    say(f"{out}: complete, {after:,} files instead of {before:,}; {path} may go")
    return 0


def ask(arguments: Sequence[str], given: Flags = NONE) -> int:
    """Answer a question of one store, or of two."""
    return cli.asking.ask(arguments, given)


def list_models(arguments: Sequence[str], given: Flags = NONE) -> int:
    """Print the names of a family's models that match a pattern, or the families."""
    if not arguments:
        for family, names in model.families.FAMILIES.items():
            say(f"{family:<22}{names if isinstance(names, str) else 'has a list of names'}")
        return 0
    for name in model.families.listed(*arguments):
        say(name)
    return 0


class Command(NamedTuple):
    """A command: its function, its numbers of arguments, and its flags."""

    do: Callable[[Sequence[str], Flags], int]
    least: int
    most: int
    flags: flags.Flags = flags.Flags()


COMMANDS = {
    "verify": Command(verify, 1, 1, flags.Flags(bare=("--quick",))),
    "report": Command(write_report, 1, 2, flags.Flags(("--no-images",), ("--max-outputs", "--outputs", "--sort"))),
    "export": Command(export, 2, 2, flags.Flags(("--no-images",), ("--to",))),
    "compare": Command(compare, 2, 999, flags.Flags(valued=("--reference", "--to"))),
    "info": Command(info, 1, 1, flags.Flags(free=("--watch",))),
    "merge": Command(merge_stores, 3, 99, flags.Flags(bare=("--overlap",))),
    "compact": Command(make_compact, 2, 2),
    "ask": Command(
        ask,
        1,
        3,
        flags.Flags(
            bare=("--json", "--csv", "--everyone"),
            valued=("--slices", "--outputs", "--map", "--level", "--fdr", "--top", "--feature", "--input"),
        ),
    ),
    "models": Command(list_models, 0, 2),
}


def call(name: str, arguments: Sequence[str]) -> int:
    """Run a command and return its exit code.

    Raises `ConfigError` for a wrong number of arguments, an unknown flag, or an override, which would become a folder.
    """
    command = COMMANDS[name]
    given, paths = flags.taken(arguments, command.flags)
    for path in paths:
        if _OVERRIDE.match(path) and not Path(path).exists():
            raise ConfigError(
                f"igc-dist {name} takes no settings, got {path}: its flags are {command.flags}; if it is a folder, "
                f"give ./{path}"
            )
    if not command.least <= len(paths) <= command.most:
        raise ConfigError(
            f"igc-dist {name} takes {'a store' if command.most == 1 else 'stores'}, got {[*arguments]}: see igc-dist "
            "--help"
        )
    return command.do(paths, dict(given))


_OVERRIDE = re.compile(r"[+~]{0,2}[A-Za-z_][\w./@]*=")
