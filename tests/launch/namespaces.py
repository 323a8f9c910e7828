"""Nodes on one machine: network namespaces that a pair of veth joins, each with its own loopback and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.commands import environment

PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def missing() -> str:
    """What this machine lacks for namespaces, or nothing."""
    if shutil.which("ip") is None:
        return "needs iproute2 (apt-get install iproute2): no ip"
    name = f"igc-try-{os.getpid()}"
    found = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return "" if found.returncode == 0 else f"needs the right to make network namespaces: {found.stderr.strip()}"


@dataclass
class Node:
    """A namespace; both nodes know both by their names. 10.77.0.1 is the first."""

    name: str
    address: str
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *arguments: str | Path, cwd: Path, **environ: str) -> subprocess.Popen[str]:
        """Start a command on this node."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, *map(str, arguments)],
            cwd=cwd, env=environment(PATH=PATH, **environ), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def die(self) -> None:
        """Kill every process of this node at once, as when its power goes."""
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True)
        for pid in found.stdout.split():
            os.kill(int(pid), signal.SIGKILL)


@contextmanager
def nodes() -> Iterator[Sequence[Node]]:
    """Two nodes. At the end their processes and namespaces are gone."""
    found = [Node(f"igc-{os.getpid()}-{n}", f"10.77.0.{n}") for n in (1, 2)]
    names = "".join(f"{node.address} {node.name}\n" for node in found)

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    try:
        for node in found:
            etc = Path(
                f"/etc/netns/{node.name}"
            )  # laid over /etc: names are looked up here, where no server would answer
            etc.mkdir(parents=True)
            # the host's own name means a loopback address, as Debian installs it
            (etc / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {socket.gethostname()}\n{names}")
            (etc / "nsswitch.conf").write_text("hosts: files\n")
            ip("netns", "add", node.name)
            ip("-n", node.name, "link", "set", "lo", "up")
        ip(
            "link",
            "add",
            "veth0",
            "netns",
            found[0].name,
            "type",
            "veth",
            "peer",
            "name",
            "veth0",
            "netns",
            found[1].name,
        )
        for node in found:
            ip("-n", node.name, "addr", "add", f"{node.address}/24", "dev", "veth0")
            ip("-n", node.name, "link", "set", "veth0", "up")
        yield found
    finally:
        for node in found:
            if Path(f"/run/netns/{node.name}").exists():
                node.die()
                subprocess.run(["ip", "netns", "del", node.name], capture_output=True)
            for process in node.processes:
                process.communicate()
            shutil.rmtree(f"/etc/netns/{node.name}", ignore_errors=True)
