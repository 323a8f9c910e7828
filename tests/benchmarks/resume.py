"""What it takes to resume: to find what is done, to commit a shard, and to go on after kill -9 of a rank."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from igc_dist.planning import Limits, Work, make_plan
from igc_dist.records import Shapes
from igc_dist.store import Folder, Store, layout, phases_of
from tests.benchmarks.measure import Report, report
from tests.commands import ROOT, TINY, environment, until

N_FOLDS, N_BLOCKS = 500, 20


def phases(n_folds: int, n_blocks: int, features: int) -> list[layout.Phase]:
    """The layout of a run: folds x blocks of one output."""
    shapes = Shapes(
        3 * n_folds, n_blocks, ("x",), ((features,),), 4, 0, 0, 0, walk=((features,),), dims=(("feature",),)
    )
    plan = make_plan(
        shapes, Work(tuple(range(n_blocks)), 1, 8, 2), Limits(n_folds=n_folds, output_block=1, micro_batch=3), 0
    )
    return phases_of(plan, ("", "y"), "float32", sums=False, skip=False)


def fill(store: Store, phase: str, number: int, random: np.random.Generator) -> None:
    """Write and commit a shard of noise."""
    family = store.phases[phase]
    for name, array in family.arrays.items():
        shape = [cut.stop - cut.start for cut in array.region(family.cell(number))]
        store.write(phase, number, name, random.standard_normal(shape).astype(array.dtype))
    store.commit(phase, number)


def found_again(path: Path) -> tuple[dict[str, float], list[int]]:
    """Seconds that a resume takes to look through a store, and the shards of pass 2 that are not done."""
    spent, began = {}, time.perf_counter()
    store = Store(path, phases(N_FOLDS, N_BLOCKS, 64), {}, "")
    store.prepare({}, {})
    spent["prepare"] = time.perf_counter() - began
    assert store.pending("predict") == []
    left = store.pending("attribute")
    spent["pending"] = time.perf_counter() - began - spent["prepare"]
    return spent, left


def looking(folder: Path) -> Report:
    """A store of 10,000 shards, of which one is damaged."""
    random, path = np.random.default_rng(0), folder / "many"
    store = Store(path, phases(N_FOLDS, N_BLOCKS, 64), {}, "")
    store.prepare({}, {})
    for phase, family in store.phases.items():
        for number in range(len(family)):
            fill(store, phase, number, random)
    damaged = path / store.phases["attribute"].keys(4321)[-1]
    text = bytearray(damaged.read_bytes())
    text[len(text) // 2] ^= 1
    damaged.write_bytes(text)
    tries = [found_again(path) for _ in range(3)]
    assert all(left == [4321] for _, left in tries)  # all bytes were read
    spent = min((spent for spent, _ in tries), key=lambda spent: sum(spent.values()))
    return report(
        "resume/10000_shards_s", sum(spent.values()), at_most=2.0, seconds={k: round(v, 3) for k, v in spent.items()}
    )


def committing(folder: Path) -> Iterator[Report]:
    """To declare a shard done, and a plain write of the same bytes; the least of some, as other load only ever adds."""
    for name, features, rounds in (("small", 64, 50), ("64_MB", 2**22, 4)):
        random, path = np.random.default_rng(0), folder / name
        store = Store(path, phases(rounds, 1, features), {}, "")
        store.prepare({}, {})
        family, whole, commit, plain = store.phases["attribute"], [], [], []
        for number in range(rounds):
            chunks = {
                name: random.standard_normal(
                    [cut.stop - cut.start for cut in array.region(family.cell(number))]
                ).astype(array.dtype)
                for name, array in family.arrays.items()
            }
            began = time.perf_counter()
            for array, chunk in chunks.items():
                store.write("attribute", number, array, chunk)
            between = time.perf_counter()
            store.commit("attribute", number)
            commit.append(time.perf_counter() - between)
            whole.append(time.perf_counter() - began)
            stored = b"".join(Folder(path).get(key) or b"" for key in (*family.keys(number), family.digest_key(number)))
            began = time.perf_counter()
            with open(folder / "plain", "wb") as file:
                file.write(stored)
                file.flush()
                os.fsync(file.fileno())
            plain.append(time.perf_counter() - began)
        yield report(
            f"resume/commit_{name}_ms",
            1000 * (min(commit) - (min(plain) if name != "small" else 0.0)),
            at_most=5.0,
            commit_ms=round(1000 * min(commit), 3),
            with_compression_ms=round(1000 * min(whole), 3),
            plain_write_and_fsync_ms=round(1000 * min(plain), 3),
            stored_mb=round(len(stored) / 1e6, 3),
            note="" if name == "small" else "less a plain write of the same bytes to disk",
        )


def killed(folder: Path, kill: bool) -> dict[str, float]:
    """Seconds of a run of two ranks under torchrun; of which one is killed, from then until a shard of the next attempt
    is committed."""
    path, spent, began = folder / f"killed-{kill}.zarr", {}, time.perf_counter()
    settings = [*TINY, f"store.path={path}", "data.build.n=192", "+data.build.pause=0.02", "plan.n_folds=64"]
    ours = environment(NPROC="2", MAX_RESTARTS="1", PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    with subprocess.Popen(
        [ROOT / "launch/torchrun.sh", *settings],
        cwd=folder,
        env=ours,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            done = path / "shards/attribute/record"
            count = lambda: sum(1 for p in done.glob("c.*"))  # noqa: E731
            if kill:
                until(lambda: count() >= 8)
                first = ranks_of(process.pid)
                os.kill(first[1], signal.SIGKILL)
                at = time.perf_counter()
                until(lambda: len(again := ranks_of(process.pid)) == 2 and not {*again.values()} & {*first.values()})
                before = count()
                until(lambda: count() > before)
                spent["first_commit"] = time.perf_counter() - at
            _, err = process.communicate(timeout=120)
        finally:
            process.kill()
    if process.returncode:
        raise RuntimeError(f"torchrun failed: {err[-2000:]}")
    return {**spent, "whole": time.perf_counter() - began}


def ranks_of(agent: int) -> dict[int, int]:
    """The processes of the ranks of a torchrun, which is their parent."""
    found = {}
    for pid in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        with_rank = [word for word in environ_of(pid) if word.startswith("RANK=")]
        if with_rank:
            found[int(with_rank[0].removeprefix("RANK="))] = int(pid)
    return found


def environ_of(pid: str) -> list[str]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def recovery(folder: Path) -> Report:
    undisturbed, disturbed = killed(folder, kill=False), killed(folder, kill=True)
    details: dict[str, Any] = {
        "undisturbed_s": round(undisturbed["whole"], 2),
        "with_a_kill_s": round(disturbed["whole"], 2),
    }
    return report(
        "resume/killed_rank_s",
        disturbed["first_commit"],
        at_most=15.0,
        **details,
        note="until the first new commit; 2 ranks",
    )


def run() -> Iterator[Report]:
    """10,000 shards in 2 s, a commit in 5 ms, a killed rank in 15 s."""
    with tempfile.TemporaryDirectory() as folder:
        yield looking(Path(folder))
        yield from committing(Path(folder))
        yield recovery(Path(folder))
