"""Kill, signal, break and corrupt at random, for as long as you like:
``python -m tests.soak [--rounds N] [--seconds S] [--seed K] [--fuzz S]``.

A round fills a store while two to four things go wrong, on one to three ranks by turns, and then lets one run go to its
end. The bits have to be those of a run that nothing disturbs, and no run may write a shard again whose digest was right
before. Then the store reader, the config loader and the masker are fuzzed for a while each (`tests/fuzz`). Out of
memory inside a walk is left out: it goes on in smaller micro-batches, whose rounding differs
(`tests/distributed/test_matrix.py`).
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import igc_dist
from igc_dist.faults import KINDS, ONLY, POINTS
from igc_dist.records import StoreError
from igc_dist.store import BEACON, LOCK, Store
from tests.fuzz.__main__ import TARGETS, started
from tests.ranks import Ended, arrays, attribute, files, ranks, run_ranks, values

SETTINGS: dict[str, Any] = {"n": 24, "n_folds": 6, "micro_batch": 4}
FAULTS = [
    (point, kind)
    for point in POINTS
    for kind in KINDS
    if kind not in ("hang", "slow")
    and ONLY.get(kind, point) == point
    and (point, kind) not in (("gradient", "oom"), ("write", "oom"))
]  # rows of samples are written inside the walk
CODES = {"kill": {-9}, "exception": {1}, "oom": {1}, "sigterm": {75}, "nan": {4}, "enospc": {2}}
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGKILL)
ACTIONS = ("fault", "fault", "signal", "flip", "cut", "delete")


def run(path: Path) -> dict[str, bytes]:
    """One rank of a run."""
    warnings.simplefilter("ignore")
    return attribute(path, **SETTINGS)


class Round:
    """What happens to one store. All that is random follows from the seed and the number of the round."""

    def __init__(self, seed: int, number: int, path: Path) -> None:
        self.random, self.path = np.random.default_rng([seed, number]), path
        self.story: list[str] = []
        self.kept = self.lost = 0

    def play(self, tree: dict[str, bytes], stored: dict[str, bytes]) -> None:
        """Raises `AssertionError` with the story where the store is not what it has to be."""
        for _ in range(self.random.integers(2, 5)):
            action = str(self.random.choice(ACTIONS))
            if action in ("fault", "signal"):
                self.watched(self.fault if action == "fault" else self.signal)
            else:
                self.damage(action)
        world = int(self.random.integers(1, 4))
        self.story.append(f"to the end on {world}")
        whole = self.whole()
        found = self.watched(lambda: run_ranks(world, run, self.path, timeout=120.0))
        assert [end.code for end in found] == [0] * world, "\n".join(end.trace for end in found)
        for rank, value in enumerate(values(found)):
            assert value == tree, (
                f"rank {rank} returns others: {[k for k in {*value, *tree} if value.get(k) != tree.get(k)][:5]}"
            )
        # what a killed run left beside a complete store stays: nobody takes the lock of such a store, who could remove
        # it
        there = {key: text for key, text in files(self.path).items() if not (whole and key.startswith((LOCK, BEACON)))}
        assert there == stored, (
            f"other files are stored: {sorted(k for k in {*there, *stored} if there.get(k) != stored.get(k))[:5]}"
        )
        assert arrays(igc_dist.open(self.path)) == tree, "other bits are stored"
        assert Store.existing(self.path).verify() == [], "the store is damaged"
        assert self.lost == 0, f"{self.lost} committed shards were written again"

    def whole(self) -> bool:
        """Whether the store is complete and undamaged."""
        try:
            return Store.existing(self.path).verify() == []
        except StoreError:
            return False

    def watched(self, do: Any) -> list[Ended]:
        """Do it, and count the committed shards that are kept and those that are not."""
        before = self.committed()
        ended: list[Ended] = do()
        after = {key: (self.path / key).stat().st_mtime_ns if (self.path / key).exists() else 0 for key in before}
        shards = {before[key][0]: True for key in before}
        for key, (shard, written) in before.items():
            shards[shard] &= after[key] == written
        self.kept += sum(shards.values())
        self.lost += len(shards) - sum(shards.values())
        return ended

    def committed(self) -> dict[str, tuple[str, int]]:
        """The files of shards that are done: the shard of each, and when it was written."""
        if not (self.path / "shards/zarr.json").exists():
            return {}
        store, found = Store.existing(self.path), {}
        for name, phase in store.phases.items():
            for number in range(len(phase)):
                if store.is_done(name, number):
                    for key in (*phase.keys(number), phase.digest_key(number)):
                        found[key] = f"{name} {number}", (self.path / key).stat().st_mtime_ns
        return found

    def fault(self) -> list[Ended]:
        """A run in which a rank meets a fault, if it gets there."""
        world = int(self.random.integers(1, 4))
        point, kind = FAULTS[self.random.integers(len(FAULTS))]
        rank = 0 if point == "finalize" else int(self.random.integers(world))
        count = 1 if point == "finalize" else int(self.random.integers(1, {"write": 90, "barrier": 4}.get(point, 7)))
        wish = f"{point}:{rank}:{count}:{kind}"
        self.story.append(f"{wish} on {world}")
        ended = run_ranks(world, run, self.path, timeout=120.0, IGC_FAULT=wish)
        codes = {end.code for end in ended}
        # what it never came to does nothing; others are ended with a rank that is killed, or come to know by themselves
        assert codes <= CODES[kind] | {0}, f"ended with {codes}\n" + "\n".join(end.trace for end in ended)
        return ended

    def signal(self) -> list[Ended]:
        """A run of which a rank gets a signal at some time."""
        world = int(self.random.integers(1, 4))
        rank, number = int(self.random.integers(world)), SIGNALS[self.random.integers(len(SIGNALS))]
        after = float(self.random.uniform(0.1, 0.8))
        self.story.append(f"{number.name} to rank {rank} of {world} after {after:.2f} s")
        with ranks(world, run, self.path) as group:
            group.processes[rank].join(after)
            if group.processes[rank].is_alive():
                group.send(rank, number)
            group.processes[rank].join(60.0)
            if group.processes[rank].exitcode not in (
                0,
                75,
            ):  # before it had handlers: the others may wait for it, as for a node
                for process in group.processes:
                    process.terminate()
            ended = group.ends(120.0)
        assert {end.error for end in ended} <= {"", "Stopped", "Interrupted", "PeerError", "KeyboardInterrupt"}, (
            "\n".join(end.trace for end in ended)
        )
        return ended

    def damage(self, how: str) -> None:
        """One file is changed, cut or deleted. Of the two copies of the spec only the first, as one is needed to go
        on."""
        names = sorted(name for name in files(self.path) if name != "shards/zarr.json") if self.path.exists() else []
        if not names:
            return
        names += ["zarr.json"] * (self.path / "shards/zarr.json").exists()
        name = str(self.random.choice(names))
        self.story.append(f"{how} {name}")
        file = self.path / name
        text = bytearray(file.read_bytes())
        if how == "delete":
            file.unlink()
        elif how == "cut":
            file.write_bytes(text[: len(text) // 2])
        elif text:
            text[self.random.integers(len(text))] ^= 1 << int(self.random.integers(8))
            file.write_bytes(text)


def soak(seed: int, numbers: Sequence[int], seconds: float) -> int:
    """Play rounds until they or the seconds are spent; returns how many failed."""
    began, done, failed, kept = time.monotonic(), 0, 0, 0
    happened: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="igc-soak-") as folder:
        whole = Path(folder, "whole.zarr")
        tree = values(run_ranks(1, run, whole))[0]
        stored = files(whole)
        for number in numbers:
            if time.monotonic() - began > seconds:
                break
            one = Round(seed, number, Path(folder, f"{number}.zarr"))
            try:
                one.play(tree, stored)
            except Exception as error:  # a soak that stops at the first find finds one
                failed += 1
                print(
                    f"round {number} FAILED: {type(error).__name__}: {error}\n  after: {'; '.join(one.story)}",
                    flush=True,
                )
                print(f"  again: python -m tests.soak --seed {seed} --only {number}", flush=True)
            done, kept = done + 1, kept + one.kept
            happened.update(
                step.split(":")[-1].split(" ")[0] if " on " in step else step.split(" ")[0] for step in one.story
            )
    spent = time.monotonic() - began
    print(
        f"soak: {done} rounds with seed {seed} in {spent:.0f} s ({spent / max(done, 1):.1f} s each), {failed} failed; ",
        end="",
    )
    print(f"{kept} committed shards were met again and kept. What happened: {dict(happened.most_common())}")
    return failed


def main() -> None:
    """Leave with 1 if a round failed, or a fuzzer found something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=1800.0, help="no round begins after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="play this round only")
    parser.add_argument("--fuzz", type=int, default=60, help="seconds of each fuzzer after the rounds, 0 for none")
    wish = parser.parse_args()
    numbers = range(wish.rounds) if wish.only is None else [wish.only]
    failed = soak(wish.seed, numbers, wish.seconds)
    if wish.fuzz and wish.only is None:
        failed += sum(not started(name, wish.fuzz, wish.seed) for name in TARGETS)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
