"""A run of two ranks seen from outside, for `test_ranks.py`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.commands import TINY, below, children, environment, gone, until

SLOW = "+data.build.pause=0.05"


@dataclass(frozen=True)
class Seen:
    """What was seen of a run of two ranks, from outside."""

    listening: set[str]
    """Addresses at which the launcher or a rank waited for others, while both ranks were in pass 2."""
    commands: list[str]
    """The command lines of the ranks."""
    imported: bool
    """Whether a module in the working folder was."""
    ended: bool
    """Whether all ended within 5 seconds after their launcher was killed, and before the work was done."""


def listening(pids: list[int]) -> set[str]:
    """Addresses at which these processes listen, over TCP of both versions."""
    mine = {os.readlink(file) for pid in pids for file in Path(f"/proc/{pid}/fd").iterdir() if file.is_symlink()}
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in mine:
                words = bytes.fromhex(local.split(":")[0])
                groups = [words[n : n + 4][::-1] for n in range(0, len(words), 4)]  # each word is little-endian
                found.add(socket.inet_ntop(family, b"".join(groups)))
    return found


def watched(folder: Path) -> Seen:
    """A run of two ranks, looked at in pass 2; then its launcher is killed."""
    mark, store = folder / "imported", folder / "store.zarr"
    for name in ("xarray", "lightning", "safetensors"):
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')\n")
    others = [name for _, name in socket.if_nameindex() if not name.startswith("lo")]  # which a shell might prefer
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "igc_dist", "run", *TINY, f"store.path={store}", "fabric.devices=2", SLOW],
        cwd=folder, stderr=subprocess.DEVNULL,
        env=environment(TMPDIR=str(folder), **({"GLOO_SOCKET_IFNAME": others[0]} if others else {})),
    )  # fmt: skip
    everyone: list[int] = []
    try:
        until(lambda: process.poll() is not None or any(store.glob("shards/attribute/record/c.*")))
        if process.poll() is not None:
            return Seen(set(), [], mark.exists(), False)
        ranks = children(process.pid)
        everyone = [process.pid, *below(process.pid)]
        where = listening(everyone)
        commands = [Path(f"/proc/{rank}/cmdline").read_text().replace("\0", " ").strip() for rank in ranks]
        process.kill()
        process.wait()
        with suppress(AssertionError):
            until(lambda: all(map(gone, everyone)), 5.0)
        complete = json.loads((store / "zarr.json").read_text())["attributes"]["status"] == "complete"
        return Seen(where, commands, mark.exists(), all(map(gone, everyone)) and not complete)
    finally:
        process.kill()
        for pid in everyone:
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)
