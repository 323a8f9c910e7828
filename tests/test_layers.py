"""The shape of the code: a wing imports wings below it, and every heavy dependency has one door (design, section 4).

All is read from the source, by its syntax tree: nothing is imported but to resolve public names.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from tests.commands import ROOT, environment

PACKAGE, TESTS = ROOT / "igc_dist", ROOT / "tests"
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
TEST_FILES = sorted(path.relative_to(TESTS).as_posix() for path in TESTS.rglob("*.py"))

GROUND = ("records", "arrays", "tensors", "seeds", "faults", "secrets", "files")
"""The ground floor imports nothing of the package but `records`, which imports nothing of it."""

WINGS = (
    *GROUND, "targets", "statistics", "paths", "model", "models", "data", "distributed", "baselines", "features",
    "metrics", "attributors", "inputs", "planning", "store", "passes", "job", "results", "report", "watching", "upkeep",
    "config", "run", "accessor", "api", "cli", "compat", "__main__",
)  # fmt: skip
"""From the bottom to the top: a wing may import those before it, and itself."""

ALONE = "demo"
"""Somebody's model and data: it imports nothing of the package, and nothing of the package imports it."""

DOORS = {
    "torch.distributed": ("distributed",),
    "lightning": ("distributed",),
    "pytorch_lightning": (),
    "lightning_fabric": (),
    "zarr": ("store",),
    "obstore": ("store",),
    "hydra": ("config",),
    "omegaconf": ("config",),
    "torch.autograd": ("model",),
    "torch.func": ("model",),
    "skimage": ("features",),
    "PIL": ("data", "metrics", "demo"),
    "sklearn": ("demo", "results"),
    "matplotlib": ("report",),
    "jinja2": ("report",),
    "h5py": ("report",),
    "rich": ("report", "watching", "cli"),
}
"""Which wings may import what, and everything below it."""

AUTOGRAD = {
    "autograd",
    "backward",
    "enable_grad",
    "requires_grad_",
    "is_grads_batched",
    "jvp",
    "vjp",
    "jacrev",
    "jacfwd",
}
"""Names that reach into the graph: in the wing `model` alone, and in the training of the demo."""

PICKLED = {
    "all_gather_object",
    "broadcast_object_list",
    "gather_object",
    "recv_object_list",
    "scatter_object_list",
    "send_object_list",
}
"""Collectives of torch that pickle what they send, and unpickle what comes."""

LATE: dict[tuple[str, str], str] = {
    ("__main__.py", "igc_dist.cli"): "takes seconds, in which signals have to find a handler",
    ("arrays.py", "pandas"): "half a second, only for arrays of objects, text or dates; xarray brings it",
    ("cli/runs.py", "igc_dist.run"): "brings torch and the passes: plan and a refused configuration do without",
    ("data/decoding.py", "PIL"): "a tenth of a second, only for images in files",
    ("data/huggingface.py", "datasets"): "an extra, for folders of save_to_disk only",
    ("demo/photographs.py", "PIL"): "as in data/decoding.py",
    ("demo/scenes.py", "PIL"): "as in data/decoding.py",
    ("data/label_maps.py", "PIL"): "as in data/decoding.py",
    ("data/images.py", "pandas"): "half a second, only for a table of images; xarray brings it",
    ("data/labelled.py", "pandas"): "half a second, only for tables of labels",
    ("demo/digits.py", "sklearn.datasets"): "a second, and only where its data file lies elsewhere",
    ("faults.py", "torch"): "only where a test asks for a card that is full; the ground floor has no torch",
    ("features/regions.py", "skimage.segmentation"): "an extra, for regions of images only",
    ("features/regions.py", "skimage.transform"): "an extra, for regions of images only",
    ("model/forward.py", "torch._functorch.config"): "private to torch: what is not compiled does without it",
    ("watching/progress.py", "rich.console"): "it draws from the generator of `random` when it is imported",
    ("watching/progress.py", "rich.progress"): "the same, and only a terminal shows a bar",
    ("results/clusters.py", "scipy.sparse"): "a tenth of a second, for one question only",
    ("results/clusters.py", "scipy.sparse.csgraph"): "a tenth of a second, for one question only",
    ("results/clusters.py", "scipy.sparse.linalg"): "a tenth of a second, for one question only",
    ("results/clusters.py", "sklearn.cluster"): "a second, for one question only",
    ("results/clusters.py", "sklearn.neighbors"): "a second, for one question only",
    ("results/differences.py", "scipy.special"): "a fifth of a second, for questions only",
    ("statistics/multiplicity.py", "scipy.special"): "a fifth of a second, for p values only",
    ("statistics/multiplicity.py", "scipy.stats"): "half a second, for questions only",
    ("statistics/ttest.py", "scipy.stats"): "half a second, for t-tests only",
    ("paths/designs.py", "scipy.spatial.distance"): "half a second, for importance_pairs only",
    ("report/intervals.py", "scipy.special"): "a fifth of a second, for intervals only",
    ("report/virelay.py", "h5py"): "an extra, for exports to ViRelAy only",
    ("report/study.py", "scipy.special"): "a fifth of a second, for studies only",
    ("store/remote.py", "obstore.exceptions"): "an extra, for object stores only",
    ("store/remote.py", "obstore.store"): "an extra, for object stores only",
}
"""Imports inside functions, by file and module, each with its reason."""

