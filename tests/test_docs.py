"""What the pages say is there: files, names of the package, the picture of the wings; and their skeletons run."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import igc_dist
from igc_dist.baselines import Surroundings
from igc_dist.data import ensure
from tests.benchmarks.gpu.table import table
from tests.commands import ROOT
from tests.ranks import Net, Rows

PACKAGE = ROOT / "igc_dist"
TABLES = ("refusals.md", "settings.md")
"""Pages that the package writes, whose rows are as long as they are."""
SITE = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md") if path.name not in TABLES)
NAMES = ("README.md", "SECURITY.md", "CONTRIBUTING.md", *SITE)
PAGES = {name: (ROOT / name).read_text() for name in NAMES}
ARCHITECTURE = PAGES["docs/architecture.md"]
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", ARCHITECTURE, re.DOTALL | re.MULTILINE)
SKELETONS = [text for language, text in BLOCKS if language == "python"]
PICTURE = next(text for language, text in BLOCKS if not language)
FEATURES = 5


def found(pattern: str) -> list[tuple[str, str]]:
    """What a pattern finds in each page, once."""
    return sorted({(page, word) for page, text in PAGES.items() for word in re.findall(pattern, text)})


def test_the_page_of_the_card_has_the_table_of_its_report() -> None:
    report = json.loads((ROOT / "tests/benchmarks/gpu/h200-2026-11-27.json").read_text())
    assert table(report["lines"]) in PAGES["docs/cuda.md"]


FIGURES = re.findall(r'^    "(.+\.png)": ', (ROOT / "docs/figures.py").read_text(), re.MULTILINE)
"""What `docs/figures.py` draws at each build, relative to docs/."""


@pytest.mark.parametrize(("page", "path"), found(r"!\[[^\]]{20,}\]\((\S+)\)"))
def test_a_picture_is_drawn_by_the_build_or_stands_beside_its_command(page: str, path: str) -> None:
    """Or else it may be older than the code. Every picture has an alternative text that says what it shows."""
    assert len(re.findall(r"!\[", PAGES[page])) == len(re.findall(r"!\[[^\]]{20,}\]\(", PAGES[page]))
    if path.removeprefix("docs/") in FIGURES:
        return
    beside = PAGES[page].split(f"]({path})")[1][:400]
    (command,) = re.findall(r"`(igc-dist[^`]*)`", beside)
    for group, choice in re.findall(r"\b(\w+)=(\w+)", command.replace("data.build.n", "")):
        assert group != "experiment" or (ROOT / f"conf/experiment/{choice}.yaml").exists()


@pytest.mark.slow
def test_the_picture_of_the_readme_is_what_the_build_draws(tmp_path: Path) -> None:
    """But for the last bits of other machines and versions of matplotlib."""
    from matplotlib import image

    drawing = importlib.util.spec_from_file_location("docs_figures", ROOT / "docs/figures.py")
    assert drawing
    assert drawing.loader
    module = importlib.util.module_from_spec(drawing)
    drawing.loader.exec_module(module)
    assert [*module.FIGURES] == FIGURES
    kept, drawn = image.imread(ROOT / "docs/audit.png"), image.imread(module.draw("audit.png", tmp_path))
    assert np.abs(kept - drawn).mean() < 0.01


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    said = dict(re.findall(r"^(version|license): (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE))
    assert said == {"version": project["version"], "license": project["license"]}


@pytest.mark.parametrize("page", PAGES)
def test_lines_are_short(page: str) -> None:
    assert [line for line in PAGES[page].splitlines() if len(line) > 120] == []


@pytest.mark.parametrize(
    ("page", "path"), found(r"(?<![\w/.-])((?:igc_dist|tests|conf|docs|launch)/(?:[\w.-]*\w)?(?:/[\w.-]*\w)*)")
)
def test_a_file_is_there(page: str, path: str) -> None:
    """Wherever a page names it: in prose, in tables, in code, in the target of a link."""
    assert (ROOT / path).exists(), f"{page} names {path}"


@pytest.mark.parametrize(("page", "name"), found(r"\bigc_dist(?:\.[A-Za-z_]\w*)+"))
def test_a_name_of_the_package_is_there(page: str, name: str) -> None:
    thing: Any = igc_dist
    at, *parts = name.split(".")
    for part in parts:
        at = f"{at}.{part}"
        if not hasattr(thing, part):
            importlib.import_module(at)
        thing = getattr(thing, part)


@pytest.mark.parametrize(("page", "said"), found(r"`\w+` in\s+`igc_dist/[\w/]+\.py`"))
def test_a_definition_is_where_a_page_says(page: str, said: str) -> None:
    name, path = re.findall(r"`([^`]+)`", said)
    top = ast.parse((ROOT / path).read_text()).body
    assert name in {getattr(node, "name", None) for node in top}, f"{page} looks for {name} in {path}"


def test_the_methods_of_run_are_there() -> None:
    """And `class Run` has a method for each clause of the sentence."""
    said = ARCHITECTURE.split("`class Run` in `igc_dist/run.py` has a method for each clause:")[1].split("\n\n")[0]
    body = ast.parse((PACKAGE / "run.py").read_text()).body
    (run,) = (node for node in body if isinstance(node, ast.ClassDef) and node.name == "Run")
    methods = {node.name for node in run.body if isinstance(node, ast.FunctionDef)}
    assert len(re.findall(r"`(\w+)`", said)) == 5
    assert {*re.findall(r"`(\w+)`", said)} <= methods


# -- the picture of the wings


@cache
def lines_of_the_picture() -> dict[str, int]:
    """The line of each wing or file; what stands to the right says what it is for."""
    return {
        wing.rstrip("/").removesuffix(".py"): number
        for number, line in enumerate(PICTURE.splitlines())
        for wing in re.findall(r"\w+(?:/|\.py)", line[:60])
    }


def test_the_picture_is_whole() -> None:
    """Every wing and every file beside them, but the door and the demo, which the page names below it."""
    there = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert {*lines_of_the_picture()} == there - {"__init__", "__main__", "demo"}


def imports(path: Path) -> Iterator[str]:
    """Wings that a file imports, for type checkers too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "igc_dist":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("igc_dist."):
            yield str(node.module).split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("igc_dist."))


