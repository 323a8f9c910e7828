"""The folders of a sweep's jobs: named by what is swept."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from igc_dist.config.discreet import check_name

LONGEST = 160
"""The longest name of a folder, in bytes; file systems take 255."""


def named(arguments: Sequence[str], excluded: Sequence[str] = ("fabric.devices", "fabric.threads")) -> list[str]:
    """The arguments; for a sweep also Hydra's list of keys that do not name folders: all that are not swept."""
    words = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    if not {"-m", "--multirun"} & {*arguments} or any(word.startswith(OWN) for word in words):
        return [*arguments]
    try:
        found = OverridesParser.create().parse_overrides(words)
    except HydraException:
        return [*arguments]  # Hydra says why
    fixed = [each.key_or_group for each in found if not (each.is_sweep_override() or each.is_hydra_override())]
    keys = ",".join(f"'{key}'" for key in dict.fromkeys((*excluded, *fixed)))
    return [*arguments, f"hydra.job.config.override_dirname.exclude_keys=[{keys}]"]


OWN = ("hydra.job.config.override_dirname", "hydra.sweep.subdir")
"""Settings of the user's own for the names of folders."""


def folder_name(overrides: str) -> str:
    """Overrides as the name of a folder, of letters, digits and ``_.=-``. If others were left out, a hash follows."""
    bare = re.sub(r"[+'\"]", "", overrides)
    plain = re.sub(r"[^\w.=-]+", "_", bare)
    short = plain.encode()[:LONGEST].decode(errors="ignore")
    return short if short == bare else f"{short}-{hashlib.sha256(overrides.encode()).hexdigest()[:6]}"


def _of_job(*, _root_: Any) -> str:
    overrides = _root_.hydra.job.override_dirname
    check_name("hydra.sweep.subdir", overrides)  # before other letters hide it
    return folder_name(overrides)


OmegaConf.register_new_resolver("swept", _of_job, replace=True)