FROM_FILES: dict[tuple[str, str], str] = {}
"""What a test of another wing imports from inside a wing, by test and name, each with its reason."""

LONGEST_FILE, LONGEST_FUNCTION, MOST_ARGUMENTS = 300, 60, 7

GONE = (
    "account", "activations", "adapters", "address", "admission", "agent", "audit", "beacon", "budget", "captum",
    "commands", "compact", "compose", "cost", "derivatives", "designs", "documents", "draws", "engine", "environments",
    "final", "finalize", "findings", "folded", "footprint", "handshake", "layout", "leases", "lock", "merge", "modes",
    "objects", "outlook", "owner", "permitted", "plan", "predict", "profiling", "progress", "pulse", "quadrature",
    "reading", "recipe", "recomputed", "remote", "representation", "retry", "saliency", "schema", "selection", "spec",
    "tally", "trial", "verify", "watch", "weights",
)  # fmt: skip
"""Modules of the flat package that no wing is named after."""

MOVED = ("compat", "config", "data", "distributed", "job", "model", "paths", "results", "store")
"""Those that are wings now: their dotted names are as they were, their files are not."""

TEXT = {".py", ".pyi", ".md", ".yaml", ".yml", ".sh", ".toml", ".sbatch", ".txt", ".j2", ".cfg"}
LABELS = "igc_dist/job/spec.py"
"""Keeps the old names of kinds, as labels: they stand in the specs of stores, which have to open and resume."""


# -- what the source says ----------------------------------------------------------------------------------------------


