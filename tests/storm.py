"""Kill, stop and signal the command from outside, at random moments of its life:
``python -m tests.storm [--rounds N] [--seed K]``.

A round starts the command on one or two devices, and once or twice something happens to it: a rank, the launcher or all
are killed, a rank is stopped and goes on, or one of them is signalled. Then the command runs to its end. The bytes have
to be those of a run that nothing disturbs, exit codes as documented, and no process may be left. The package knows of
nothing: there are no fault points.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import igc_dist
from igc_dist.store import Store
from tests.commands import TINY, below, environment, gone, until
from tests.ranks import arrays

STORM = "IGC_STORM"
"""A variable by which the processes of a round are known."""

PATIENCE = 300.0
"""Seconds in which a run has to end, whatever happens to it; on a loaded machine ten times those of an undisturbed one.
"""

LEFT = 10.0
"""Seconds after the end of a run in which the last of its processes has to end."""

ACTS = ("kill rank", "kill launcher", "kill all", "stop rank", "signal rank", "signal launcher", "signal launcher")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def start(folder: Path, devices: int, name: str) -> subprocess.Popen[str]:
    """The command, in a process of its own."""
    arguments = [*TINY, f"store.path={folder / 'a.zarr'}", f"fabric.devices={devices}", "+data.build.pause=0.05"]
    return subprocess.Popen(
        [sys.executable, "-m", "igc_dist", *arguments],
        cwd=folder, env=environment(**{STORM: name}), text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def left(name: str) -> list[int]:
    """The processes of a round that live."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"{STORM}={name}".encode() in path.read_bytes().split(b"\0") and not gone(int(path.parent.name)):
                found.append(int(path.parent.name))
    return found


def has_handler(pid: int, number: int) -> bool:
    """Whether a process handles a signal: the first milliseconds belong to Python."""
    with suppress(OSError):
        (mask,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigCgt" in line]
        return bool(int(mask.split()[1], 16) >> (number - 1) & 1)
    return False


class Round:
    """What happens to one store. All that is random follows from the seed and the number of the round."""

    def __init__(self, seed: int, number: int, folder: Path, seconds: float) -> None:
        self.random, self.folder, self.seconds = random.Random(f"{seed} {number}"), folder, seconds
        self.name, self.devices, self.story = f"{os.getpid()}-{seed}-{number}", 1 + number % 2, [f"round {number}"]
        folder.mkdir()

    def play(self, bits: dict[str, bytes]) -> None:
        """Disturb the run once or twice, then let it end. Raises `AssertionError`."""
        for _ in range(self.random.randint(1, 2)):
            self.disturb()
        process = start(self.folder, self.devices, self.name)
        self.ends(process, {0})
        assert arrays(igc_dist.open(self.folder / "a.zarr")) == bits, "other bytes"
        assert Store.existing(self.folder / "a.zarr").verify() == []

    def disturb(self) -> None:
        """Do one thing to a run, at a random moment, and see how it ends."""
        act, number = self.random.choice(ACTS), self.random.choice(SIGNALS)
        delay, which = self.random.uniform(0, 1.1 * self.seconds), self.random.random()
        process = start(self.folder, self.devices, self.name)
        time.sleep(delay)
        self.story.append(f"{act}{f' ({number.name})' * act.startswith('signal')} after {delay:.2f} s")
        ranks = below(process.pid) if process.poll() is None else []
        rank = ranks[int(which * len(ranks))] if ranks else process.pid
        victims = [process.pid, *ranks] if act == "kill all" else [rank if act.endswith("rank") else process.pid]
        codes = {0}
        if act.startswith("kill"):
            self.send(victims, signal.SIGKILL)
            codes |= {-9} if process.pid in victims else {1}
        elif act.startswith("signal"):
            # a rank that has no handler yet is killed by the signal, as by any other
            early = not has_handler(victims[0], number)
            codes |= {75} | ({-number if victims[0] == process.pid else 1} if early else set())
            self.send(victims, number)
        else:
            self.send(victims, signal.SIGSTOP)
            time.sleep(self.random.uniform(0, 2))
            self.send(victims, signal.SIGCONT)
        self.ends(process, codes)

    def send(self, victims: list[int], number: int) -> None:
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def ends(self, process: subprocess.Popen[str], codes: set[int]) -> None:
        """The run ends in time with one of these codes, and nothing of it is left."""
        try:
            _, said = process.communicate(timeout=max(PATIENCE, 10 * self.seconds))
            self.story.append(f"ended with {process.returncode}")
            assert process.returncode in codes, f"ended with {process.returncode}, not {codes}: {said[-2000:]}"
            assert "Traceback" not in said, said[-2000:]
            until(lambda: not left(self.name), LEFT)
        finally:
            self.send(left(self.name), signal.SIGKILL)
            process.wait()


def storm(rounds: int, seed: int, folder: Path, say: Callable[[str], object] = print) -> Counter[str]:
    """Play some rounds. Returns how often each thing happened; raises with the story of a round that went wrong."""
    (folder / "undisturbed").mkdir()
    began = time.monotonic()
    assert start(folder / "undisturbed", 2, "undisturbed").wait(10 * PATIENCE) == 0
    seconds, bits = time.monotonic() - began, arrays(igc_dist.open(folder / "undisturbed" / "a.zarr"))
    done: Counter[str] = Counter()
    for number in range(rounds):
        one = Round(seed, number, folder / str(number), seconds)
        try:
            one.play(bits)
        except Exception as error:
            error.add_note(f"seed {seed}: {'; '.join(one.story)}")
            raise
        done.update(act for text in one.story for act in {*ACTS} if text.startswith(act))
        say("; ".join(one.story))
    return done


def main() -> None:
    given = argparse.ArgumentParser(prog="python -m tests.storm", description=__doc__)
    given.add_argument("--rounds", type=int, default=200)
    given.add_argument("--seed", type=int, default=1)
    chosen = given.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = storm(chosen.rounds, chosen.seed, Path(folder))
    print(f"{chosen.rounds} rounds, equal bytes, nothing left: {dict(done)}")


if __name__ == "__main__":
    main()
