"""One command on a CUDA machine: tests, measures and writes down, most valuable first, within one time limit.

`python -m tests.gpu.check OUT [--seconds 470]` writes OUT/report.json (after each step, so that what ends it early
costs only what is left), OUT/log.txt and traces of the two slowest benches, and prints a table last. Each step is a
process with a limit of its own, so one failure does not cost the others. Exit code: 0 if all steps did what they
should.

Without CUDA it says so, and takes the CPU in the card's place (`tests/card.py`) with tiny sizes: it shows that
everything would start, and no number of it is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIMIT, GRACE, LEAST, PATIENCE = 470.0, 5.0, 8.0, 4
"""Seconds of the whole; after SIGTERM before SIGKILL; and below which a step is left out. A dry run takes up to 4 times
as long: a busy CPU is no fault."""

ABOUT = """
import json, platform, importlib.metadata as m
import torch, lightning, igc_dist.run, igc_dist.api
there = torch.cuda.is_available()
def version(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return None
about = {"card": torch.cuda.get_device_name(0) if there else None, "cards": torch.cuda.device_count(),
    "memory_GiB": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1) if there else None,
    "torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
    "python": platform.python_version(), **{name: version(name) for name in ("lightning", "timm", "captum", "numpy")}}
print(json.dumps(about))
"""
"""What a report says of the machine; imports what a run imports."""


@dataclass(frozen=True)
class Step:
    """A process of the check. `seconds`: its limit. `tests`: files of tests; or `benches`: names of benches."""

    name: str
    seconds: float
    tests: tuple[str, ...] = ()
    benches: tuple[str, ...] = ()


STEPS = (
    Step("first", 110, tests=("test_first.py", "test_equal.py")),
    Step("walks", 110, benches=("walk_half", "matmul")),
    Step("memory", 70, tests=("test_memory.py", "test_precision.py")),
    Step("classes", 90, benches=("classes", "small_nets")),
    Step("others", 60, tests=("test_placement.py", "test_speed.py")),
    Step("more", 80, benches=("captum", "precisions", "determinism", "loader", "fold")),
    Step("ranks", 80, tests=("test_ranks.py",)),
    Step("traces", 40, benches=("traces",)),
)
"""Most valuable first."""


@dataclass
class Check:
    """What has been found so far, and where it is written."""

    out: Path
    dry: bool
    ends: float
    report: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def left(self) -> float:
        """Seconds until the limit of the whole."""
        return self.ends - time.monotonic()

    def write(self) -> None:
        """The report as it is now."""
        (self.out / "report.json").write_text(json.dumps(self.report, indent=1))

    def run(self, name: str, limit: float, command: list[str]) -> tuple[int | None, str]:
        """Exit code and output of a command; None: no time was left. It is ended after `limit` seconds."""
        limit = min(limit * (PATIENCE if self.dry else 1), self.left())
        if limit < LEAST:
            return None, ""
        path = self.out / f"{name}.txt"
        with open(path, "w") as said:
            process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                code = 124
                for number in (15, 9):  # ranks that a test has started, too
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, number)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(GRACE)
        text = path.read_text(errors="replace")
        with open(self.out / "log.txt", "a") as log:
            log.write(f"==== {name}: {' '.join(command[1:])[:300]}\n{text}\n")
        path.unlink()
        return code, text

    def slowest(self) -> list[str]:
        """Names of the two benches that took longest."""
        spent = {name: took for step in self.report["steps"] for name, took in step.get("spent", {}).items()}
        return sorted(spent, key=spent.__getitem__)[-2:]

    def step(self, step: Step) -> dict[str, Any]:
        """Run a step, and return what the report says of it."""
        began, found = time.monotonic(), {"name": step.name}
        if step.tests:
            path = self.out / f"{step.name}.xml"
            code, _ = self.run(
                step.name, step.seconds, [sys.executable, "-m", "pytest", *flags(path, self.dry), *files(step)]
            )
            found |= tested(path)
            path.unlink(missing_ok=True)
        else:
            names = [*self.slowest(), f"--out={self.out}"] if step.benches == ("traces",) else step.benches
            command = [sys.executable, "-m", "tests.benchmarks", "gpu", *names]
            code, said = self.run(step.name, step.seconds, command)
            every = [*lines(said)]
            found["benches"] = [line for line in every if "spent" not in line]
            found["spent"] = {line["bench"]: line["spent"] for line in every if "spent" in line}
        return found | {"code": code, "seconds": round(time.monotonic() - began, 1)}


def files(step: Step) -> list[str]:
    """The files of a step's tests."""
    return [f"tests/gpu/{name}" for name in step.tests]


def flags(path: Path, dry: bool) -> list[str]:
    """How pytest is called: shapes are not checked, as that takes time and a package; warnings of another torch are no
    errors; what a test measured is in its report. On a CPU two processes share the tests."""
    options = ["filterwarnings=default", "addopts=--strict-markers --import-mode=importlib"]
    both = ["-n", "2"] if dry and find_spec("xdist") else []
    chosen = [word for option in options for word in ("-o", option)]
    return ["-q", "-rfEs", "--durations=5", "-p", "no:cacheprovider", *chosen, *both, f"--junitxml={path}"]


