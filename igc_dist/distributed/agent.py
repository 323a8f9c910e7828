"""Starts the ranks of a run on this machine, and ends them together.

No port is opened for it: ranks meet in a folder that only this user may enter, and gloo and NCCL stay on the loopback
interface. What a rank may do comes through a pipe, as an `Order`, and never stands among its arguments.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from igc_dist.records import Stopped

POLL = 0.05
"""Seconds between two looks at the ranks."""

GRACE, STOP = 30.0, 3.5
"""Seconds after which ranks are killed: those that are left after a failure, and those that a signal stops. A rank that
is killed loses no more than one that stops, which is what it does since its last commit."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


@dataclass(frozen=True)
class Order:
    """What the launcher tells a rank: its command line, what that line allows, and the folder where ranks meet."""

    arguments: Sequence[str]
    allow: Sequence[str]
    meeting: str


PIPE = 60_000
"""Bytes that a pipe takes while nobody reads it."""


def become_launcher(devices: int, arguments: Sequence[str], allow: Sequence[str]) -> int:
    """`launch`, by a program that replaces this one: it holds 35 MiB for the whole run, where what composed the
    configuration holds ten times as much. Returns only where an order is too long for a pipe.

    Signals wait until the new program has handlers.
    """
    order = json.dumps({"devices": devices, "arguments": [*arguments], "allow": [*allow]}).encode() + b"\n"
    if len(order) > PIPE:
        return launch(devices, arguments, allow)
    reading, writing = os.pipe()
    os.write(writing, order)
    os.close(writing)
    os.dup2(reading, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, "-P", "-m", "igc_dist", "ranks"], _environment())


def launch_ordered() -> int:
    """`launch` what `become_launcher` ordered. Returns an exit code."""
    with os.fdopen(os.dup(0), "rb", 0) as pipe, open(os.devnull) as nothing:
        order = json.loads(pipe.readline())
        os.dup2(nothing.fileno(), 0)
    return launch(**order)


def launch(devices: int, arguments: Sequence[str], allow: Sequence[str]) -> int:
    """Run ``igc-dist run ARGUMENTS`` on `devices` ranks on this machine. Returns an exit code."""
    ranks: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="igc-dist-") as meeting, _signals() as told:  # its mode is 0700
        try:
            for rank in range(devices):
                ranks.append(_started(rank, devices, Order(arguments, allow, meeting)))
            while not told and any(rank.poll() is None for rank in ranks) and not any(rank.poll() for rank in ranks):
                time.sleep(POLL)
            failed = {number: code for number, rank in enumerate(ranks) if (code := rank.poll())}
        finally:
            _end(ranks, told)
    if told:
        return Stopped.exit_code if any(rank.returncode for rank in ranks) else 0
    return _cause(failed) if failed else 0


def _started(rank: int, devices: int, order: Order) -> subprocess.Popen[bytes]:
    """Start a rank, with torchrun's variables. Its stdin is a pipe that ends when this process does."""
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": devices, "LOCAL_WORLD_SIZE": devices}
    environment = {
        "OMP_NUM_THREADS": "1",
        **_environment(),
        **{name: str(number) for name, number in numbers.items()},
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
    }
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "igc_dist", "rank"],  # -P: nothing is imported from the working folder
        env=environment,
        stdin=subprocess.PIPE,
        start_new_session=True,  # a terminal's Ctrl-C comes here only, and is passed on once
    )
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it ended already, which its exit code tells
        process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        process.stdin.flush()
    return process


def _environment() -> dict[str, str]:
    """This process's environment, by which another one imports the same package."""
    root = str(Path(__file__).resolve().parents[2])
    if sys.flags.safe_path or sys.path[0] != root:
        return {**os.environ}
    # a checkout that is not installed
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}


def ordered() -> Order:
    """The order of this rank, from its stdin. When the launcher is gone, this rank stops as by SIGTERM, or is ended."""
    pipe = os.fdopen(os.dup(0), "rb", 0)  # unbuffered: a thread that holds a buffer's lock would break the exit
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)  # code of users reads no order
    order = Order(**json.loads(pipe.readline()))

    def listen() -> None:
        pipe.read()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP)
        os._exit(Stopped.exit_code)  # it hangs where no handler runs, as in gloo while ranks form their group

    threading.Thread(target=listen, daemon=True).start()
    return order


def _end(ranks: Sequence[subprocess.Popen[bytes]], told: Sequence[int]) -> None:
    """Tell the ranks to stop. Kill those that do not in time, or at a second signal."""
    until = time.monotonic() + (STOP if told else GRACE)
    for rank in ranks:
        rank.send_signal(signal.SIGTERM)  # nothing is sent to one that has ended
    while any(rank.poll() is None for rank in ranks) and time.monotonic() < until and len(told) < 2:
        time.sleep(POLL)
    for rank in ranks:
        if rank.poll() is None:
            os.killpg(rank.pid, signal.SIGKILL)
        rank.wait()
        if rank.stdin is not None:
            with suppress(BrokenPipeError):
                rank.stdin.close()


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect the signals that would end this process."""
    told: list[int] = []

    def tell(number: int, frame: Any) -> None:
        told.append(number)

    before = {number: signal.signal(number, tell) for number in SIGNALS}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # `become_launcher` made them wait
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _cause(codes: dict[int, int]) -> int:
    """The exit code of a run from those of its ranks that failed first."""
    killed = {rank: -code for rank, code in codes.items() if code < 0 and code != -signal.SIGTERM}
    for rank, number in killed.items():
        print(
            f"igc-dist: rank {rank} was killed by signal {number}: run the same command again to go on", file=sys.stderr
        )
    own = [code for code in codes.values() if code > 0 and code != Stopped.exit_code]
    return 1 if killed else own[0] if own else Stopped.exit_code
