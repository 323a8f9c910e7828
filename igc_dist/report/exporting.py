"""A store for other programs: a plain folder of PNG and CSV, a dataset of FiftyOne, a project of ViRelAy."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import xarray as xr

from igc_dist import files
from igc_dist.records import ConfigError
from igc_dist.report import fiftyone, plain_folder, virelay
from igc_dist.report.contents import discreet
from igc_dist.report.rows import Fetch, first_group

KINDS: dict[str, Callable[[xr.DataTree, Path, Fetch | None], Path]] = {
    "fiftyone": fiftyone.write,
    "folder": plain_folder.write,
    "virelay": virelay.write,
}


def write_export(tree: xr.DataTree, to: str, folder: str | Path, fetch: Fetch | None = None) -> Path:
    """Write a store into a new or empty folder for another program. Returns the file or folder to open first.

    `to`: "folder" (maps and samples as PNG, their numbers as CSV), "fiftyone" (a ``FiftyOneDataset`` that is a
    ``FiftyOneImageClassificationDataset`` too) or "virelay" (a project with its HDF5 files; needs h5py). The last two
    are of samples, each with its attribution to the output of its target. `fetch`: gives the samples themselves. Raises
    `ConfigError` for another word, for a folder that is a link or has files, for a store without attributions of
    samples where these are needed, and without h5py; OSError for what cannot be written.
    """
    if to not in KINDS:
        raise ConfigError(f"an export to {to}: choose one of {', '.join(KINDS)}")
    if to != "folder" and first_group(tree) is None:
        raise ConfigError(
            f"an export to {to} is of samples, and the store keeps no attributions of samples: run with "
            "store.samples=true or method=ig, or export to folder, which has the maps of the data set"
        )
    where = files.folder(os.path.expanduser(folder))
    if any(where.iterdir()):
        raise ConfigError(f"{where} has files already: give a new folder, so that nothing else is mixed in")
    return KINDS[to](discreet(tree), where, fetch)
