"""Each notebook of the site runs as it stands, shows what it promises, and is kept without outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands import ROOT

NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


def cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def test_they_are_in_the_navigation_and_without_outputs() -> None:
    """The site executes them when it is built, so what it shows is never older than the code."""
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert [path.stem for path in NOTEBOOKS] == ["digits", "photographs", "regression"]
    for path in NOTEBOOKS:
        assert f"notebooks/{path.name}" in navigation
        assert [cell for cell in cells(path) if cell["outputs"] or cell["execution_count"]] == []
        source = "".join(line for cell in cells(path) for line in cell["source"])
        assert [word for word in (".igc.plot.", ".igc.summary(", ".igc.report(") if word not in source] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    """From an empty folder; it draws pictures, and writes its page."""
    nbformat, nbclient = (pytest.importorskip(name, reason="needs nbclient") for name in ("nbformat", "nbclient"))
    pytest.importorskip("ipykernel", reason="needs ipykernel")
    book = nbformat.read(path, 4)
    client = nbclient.NotebookClient(book, timeout=100, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) >= 2
    assert [output for output in outputs if output.get("name") == "stderr"] == []
    assert list(tmp_path.glob("*_page/report.html"))
