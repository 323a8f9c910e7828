"""The shape of the code: imports point only to the left, and every heavy dependency has one door (design, section 4)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from tests.commands import ROOT, environment

PACKAGE = ROOT / "igc_dist"
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

ORDER = (
    "records", "activations", "seeds", "faults", "secrets", "footprint", "profiling", "tally", "quadrature", "designs", "paths", "data",
    "targets", "final", "selection", "adapters", "derivatives", "representation", "model", "baselines", "features", "attributors",
    "inputs", "statistics", "cost", "plan", "outlook", "predict", "modes", "findings", "engine", "audit", "draws", "retry",
    "environments", "handshake", "agent", "pulse", "distributed", "leases", "layout", "documents", "admission", "owner", "objects",
    "remote", "address", "schema", "lock", "beacon", "store", "reading", "results", "budget", "progress", "spec", "permitted", "weights",
    "config", "job", "compose", "recipe", "finalize", "recomputed", "verify", "folded", "compact", "merge", "account", "trial", "run",
    "api", "compat", "captum", "saliency", "metrics", "report", "demo", "watch", "commands", "__main__",
)  # fmt: skip
"""A stage may import what stands to its left. `demo` is somebody's model and data: nothing may import it, it imports nothing."""

DOORS = {
    "torch.distributed": {"distributed.py", "agent.py"},
    "zarr": {"store.py", "objects.py", "remote.py", "admission.py"},
    "obstore": {"remote.py"},
    "hydra": {"config.py", "__main__.py"},
    "omegaconf": {"config.py", "__main__.py"},
    "lightning": {"distributed.py", "environments.py", "config.py"},
    "torch.autograd": {"derivatives.py"},
    "torch.func": set(),
    "matplotlib": {"report/figures.py", "report/maps.py", "report/gallery.py"},
    "skimage": {"features/regions.py"},
    "sklearn": {"demo/digits.py"},
}
"""Who may import what, and everything below it."""

AUTOGRAD = {"autograd", "backward", "enable_grad", "requires_grad_", "is_grads_batched", "jvp", "vjp", "jacrev", "jacfwd"}
"""Names that reach into the graph: in `model.py` alone, and in the training of the demo."""

LONGEST = 375


@cache
def tree(name: str) -> ast.Module:
    return ast.parse((PACKAGE / name).read_text())


def imports(name: str) -> Iterator[str]:
    """Dotted names that a file imports, at the top or inside functions, but not those for type checkers."""
    skipped = {
        id(inner)
        for node in ast.walk(tree(name))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree(name)):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import in line {node.lineno}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def stage(name: str) -> str:
    """The stage of a file: its own name, or its folder's."""
    return name.split("/")[0].removesuffix(".py")


def test_every_file_is_a_stage_or_in_one() -> None:
    assert {stage(name) for name in FILES} == {*ORDER, "__init__"}


@pytest.mark.parametrize("name", FILES)
def test_imports_point_to_the_left(name: str) -> None:
    """`igc_dist/__init__.py` names what others have, and imports nothing until it is asked."""
    mine = stage(name)
    for dotted in imports(name):
        first, *rest = dotted.split(".")
        if first != "igc_dist":
            continue
        assert rest, f"{name} imports the whole package"
        assert mine != "__init__", f"{name} imports {dotted} at once"
        assert rest[0] == mine or ORDER.index(rest[0]) < ORDER.index(mine), f"{name} imports {dotted}, which stands to its right"
        assert rest[0] == mine or rest[0] != "demo", f"{name} imports the demo"
        assert rest[0] == mine or mine not in ("demo", "report"), f"the {mine} stands alone, but {name} imports {dotted}"


def test_a_family_knows_no_member_of_another() -> None:
    """Attributors and statistics do not know each other: any attributor goes with any statistic."""
    for name in FILES:
        for one, other in (("attributors", "statistics"), ("statistics", "attributors")):
            if stage(name) == one:
                assert not [dotted for dotted in imports(name) if dotted.startswith(f"igc_dist.{other}")], name


@pytest.mark.parametrize("door", DOORS)
def test_a_heavy_dependency_has_one_door(door: str) -> None:
    through = {name for name in FILES for dotted in imports(name) if f"{dotted}.".startswith(f"{door}.")}
    assert through <= DOORS[door], f"{sorted(through - DOORS[door])} import {door}"
    reached = {
        name
        for name in FILES
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(f"{door}.")
    }
    assert reached <= DOORS[door], f"{sorted(reached - DOORS[door])} reach into {door}"


def test_autograd_is_in_the_model_only() -> None:
    names = {
        name
        for name in FILES
        for node in ast.walk(tree(name))
        if (isinstance(node, ast.Attribute) and node.attr in AUTOGRAD) or (isinstance(node, ast.Name) and node.id in AUTOGRAD)
    }
    assert names == {"model.py", "derivatives.py", "demo/train.py"}


@pytest.mark.parametrize("name", FILES)
def test_files_stay_readable(name: str) -> None:
    """A file that outgrows a few screens asks for a new noun; and no drawer for odds and ends."""
    assert stage(name) not in ("utils", "helpers", "common", "misc")
    assert Path(name).stem not in ("utils", "helpers", "common", "misc")
    assert len((PACKAGE / name).read_text().splitlines()) <= LONGEST
    assert ast.get_docstring(tree(name)), f"{name} does not say what it is"


def test_functions_are_short() -> None:
    """A function of more than a screen does several things; signature and docstring are not counted."""
    for name in FILES:
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.FunctionDef):
                documented = isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
                lines = (node.end_lineno or 0) - (node.body[documented].lineno if len(node.body) > documented else node.lineno)
                assert lines <= 60, f"{name}: {node.name} has {lines} lines"


def test_the_package_imports_at_once() -> None:
    """Without a warning, and without torch, so that `igc-dist --help` is quick; its public names come when they are asked for."""
    code = (
        "import sys, igc_dist\n"
        "heavy = {'torch', 'lightning', 'zarr', 'hydra', 'numpy', 'xarray'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert set(igc_dist.__all__) == {'Budget', 'Quadrature', 'Targets', 'attribute', 'baselines', 'features', 'open'}\n"
        "try: igc_dist.atribute\n"
        "except AttributeError as error: assert 'atribute' in str(error)\n"
        "else: raise AssertionError('a name that is not there')"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=environment(), timeout=30)


def test_public_names_are_there() -> None:
    import igc_dist

    for name in igc_dist.__all__:
        assert getattr(igc_dist, name) is not None
    assert igc_dist.baselines.__name__ == "igc_dist.baselines"


def test_shapes_and_types_are_checked() -> None:
    """By every test, of arguments and of what comes back: the names of an annotation are one size each."""
    from igc_dist.predict import centre_of, scored

    wanted = torch.zeros(3, 2, dtype=torch.float64)
    assert scored(torch.zeros(3, 2), wanted).shape == (3, 2)
    for outputs in (torch.zeros(3, 4), torch.zeros(2, 2), torch.zeros(3, 2, dtype=torch.int64), [[0.0, 0.0]]):
        with pytest.raises(TypeCheckError, match=r"igc_dist\.predict\.scored"):
            scored(outputs, wanted)
    with pytest.raises(TypeCheckError):
        centre_of(np.zeros((4, 2, 5)))
