"""The entry point: `igc-dist [run|plan|verify|report|export|...]`, see `COMMANDS`. run and plan use Hydra."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

# wings are loaded when a name in them is first used, so a command without a model starts fast
from igc_dist import cli, config, distributed
from igc_dist.cli.screen import any_text, guard, say
from igc_dist.records import ConfigError, IgcError, Stopped, check_asserts, said

RANK = "rank"
"""The command of a rank that a launcher on this machine started: all else comes through its stdin."""

RANKS = "ranks"
"""The command of the program that starts ranks, which a run with several devices becomes; likewise."""

COMMANDS = ("run", "audit", "plan", "verify", "report", "export", "compare", "info", "merge", "compact", "ask",
            "models")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and exit with its exit code. Without `argv` this process is the command, and guards its secrets."""
    any_text()
    if argv is None:
        guard()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == [RANK]:
        raise SystemExit(_rank())
    if arguments == [RANKS]:
        raise SystemExit(distributed.launch_ordered())
    command = arguments.pop(0) if arguments and arguments[0] in COMMANDS else "run"
    if command == "audit":
        command, arguments = "run", ["experiment=audit", *arguments]
    if "--help" in arguments or "-h" in arguments:
        say(cli.help.text())
        raise SystemExit(0)
    if "--version" in arguments:
        say(version("igc-dist"))
        raise SystemExit(0)
    try:
        check_asserts()
        if command in ("run", "plan"):
            raise SystemExit(_on_config(command, arguments, _allowed(arguments), own=argv is None))
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)  # what watches a run ends well
        raise SystemExit(cli.commands.call(command, arguments))
    except IgcError as error:
        raise SystemExit(complain(error)) from None


PATIENCE = 5.0
"""Seconds before other ranks than the first of a machine complain."""


def complain(error: IgcError) -> int:
    """Print a readable error. Returns its exit code.

    The first rank of a machine has the same error, or names the rank that has it; then its launcher ends the others. So
    the others wait before they speak, and there is one line.
    """
    first = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0"
    if not first and not isinstance(error, Stopped):
        time.sleep(PATIENCE)
    rank = os.environ.get("RANK")
    who = f"igc-dist{'' if rank is None else f' (rank {rank})'}"
    say(f"{who}: {said(error)}", file=sys.stderr)
    return int(error.exit_code)


def _rank() -> int:
    """One rank of a run: what its launcher ordered."""
    order = distributed.ordered()
    try:
        return _on_config("run", [*order.arguments], [*order.allow], Path(order.meeting))
    except IgcError as error:
        return complain(error)


def _on_config(
    command: str, arguments: list[str], allow: list[str], meeting: Path | None = None, own: bool = False
) -> int:
    """Run a command on configurations, once or per job of a sweep. Returns the first exit code that is not 0.

    `own`: this process is the command, so it may become another program.
    """
    arguments = config.quoted(arguments)
    codes: list[int] = []
    swept: dict[str, Path] = {}

    def task(cfg: Any) -> None:
        if Stopped.exit_code in codes:
            return
        try:
            if command == "plan":
                codes.append(cli.plans.plans(cfg, allow))
            else:
                codes.append(cli.runs.start(cfg, allow, arguments, meeting, own))
                if config.in_a_sweep() and cfg.report.enabled and not cfg.gallery and not codes[-1]:
                    swept[str(cli.runs.located(cfg))] = config.sweep_folder()
        except IgcError as error:  # the other jobs of a sweep continue
            codes.append(complain(error))

    config.compose_and_call(task, _importing(arguments), allow)
    if len(swept) > 1 and distributed.rank() == 0:
        cli.runs.show_sweep([*swept], next(iter(swept.values())))
    return next((code for code in codes if code), 0)


def _allowed(arguments: list[str]) -> list[str]:
    """Remove from the arguments what the command line allows, and return it: prefixes of `_target_`s, and `TRUST`."""
    allow = _taken(arguments, "--allow-target", "a package, for example mypkg")
    for prefix in allow:
        if not _PREFIX.fullmatch(prefix):
            was = ": the shell made it of a pattern" if Path(prefix).exists() else ""
            raise ConfigError(
                f"--allow-target {prefix} is no dotted name{was}: give the package alone, --allow-target mypkg, or put "
                "mypkg.* in quotes"
            )
        file = Path(prefix)
        if file.suffix in (".py", ".pyc", ".pyi") and file.exists():
            raise ConfigError(
                f"--allow-target {prefix} is a file here, which the shell may have made of {file.stem}.*: give the "
                f"package alone, --allow-target {file.stem}, or put {file.stem}.* in quotes"
            )
    if config.TRUST in arguments:
        arguments.remove(config.TRUST)
        allow.append(config.TRUST)
    return allow


_PREFIX = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(\.\*?)?")
"""A dotted name, alone or with .* behind it."""


def _importing(arguments: Sequence[str]) -> list[str]:
    """The arguments without ``--path DIR``, after these folders were added to those that Python imports from.

    They come last, so that no file in them hides an installed package.
    """
    left = [*arguments]
    for text in folders(left):
        folder = Path(os.path.expanduser(text)).resolve()
        if not folder.is_dir():
            raise ConfigError(f"--path {text}: there is no such folder")
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    return left


def folders(arguments: list[str]) -> list[str]:
    """The folders of ``--path``, which are removed from the arguments."""
    return _taken(arguments, "--path", "the folder of your modules, for example --path .")


def _taken(arguments: list[str], option: str, what: str) -> list[str]:
    """Remove an option from the arguments, wherever it stands, and return its values."""
    values = []
    places = [place for place, argument in enumerate(arguments) if argument.partition("=")[0] == option]
    for place in reversed(places):
        _, given, value = arguments.pop(place).partition("=")
        if not given:
            value = arguments.pop(place) if place < len(arguments) else ""
        if not value:
            raise ConfigError(f"{option} needs {what}")
        values.append(value)
    return values[::-1]