class Import(NamedTuple):
    """One name that a file imports: ``from module import name``, or ``import module`` (then without a name)."""

    module: str
    name: str
    line: int
    late: bool

    @property
    def dotted(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module

    @property
    def wing(self) -> str:
        """The wing of the package that it is of; "" for another package, or for the whole package."""
        first, *rest = self.dotted.split(".")
        return rest[0] if first == "igc_dist" and rest else ""


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of a file, kept: each of some 400 files is walked by a dozen tests."""
    return tuple(ast.walk(tree(path)))


@cache
def dotted(path: Path) -> tuple[str, ...]:
    """What a file writes with a dot: ``torch.distributed.barrier``."""
    return tuple(ast.unparse(node) for node in nodes(path) if isinstance(node, ast.Attribute))


@cache
def imports(path: Path) -> tuple[Import, ...]:
    """What a file imports, at the top or inside functions, but not what it imports for type checkers."""
    skipped = {
        id(inner)
        for node in nodes(path)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    late = {id(inner) for node in functions(path) for inner in ast.walk(node)}
    found: list[Import] = []
    for node in nodes(path):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [Import(alias.name, "", node.lineno, id(node) in late) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import in line {node.lineno}"
            found += [Import(node.module or "", alias.name, node.lineno, id(node) in late) for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            by = ast.unparse(node.func)
            if by.split(".")[-1] in ("import_module", "__import__") or by in ("lazy_loader.load", "lazy.load"):
                found.append(Import(str(node.args[0].value), "", node.lineno, id(node) in late))
    return tuple(found)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in nodes(path) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def wing_of(name: str) -> str:
    """The wing of a file of the package: its own name, or its folder's."""
    return name.split("/")[0].removesuffix(".py")


def is_folder(wing: str) -> bool:
    return (PACKAGE / wing / "__init__.py").is_file()


FOLDERS = tuple(wing for wing in (*WINGS, ALONE) if is_folder(wing))


@cache
def handed_on(wing: str) -> dict[str, str]:
    """The public names of a wing, each with the file of the wing that it is from ("" if that is not said)."""
    stub = PACKAGE / wing / "__init__.pyi"
    if stub.is_file():
        assert all(isinstance(node, ast.ImportFrom) and node.level == 1 for node in tree(stub).body), stub
        lines = [node for node in tree(stub).body if isinstance(node, ast.ImportFrom)]
        return {alias.asname or alias.name: node.module or "" for node in lines for alias in node.names}
    lists = [
        node.value
        for node in tree(PACKAGE / wing / "__init__.py").body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    assert len(lists) == 1, f"{wing}/__init__.py has no list __all__, and there is no stub beside it"
    return dict.fromkeys(ast.literal_eval(lists[0]), "")


def reached(path: Path) -> Iterator[tuple[str, str, int]]:
    """``wing.name`` in the code of a file that imports a wing as a whole: wing, name, line."""
    bound = {
        alias.asname or alias.name: alias.name
        for node in nodes(path)
        if isinstance(node, ast.ImportFrom) and node.module == "igc_dist"
        for alias in node.names
        if alias.name in FOLDERS
    }
    shadowed = {node.arg for node in nodes(path) if isinstance(node, ast.arg)}
    for node in nodes(path):
        if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
            continue
        if node.value.id in bound and node.value.id not in shadowed:
            yield bound[node.value.id], node.attr, node.lineno


# -- the order ---------------------------------------------------------------------------------------------------------


def test_every_file_is_a_wing_or_in_one() -> None:
    assert {wing_of(name) for name in FILES} == {*WINGS, ALONE, "__init__"}


@pytest.mark.parametrize("name", FILES)
def test_imports_point_down(name: str) -> None:
    """`igc_dist/__init__.py` names what others have, and imports nothing until it is asked."""
    mine = wing_of(name)
    for found in imports(PACKAGE / name):
        if found.module.split(".")[0] != "igc_dist":
            continue
        at = f"igc_dist/{name}:{found.line} imports {found.dotted}"
        assert found.wing, f"{at}: the whole package"
        assert mine != "__init__", f"{at} at once"
        assert found.wing in (*WINGS, ALONE), f"{at}: no wing"
        if found.wing == mine:
            continue
        assert ALONE not in (mine, found.wing), f"{at}: the {ALONE} stands alone"
        assert mine not in GROUND or (found.wing == "records" and mine != "records"), f"{at}: the ground floor"
        assert WINGS.index(found.wing) < WINGS.index(mine), f"{at}, which stands above it"


def test_no_two_wings_import_each_other() -> None:
    """Nor is there a longer way round: follows from the order, and is checked without it."""
    below: dict[str, set[str]] = {}
    for name in FILES:
        below.setdefault(wing_of(name), set()).update(
            {found.wing for found in imports(PACKAGE / name)} - {"", wing_of(name)}
        )
    done: set[str] = set()
    while free := {wing for wing in below if wing not in done and below[wing] <= done}:
        done |= free
    circle = {wing: sorted(below[wing] - done) for wing in below if wing not in done}
    assert not circle, circle


def test_a_family_knows_no_member_of_another() -> None:
    """Attributors and statistics do not know each other: any attributor goes with any statistic."""
    for name in FILES:
        for one, other in (("attributors", "statistics"), ("statistics", "attributors")):
            if wing_of(name) == one:
                assert not [found for found in imports(PACKAGE / name) if found.wing == other], name


# -- what wings hand on ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_wing_is_entered_by_its_door(name: str) -> None:
    """Outside a wing there are only the names that its `__init__` hands on."""
    mine, path, wrong = wing_of(name), PACKAGE / name, []
    for found in imports(path):
        if found.wing not in FOLDERS or found.wing == mine or found.module == "igc_dist":
            continue
        if found.module != f"igc_dist.{found.wing}" or found.name not in handed_on(found.wing):
            wrong.append(f"{name}:{found.line} imports {found.dotted}")
    for wing, attribute, line in reached(path):
        if wing != mine and attribute not in handed_on(wing):
            wrong.append(f"{name}:{line} reaches for {wing}.{attribute}")
    assert not wrong, f"not handed on: {wrong}"


def test_the_package_hands_on_what_wings_hand_on() -> None:
    wrong = [
        f"{node.module}.{alias.name}"
        for node in tree(PACKAGE / "__init__.pyi").body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if "." in node.module or (is_folder(node.module) and alias.name not in handed_on(node.module))
    ]
    assert not wrong, f"igc_dist/__init__.pyi reaches into wings for {wrong}"


def test_tests_enter_by_the_door() -> None:
    """A name that a wing hands on is imported from the wing, by every test. What it does not hand on is for its own
    tests and those of the laws; others stand in `FROM_FILES`."""
    wrong, used = [], set()
    for name in TEST_FILES:
        folder = name.split("/")[0]
        for found in imports(TESTS / name):
            if found.wing not in FOLDERS or found.module == "igc_dist" or not found.name:
                continue
            names, inside = handed_on(found.wing), found.module.removeprefix(f"igc_dist.{found.wing}").strip(".")
            if not inside and found.name in names:
                continue
            if inside and found.name in names and names[found.name] in ("", inside):
                wrong.append(f"{name}:{found.line} imports {found.dotted}: the wing hands it on")
            elif (name, found.dotted) in FROM_FILES:
                used.add((name, found.dotted))
            elif folder not in (found.wing, "laws", "attributors"):
                wrong.append(f"{name}:{found.line} imports {found.dotted}: the wing does not hand it on")
    assert not wrong, wrong
    assert used == {*FROM_FILES}, f"no longer there: {sorted({*FROM_FILES} - used)}"


def may_import(wing: str) -> set[str]:
    """The wings that the sentence "May import: ..." of a wing allows."""
    said = ast.get_docstring(tree(PACKAGE / wing / "__init__.py")) or ""
    sentence = re.search(r"\bMay import: ([^.]+)\.", said)
    assert sentence, f'igc_dist/{wing}/__init__.py does not say "May import: ..."'
    assert said[: sentence.start()].strip(), f"igc_dist/{wing}/__init__.py does not say what the wing is for"
    words = set(re.findall(r"\w+", sentence[1]))
    named = words & {*WINGS}
    assert named or words & {"nothing", "all"}, f"{wing}: {sentence[0]!r} names no wing"
    if "below" in words or "all" in words:
        top = max((WINGS.index(other) for other in named), default=WINGS.index(wing) - 1)
        named |= {*WINGS[: top + 1]}
    return named


@pytest.mark.parametrize("wing", FOLDERS)
def test_a_wing_says_what_it_may_import(wing: str) -> None:
    """And imports no other: the sentence is for people, so it has to be true."""
    allowed = may_import(wing)
    assert wing == ALONE or {*allowed} <= {*WINGS[: WINGS.index(wing)]}, f"{wing} may not import {allowed}"
    others = {
        (found.wing, name) for name in FILES if wing_of(name) == wing for found in imports(PACKAGE / name) if found.wing
    }
    wrong = sorted((other, name) for other, name in others if other not in (wing, *allowed))
    assert not wrong, f"{wing} says that it may import {sorted(allowed)}, but does import {wrong}"


@pytest.mark.parametrize("wing", FOLDERS)
def test_what_a_wing_hands_on_is_there(wing: str) -> None:
    module = importlib.import_module(f"igc_dist.{wing}")
    assert {*module.__all__} == {*handed_on(wing)}
    for name in handed_on(wing):
        assert not name.startswith("_"), f"{wing} hands on {name}"
        assert getattr(module, name) is not None, f"{wing} hands on {name}"


# -- doors of heavy dependencies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
def test_a_heavy_dependency_has_one_door(door: str) -> None:
    allowed = {*DOORS[door]}
    through = {name for name in FILES for found in imports(PACKAGE / name) if f"{found.dotted}.".startswith(f"{door}.")}
    through |= {name for name in FILES for said in dotted(PACKAGE / name) if f"{said}.".startswith(f"{door}.")}
    wrong = sorted(name for name in through if wing_of(name) not in allowed)
    assert not wrong, f"{wrong} reach for {door}"
    assert through or not allowed or door == "torch.func", f"nobody takes the door to {door}"


def test_ranks_exchange_no_pickles() -> None:
    """Whoever reaches a rank's port could run code there: values travel as JSON, arrays as safetensors."""
    wrong = {
        f"{name}:{node.lineno} {found}"
        for name in FILES
        for node in nodes(PACKAGE / name)
        if (found := getattr(node, "attr", getattr(node, "id", getattr(node, "name", "")))) in PICKLED
    }
    assert not wrong, wrong
    assert all(hasattr(torch.distributed, name) for name in PICKLED), "torch has them under other names"
    theirs = {name for name in dir(torch.distributed) if name.endswith(("_object", "_object_list"))}
    assert theirs <= PICKLED, f"torch has more of them: {theirs - PICKLED}"


def test_autograd_is_in_the_model_only() -> None:
    names = {
        name
        for name in FILES
        for node in nodes(PACKAGE / name)
        if (isinstance(node, ast.Attribute) and node.attr in AUTOGRAD)
        or (isinstance(node, ast.Name) and node.id in AUTOGRAD)
    }
    training = {f"demo/{name}.py" for name in ("train", "train_network", "train_scene_nets")}
    wrong = {name for name in names if wing_of(name) != "model"} - training
    assert not wrong, f"{sorted(wrong)} reach for autograd"
    assert names, "nobody does"


def test_late_imports_have_a_reason() -> None:
    late = {
        (name, found.dotted if found.module == "igc_dist" else found.module): found.line
        for name in FILES
        for found in imports(PACKAGE / name)
        if found.late
    }
    new = sorted(f"{name}:{line} {module}" for (name, module), line in late.items() if (name, module) not in LATE)
    assert not new, f"imported inside functions without a reason in LATE: {new}"
    assert {*LATE} <= {*late}, f"no longer there: {sorted({*LATE} - {*late})}"
    assert all(len(reason) > 20 for reason in LATE.values())


# -- size and text -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_files_stay_readable(name: str) -> None:
    """A file that outgrows a few screens asks for a new noun; and no drawer for odds and ends."""
    assert not {"utils", "helpers", "common", "misc"} & {*Path(name).with_suffix("").parts}
    assert ast.get_docstring(tree(PACKAGE / name)), f"{name} does not say what it is"
    lines = len((PACKAGE / name).read_text().splitlines())
    assert lines <= LONGEST_FILE, f"igc_dist/{name} has {lines} lines"


def test_functions_are_short() -> None:
    """A function of more than a screen does several things. The docstring does not count, nor does a long signature
    where one is allowed."""
    wrong = []
    for name in FILES:
        for node in functions(PACKAGE / name):
            first = node.body[0]
            documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            start = first.lineno if signature_is_free(name, node) else node.lineno
            lines = (node.end_lineno or 0) - start + 1
            lines -= (first.end_lineno or 0) - first.lineno + 1 if documented else 0
            if lines > LONGEST_FUNCTION:
                wrong.append(f"igc_dist/{name}:{node.lineno} {node.name} has {lines} lines")
    assert not wrong, wrong


def test_functions_take_few_arguments() -> None:
    """More that travel together are an object that is missing. `self` does not count."""
    wrong = []
    for name in FILES:
        for node in functions(PACKAGE / name):
            its = node.args
            every = [*its.posonlyargs, *its.args, *its.kwonlyargs, its.vararg, its.kwarg]
            number = sum(arg is not None and arg.arg not in ("self", "cls") for arg in every)
            if number > MOST_ARGUMENTS and not signature_is_free(name, node):
                wrong.append(f"igc_dist/{name}:{node.lineno} {node.name} takes {number}")
    assert not wrong, wrong


def signature_is_free(name: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Signatures of other people's packages, and the two functions that have a keyword for everything."""
    return wing_of(name) == "compat" or (name, node.name) in (("api.py", "attribute"), ("metrics/scoring.py", "score"))


@cache
def texts() -> dict[str, str]:
    """Every text file of the repository, by its path."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    chosen = [name for name in names if Path(name).suffix in TEXT or Path(name).name in ("Makefile", "run")]
    return {name: (ROOT / name).read_text() for name in chosen if (ROOT / name).is_file()}


def leftovers(text: str) -> Iterator[tuple[int, str]]:
    """Where a text speaks of a module that is gone: its line, and what it says. A backslash may stand before a dot, as
    in a regular expression."""
    import igc_dist

    called = "|".join(name for name in GONE if name in igc_dist.__all__)  # igc_dist.plan(...), not igc_dist.plan.Plan
    gone, files = "|".join(name for name in GONE if name not in igc_dist.__all__), "|".join((*GONE, *MOVED))
    patterns = [
        rf"\bigc_dist\\?\.(?:{gone})\b",
        rf"\bigc_dist/(?:{files})\.py\b",
        rf"\bfrom igc_dist import (?:[\w, ]*|\([^)]*)\b(?:{gone})\b",
    ]
    patterns += [rf"\bigc_dist\\?\.(?:{called})(?:\\?\.\w| import )"] if called else []
    for pattern in patterns:
        for found in re.finditer(pattern, text):
            yield text.count("\n", 0, found.start()) + 1, found[0]


def test_no_leftovers_speak_of_modules_that_are_gone() -> None:
    """Neither the code, nor tests, documents, configurations or scripts."""
    exempt = (LABELS, Path(__file__).relative_to(ROOT).as_posix())
    wrong = [
        f"{name}:{line}: {said}"
        for name, text in texts().items()
        if name not in exempt
        for line, said in leftovers(text)
    ]
    assert not wrong, wrong
    assert len(texts()) > 300


def test_leftovers_are_found() -> None:
    said = (
        "`igc_dist.engine.Engine`, igc_dist/store.py\nfrom igc_dist import predict, store\n"
        "from igc_dist import (\n    config,\n    spec,\n)\nr'igc_dist\\.adapters\\.Cosine'\n"
        "_target_: igc_dist.plan.Plan\n"
    )
    found = ["igc_dist.engine", "igc_dist/store.py", "from igc_dist import predict", "igc_dist\\.adapters"]
    assert {*found} <= {text for _, text in leftovers(said)}
    assert {line for line, _ in leftovers(said)} == {1, 2, 3, 7, 8}
    kept = "igc_dist.store.Store, igc_dist.results, from igc_dist import store\nfrom igc_dist.planning import Plan\n"
    kept += "from igc_dist import data as sources\nnumber, plan = 1, 2\n"
    assert not [*leftovers(kept + "igc_dist/store/store.py, igc_dist.watching, igc_dist.upkeep.merge, my/plan.py")]


def test_files_that_are_spoken_of_are_there() -> None:
    """A path of ours in a text, or the name of a Python file in backticks, is that of a file of the repository; but for
    files of the reader's, which begin with "my"."""
    parts = (PACKAGE, TESTS, ROOT / "docs")
    files = {f"/{path.relative_to(ROOT).as_posix()}" for part in parts for path in part.rglob("*.py")}
    wrong = []
    for name, text in texts().items():
        if name == Path(__file__).relative_to(ROOT).as_posix():
            continue
        for said in re.finditer(r"\b(?:igc_dist|tests)/[\w/]+\.py\b|`[\w/]+\.py`", text):
            path = f"/{said[0].strip('`')}"
            if not (Path(path).name.startswith("my") or any(file.endswith(path) for file in files)):
                wrong.append(f"{name}:{text.count(chr(10), 0, said.start()) + 1}: {said[0]}")
    assert not wrong, wrong


# -- the package itself ------------------------------------------------------------------------------------------------


def test_the_package_imports_at_once() -> None:
    """Without a warning, and without torch, so that `igc-dist --help` is quick; its public names come when they are
    asked for."""
    code = (
        "import sys, igc_dist\n"
        "heavy = {'torch', 'lightning', 'zarr', 'hydra', 'numpy', 'xarray'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert {'Budget', 'Quadrature', 'Targets', 'attribute', 'baselines', 'features', 'open'} <= "
        "set(igc_dist.__all__)\n"
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
    from igc_dist.passes import centre_of, scored

    wanted = torch.zeros(3, 2, dtype=torch.float64)
    assert scored(torch.zeros(3, 2), wanted).shape == (3, 2)
    for outputs in (torch.zeros(3, 4), torch.zeros(2, 2), torch.zeros(3, 2, dtype=torch.int64), [[0.0, 0.0]]):
        with pytest.raises(TypeCheckError, match=r"igc_dist\.passes\.predict\.scored"):
            scored(outputs, wanted)
    with pytest.raises(TypeCheckError):
        centre_of(np.zeros((4, 2, 5)))
