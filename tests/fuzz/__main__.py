"""Coverage-guided fuzzing of the store reader, the config loader and the masker of secrets: ``python -m tests.fuzz
[--seconds S] [--seed K] [--only TARGET]``.

Each target runs in a process of its own, for so many seconds, with bounded memory: what it is given is read, or refused
with an error of ours; another exception, an effect, more memory or more time is a finding, which is printed with the
bytes that lead there: ``python -m tests.fuzz --only TARGET --again HEX``.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

TARGETS = ("stores", "configs", "secrets")
WATCHED = {
    "stores": ("igc_dist", "zarr"),
    "configs": ("igc_dist", "hydra", "omegaconf"),
    "secrets": ("igc_dist",),
}
"""Packages whose branches guide the fuzzer: ours, and those that bytes of others are handed to."""

MEMORY = 1 << 30
"""Bytes that a process may take beside what it holds at its start. No chunk is larger than `stores.SMALL` here."""

SLOW = 60
"""Seconds for one input, on a machine that does other things."""


def fuzz(name: str, folder: Path, seconds: int, seed: int) -> None:
    """Fuzz in this process, which libFuzzer ends: with 0, or 77 after a finding."""
    import atheris

    with atheris.instrument_imports(include=list(WATCHED[name]), enable_loader_override=False):
        target = _target(name, folder)

    def call(data: bytes) -> None:
        try:
            target(data)
        except BaseException:
            print(f"after: {target.story}\nagain: python -m tests.fuzz --only {name} --again {data.hex()}", flush=True)
            raise

    corpus, chance = folder / "corpus", random.Random(seed)
    corpus.mkdir()
    for number in range(64):
        (corpus / str(number)).write_bytes(chance.randbytes(chance.randrange(1, 96)))
    flags = [
        f"-max_total_time={seconds}",
        f"-seed={seed + 1}",
        f"-timeout={SLOW}",
        "-max_len=128",
        "-len_control=0",
        "-verbosity=1",
    ]
    _bound()
    atheris.Setup([name, *flags, f"-artifact_prefix={folder}/", str(corpus)], call)
    atheris.Fuzz()


def _target(name: str, folder: Path):  # type: ignore[no-untyped-def]
    warnings.simplefilter("ignore")
    logging.disable()
    return importlib.import_module(f"tests.fuzz.{name}").Target(folder)


def _bound() -> None:
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))


def started(name: str, seconds: int, seed: int) -> bool:
    """Fuzz a target in a process; prints a line, and what was found. Returns whether it found nothing."""
    command = [
        sys.executable,
        "-m",
        "tests.fuzz",
        "--only",
        name,
        "--seconds",
        str(seconds),
        "--seed",
        str(seed),
        "--here",
    ]
    with tempfile.TemporaryDirectory(
        prefix="igc-fuzz-"
    ) as folder:  # here, as libFuzzer ends its process without a farewell
        environment = {**os.environ, "TMPDIR": folder}
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=2 * seconds + 300, env=environment
        )
    runs, covered = re.search(r"Done (\d+) runs in (\d+)", done.stderr), re.findall(r"cov: (\d+)", done.stderr)
    found = done.returncode != 0 or runs is None
    if found:
        print(f"{done.stdout[-4000:]}\n{done.stderr[-6000:]}")
    print(
        f"fuzz {name}: {runs[1] if runs else '?'} inputs in {runs[2] if runs else '?'} s with seed {seed}, "
        f"{covered[-1] if covered else '?'} branches of {', '.join(WATCHED[name])} met: "
        f"{'FAILED' if found else 'nothing found'}",
        flush=True,
    )
    return not found


def main() -> None:
    """Leave with 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=TARGETS)
    parser.add_argument("--again", metavar="HEX", help="these bytes, once")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    wish = parser.parse_args()
    if wish.again is None and not wish.here:
        raise SystemExit(
            0 if all(started(name, wish.seconds, wish.seed) for name in TARGETS if wish.only in (None, name)) else 1
        )
    with tempfile.TemporaryDirectory(prefix="igc-fuzz-") as folder:
        if wish.again is not None:
            target = _target(wish.only, Path(folder))
            _bound()
            target(bytes.fromhex(wish.again))
        else:
            fuzz(wish.only, Path(folder), wish.seconds, wish.seed)


if __name__ == "__main__":
    main()
