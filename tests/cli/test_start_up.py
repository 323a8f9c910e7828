"""A command imports what it needs: one that looks at a store needs no model, and a library beside us that is broken
stops nothing that does not use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import igc_dist
from igc_dist.records import ConfigError
from tests.commands import ROOT, SMALL, command, environment

pytestmark = pytest.mark.e2e

LAUNCHERS = ("SLURM_", "OMPI_", "PMI_", "KUBERNETES_")
"""Variables of clusters, beside those that `environment` leaves out."""

COMMAND = "from igc_dist.__main__ import main; main(sys.argv[1:])"
OPEN = "import igc_dist; print(float(igc_dist.open(sys.argv[1])['correlation'][0]))"
ATTRIBUTE = (
    "import torch, igc_dist; "
    "print(igc_dist.attribute(torch.nn.Linear(3, 1), (torch.randn(8, 3), torch.randn(8, 1)), n_steps=2, n_folds=2)"
    "['n'].values)"
)

CODE = """\
import json, sys
code = 0
try:
    {statement}
except SystemExit as end:
    code = end.code or 0
print()
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
sys.exit(code)
"""
"""Runs a statement, and says at its end which packages were imported."""


class Ended(NamedTuple):
    """How a process ended, what it said, and which packages it had imported."""

    code: int
    said: str
    packages: set[str]


def run(statement: str, *arguments: str | Path, cwd: Path, beside: Path | None = None) -> Ended:
    """A statement in a fresh process; `beside` is a folder whose packages come before those of the machine."""
    environ = {name: value for name, value in environment().items() if not name.startswith(LAUNCHERS)}
    if beside is not None:
        environ["PYTHONPATH"] = f"{beside}:{environ['PYTHONPATH']}"
    ended = subprocess.run(
        [sys.executable, "-c", CODE.format(statement=statement), *map(str, arguments)],
        cwd=cwd, env=environ, text=True, capture_output=True, timeout=100,
    )  # fmt: skip
    said, _, names = ended.stdout.rstrip("\n").rpartition("\n")
    assert names.startswith("["), ended.stderr
    return Ended(ended.returncode, said + ended.stderr, {*json.loads(names)})


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two stores, of one model on two halves of a data set."""
    folder = tmp_path_factory.mktemp("stores")
    torch.manual_seed(0)
    net, x, y = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh()), torch.randn(16, 3), torch.randn(16, 2)
    for name, rows in (("a.zarr", slice(0, 8)), ("b.zarr", slice(8, 16))):
        igc_dist.attribute(net, (x[rows], y[rows]), n_steps=2, n_folds=2, store=folder / name, threads=1)
    return folder


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder with a torchvision that was built for another torch."""
    package = tmp_path / "beside" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('raise RuntimeError("operator torchvision::nms does not exist")\n')
    return package.parent


HEAVY = {"torch", "lightning", "sklearn"}
LIGHT: dict[str, tuple[str, tuple[str, ...], int, str]] = {
    "info": (COMMAND, ("info", "a.zarr"), 0, "complete"),
    "verify --quick": (COMMAND, ("verify", "--quick", "a.zarr"), 0, "complete and undamaged"),
    "compare": (COMMAND, ("compare", "a.zarr", "b.zarr"), 0, "correlation"),
    "report": (COMMAND, ("report", "a.zarr", "page"), 0, "report.html"),
    "--help": (COMMAND, ("--help",), 0, "igc-dist [run] [overrides]"),
    "--version": (COMMAND, ("--version",), 0, "."),
    "open": (OPEN, ("a.zarr",), 0, "."),
    "a refused override": (COMMAND, ("nonsense=1",), 2, "nonsense"),
    "a refused override of plan": (COMMAND, ("plan", "quadrature.nonsense=1"), 2, "nonsense"),
    "a store that is not there": (COMMAND, ("info", "nowhere.zarr"), ConfigError.exit_code, "nowhere.zarr"),
}
"""What needs no model: a statement, its arguments, its exit code, and a part of what it says."""


@pytest.mark.parametrize("name", LIGHT)
def test_what_needs_no_model_starts_without_torch(name: str, stores: Path) -> None:
    statement, arguments, code, part = LIGHT[name]
    ended = run(statement, *arguments, cwd=stores)
    assert (ended.code, part in ended.said) == (code, True), ended.said
    assert not HEAVY & ended.packages, f"{name} imports {HEAVY & ended.packages}"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("verify", "a.zarr"), id="verify"),
        pytest.param(("merge", "a.zarr", "b.zarr", "ab.zarr"), id="merge", marks=pytest.mark.slow),
        pytest.param(("compact", "a.zarr", "compact.zarr"), id="compact", marks=pytest.mark.slow),
    ],
)
def test_what_is_done_to_stores_starts_without_lightning(arguments: tuple[str, ...], stores: Path) -> None:
    ended = run(COMMAND, *arguments, cwd=stores)
    assert (ended.code, "complete" in ended.said) == (0, True), ended.said
    assert not {"lightning", "sklearn"} & ended.packages


def test_one_rank_needs_no_launcher(tmp_path: Path) -> None:
    """`attribute` in a process that no cluster has started, without loggers. Nor is rich imported, which then draws
    from the generator of `random`."""
    ended = run(ATTRIBUTE, cwd=tmp_path)
    assert (ended.code, ended.said.split("\n")[0]) == (0, "[8]"), ended.said
    assert not {"lightning", "sklearn", "rich"} & ended.packages


@pytest.mark.parametrize(
    "name", ["info", "open", *(pytest.param(name, marks=pytest.mark.slow) for name in ("attribute", "plan"))]
)
def test_a_broken_library_beside_us_stops_nothing(name: str, stores: Path, broken: Path) -> None:
    known = LIGHT | {
        "attribute": (ATTRIBUTE, (), 0, "[8]"),
        "plan": (COMMAND, ("plan", "quadrature.n_steps=2"), 0, "gradient"),
    }
    statement, arguments, code, part = known[name]
    ended = run(statement, *arguments, cwd=stores, beside=broken)
    assert (ended.code, part in ended.said) == (code, True), ended.said
    assert "nms" not in ended.said


def test_the_library_beside_us_is_broken(broken: Path, tmp_path: Path) -> None:
    """Or the test above would say nothing."""
    with pytest.raises(AssertionError, match="operator torchvision::nms does not exist"):
        run("import torchvision", cwd=tmp_path, beside=broken)


@pytest.mark.slow
def test_lightning_names_the_library_that_it_falls_over(broken: Path, tmp_path: Path) -> None:
    """A run that logs needs Lightning, which imports an installed torchvision: one line says what to mend."""
    about = broken / "torchvision-0.99.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.99\n")
    done = command(*SMALL, "hydra.run.dir=out", cwd=tmp_path, PYTHONPATH=f"{broken}{os.pathsep}{ROOT}")
    assert done.returncode == ConfigError.exit_code, done.stderr
    (line,) = done.stderr.strip().split("\n")
    assert line.startswith("igc-dist: lightning cannot be imported, since torchvision fails")
    assert line.endswith("or remove it with pip uninstall torchvision")