@pytest.mark.parametrize("wing", lines_of_the_picture())
def test_arrows_of_the_picture_point_down(wing: str) -> None:
    """A wing imports what stands on a lower line, nothing above it and nothing beside it."""
    line = lines_of_the_picture()
    files = [PACKAGE / f"{wing}.py"] if (PACKAGE / f"{wing}.py").exists() else sorted((PACKAGE / wing).rglob("*.py"))
    assert files
    others = {(path.name, other) for path in files for other in imports(path) if other != wing}
    assert {(name, other) for name, other in others if line[other] <= line[wing]} == set()


# -- the skeletons


def skeleton(name: str) -> Any:
    """What a skeleton defines under this name."""
    (text,) = (text for text in SKELETONS if re.search(rf"^(class|def) {name}\b", text, re.MULTILINE))
    space: dict[str, Any] = {"__name__": f"skeleton_{name}"}
    exec(compile(text, f"docs/architecture.md, {name}", "exec", dont_inherit=True), space)
    return space[name]


def test_every_skeleton_is_used_here() -> None:
    """And none is more than a screen."""
    names = [re.findall(r"^(?:class|def) (\w+)", text, re.MULTILINE)[-1] for text in SKELETONS]
    assert names == ["HalfWay", "RootMeanSquare", "Lines", "Kept", "Uniform"]
    assert all(10 <= len([line for line in text.splitlines() if line.strip()]) <= 30 for text in SKELETONS)


def run(net: Any, **settings: Any) -> Any:
    return igc_dist.attribute(net, Rows(9), n_folds=3, threads=1, **settings)


def test_the_attributor_runs() -> None:
    """It is Integrated Gradients with one node, half way; and its statistic gets its name."""
    x0 = torch.randn(3, FEATURES, generator=torch.Generator().manual_seed(0))
    mine = run(Net(), attributor=skeleton("HalfWay")(), statistics=["correlation"], baseline=x0)
    same = run(Net(), method="igc", n_steps=1, baseline=x0)
    np.testing.assert_allclose(mine["x/half_way_correlation"], same["x/igc"], rtol=1e-5, atol=1e-6)


def test_the_statistic_runs() -> None:
    tree = run(Net(), method="ig", n_steps=2, statistics=[skeleton("RootMeanSquare")()])
    rows = tree["samples/x/attribution"].values.astype(float)
    np.testing.assert_allclose(tree["x/ig_rms"], np.sqrt((rows**2).mean(0)), rtol=1e-5, atol=1e-7)


def test_the_reducer_runs() -> None:
    """The lines of an image, of shape (2, 5)."""
    rows, net = Rows(9, 10), torch.nn.Sequential(torch.nn.Flatten(), Net(10))
    data = torch.utils.data.TensorDataset(rows.x.reshape(-1, 2, 5), rows.y)
    whole = igc_dist.attribute(net, data, n_steps=2, n_folds=3, threads=1)
    mine = igc_dist.attribute(net, data, n_steps=2, n_folds=3, threads=1, reduce=skeleton("Lines")())
    np.testing.assert_allclose(mine["x/igc"], np.asarray(whole["x/igc"]).sum(-1), rtol=1e-5, atol=1e-6)
    groups = skeleton("Lines")().groups((2, 2, 3))
    np.testing.assert_array_equal(groups.reshape(4, 3), np.arange(4)[:, None].repeat(3, 1))


def test_the_metric_runs() -> None:
    """It equals the formula by hand, for any batch size."""
    x = torch.tensor([[1.0, 2.0, 4.0], [3.0, 1.0, 2.0]])
    net, a = torch.nn.Linear(3, 1, bias=False), np.array([[0.0, 1.0, 2.0], [4.0, 0.0, 2.0]])
    torch.nn.init.ones_(net.weight)
    for size in (1, 7):
        found = igc_dist.metrics.score(net, (x, torch.zeros(2)), a, [skeleton("Kept")("logit")], batch_size=size)
        np.testing.assert_allclose(found["kept"], [5 / 7, 4 / 6], rtol=1e-6)


def test_the_baseline_runs() -> None:
    """Between its bounds, addressed by sample and number, and good for a run."""
    source, uniform = ensure(Rows(9)), skeleton("Uniform")(high=2.0, k=3)
    around = Surroundings(source, np.arange(9), 0)
    (whole,) = uniform.draw(source.fetch([4, 7, 1]), range(3), around)
    (alone,) = uniform.draw(source.fetch([7]), range(1, 3), around)
    assert whole.shape == (3, 3, FEATURES)
    assert 0 <= whole.min() < 0.5
    assert 1.5 < whole.max() <= 2
    assert torch.equal(alone[:, 0], whole[1:, 1])
    assert len(whole.flatten().unique()) == whole.numel()
    assert np.isfinite(run(Net(), n_steps=2, baseline=uniform)["x/igc"]).all()