def tested(path: Path) -> dict[str, Any]:
    """Counts of a step's tests, what failed or was skipped with the reason, and what tests measured."""
    try:
        cases = ET.parse(path).getroot().iter("testcase")
    except (OSError, ET.ParseError):
        return {"passed": 0, "failed": {"all of them": "no report: it was ended, or did not start"}}
    passed, failed, skipped, measured = 0, {}, {}, {}
    for case in cases:
        name, kinds = case.get("name", "?"), {child.tag: child for child in case}
        measured |= {f"{name}: {one.get('name')}": one.get("value") for one in case.iter("property")}
        if (bad := kinds.get("failure", kinds.get("error"))) is not None:
            failed[name] = (bad.get("message") or "")[:300]
        elif (left := kinds.get("skipped")) is not None:
            skipped[name] = left.get("message", "")
        else:
            passed += 1
    return {"passed": passed, "failed": failed, "skipped": skipped, "measured": measured}


def lines(said: str) -> Iterator[dict[str, Any]]:
    """The benches of an output: each is a JSON object in a line."""
    for line in said.splitlines():
        if line.startswith('{"bench"'):
            with contextlib.suppress(json.JSONDecodeError):
                yield json.loads(line)


def unpacked(into: Path) -> None:
    """Unpack the wheels of .whl that this Python lacks, or has in an older version."""
    for wheel in sorted((ROOT / ".whl").glob("*.whl")):
        name, wanted = wheel.name.split("-")[:2]
        with contextlib.suppress(PackageNotFoundError):
            if numbers(version(name)) >= numbers(wanted):
                continue
        zipfile.ZipFile(wheel).extractall(into)


def numbers(text: str) -> list[int]:
    """The numbers of a version, for comparison."""
    return [int(part) for part in text.split("+")[0].split(".") if part.isdecimal()]


def table(report: dict[str, Any]) -> Iterator[str]:
    """What is printed last: a line for each bench, then each step, then what failed."""
    for step in report["steps"]:
        for line in step.get("benches", ()):
            bound = "" if line.get("bound") is None else f"{line['kind']} {line['bound']:g}"
            said = "" if line.get("bound") is None else "yes" if line["ok"] else "NO"
            value = line.get("failed") or f"{line['value']:.4g}"
            yield f"{line['bench']:<44} {value:>12} {bound:<16} {said}"
    yield ""
    for step in report["steps"]:
        counted = (
            f"{step['passed']} passed, {len(step['failed'])} failed"
            if "passed" in step
            else (f"{len(step.get('benches', ()))} lines")
        )
        ended = {None: "left out, no time", 0: "done", 124: "ended at its limit"}.get(
            step["code"], f"exit {step['code']}"
        )
        yield f"{step['name']:<10} {ended:<20} {step['seconds']:6.1f} s  {counted}"
    for step in report["steps"]:
        for name, why in step.get("failed", {}).items():
            yield f"FAILED {name}: {why.splitlines()[0] if why else ''}"


def ok(report: dict[str, Any]) -> bool:
    """Whether every step did what it should. A missed bound on a card is a result, not a fault; nor is it one if a dry
    run takes longer than its limits on a busy machine."""
    steps = [step for step in report["steps"] if not (report["dry"] and step["code"] in (None, 124))]
    broken = [line for step in steps for line in step.get("benches", ()) if "failed" in line]
    return not broken and all(step["code"] == 0 and not step.get("failed") for step in steps)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.check", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=LIMIT)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "log.txt").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as site:
        unpacked(Path(site))
        path = os.pathsep.join(filter(None, (site, str(ROOT), os.environ.get("PYTHONPATH"))))
        check = Check(given.out, False, time.monotonic() + given.seconds)
        check.environment = {
            **os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"
        }  # fmt: skip
        code, said = check.run("about", 120, [sys.executable, "-c", ABOUT])
        if code:
            print(f"it would not start:\n{said}")
            return 1
        about = json.loads(said.splitlines()[-1])
        check.dry = about["card"] is None
        if check.dry:
            print(f"torch {about['torch']} finds no CUDA device: a dry run on the CPU, of which no number is kept")
            check.environment["IGC_DRY_CARD"] = "1"
            check.ends += (PATIENCE - 1) * given.seconds
        check.report = {"date": time.strftime("%Y-%m-%d"), "dry": check.dry, **about, "steps": []}
        for step in STEPS:
            check.report["steps"].append(check.step(step))
            check.write()
    print(*table(check.report), sep="\n")
    print(f"{given.out / 'report.json'}: {about['card'] or 'a dry run'}, torch {about['torch']}")
    return 0 if ok(check.report) else 1


if __name__ == "__main__":
    sys.exit(main())
