"""What axe-core finds on every kind of page, in both colour schemes. It is not part of this repository: `npm install
--no-save axe-core` puts it where this looks, or IGC_AXE names its axe.min.js."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import igc_dist
from igc_dist.report import joined, write_report, write_study, write_sweep
from tests.commands import ROOT
from tests.report.test_browser import BROWSER
from tests.report.test_explorer import outputs_of
from tests.report.test_features import segmented
from tests.report.test_report import store
from tests.report.test_study import run

AXE = Path(os.environ.get("IGC_AXE", ROOT / "node_modules/axe-core/axe.min.js"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium (apt-get install chromium)"),
    pytest.mark.skipif(not AXE.exists(), reason="needs axe-core (npm install --no-save axe-core), or IGC_AXE"),
]

RUN = """<script>
document.querySelectorAll("details").forEach((each) => { each.open = true; });
axe.run(document, {resultTypes: ["violations"]}).then((found) => {
  const said = found.violations.map((each) => ({id: each.id, impact: each.impact, help: each.help,
    where: each.nodes.slice(0, 3).map((node) => node.html.slice(0, 200) + " | " + (node.failureSummary || ""))}));
  document.body.append(Object.assign(document.createElement("pre"), {id: "axe", textContent: JSON.stringify(said)}));
});
</script>"""


def photographs(folder: Path) -> Path:
    """A page with pictures, their maps, clusters and segments of samples."""
    torch.manual_seed(0)
    x, label = torch.rand(120, 3, 12, 12), torch.arange(120) % 3
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(432, 3))
    data = x, torch.eye(3)[label]
    tree = igc_dist.attribute(net, data, n_steps=2, n_folds=4, threads=1, samples=True, slices=np.arange(120) % 2)
    return tree.igc.report(folder, data=data)


PAGES: dict[str, Callable[[Path], Path]] = {
    "demo": lambda folder: write_report(store(), folder),
    "photographs": photographs,
    "segments": lambda folder: write_report(segmented(), folder),
    "thousand": lambda folder: write_report(outputs_of(1000, height=12, width=12), folder),
    "sweep": lambda folder: write_sweep({"one": store(0), "two": store(1)}, folder),
    "study": lambda folder: write_study(joined({name: run(name, 2) for name in ("ig", "idgi")}, "ig"), folder),
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in PAGES.items()}


def found_by_axe(page: Path, scheme: int) -> list[dict[str, Any]]:
    """The violations on a page whose reader prefers a scheme: 0 dark, 1 light."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    shutil.copy(AXE, page.with_name("axe.min.js"))
    copy = page.with_name("audited.html")
    copy.write_text(text.replace("</body>", f'<script src="axe.min.js"></script>{RUN}</body>', 1), encoding="utf-8")
    done = subprocess.run(
        [
            str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900",
            f"--blink-settings=preferredColorScheme={scheme}", "--virtual-time-budget=60000", "--dump-dom",
            copy.as_uri(),
        ],
        capture_output=True, text=True, timeout=150, check=True,
    )  # fmt: skip
    (found,) = re.findall(r'<pre id="axe">(.*?)</pre>', done.stdout, re.DOTALL)
    return list(json.loads(unescape(found)))


@pytest.mark.parametrize("scheme", [0, 1])
@pytest.mark.parametrize("kind", list(PAGES))
def test_nothing_is_found(pages: dict[str, Path], kind: str, scheme: int) -> None:
    """Neither serious nor moderate."""
    assert found_by_axe(pages[kind], scheme) == []


def test_what_is_wrong_is_found(pages: dict[str, Path], tmp_path: Path) -> None:
    """A picture without words, and grey on grey in the dark scheme alone."""
    text = pages["sweep"].read_text(encoding="utf-8")
    dark = "<style>@media (prefers-color-scheme: dark) { p { color: #333; } }</style>"
    broken = tmp_path / "broken.html"
    broken.write_text(re.sub(' alt="[^"]*"', "", text).replace("</head>", f"{dark}</head>"), encoding="utf-8")
    found = [{each["id"] for each in found_by_axe(broken, scheme)} for scheme in (0, 1)]
    assert found == [{"image-alt", "color-contrast"}, {"image-alt"}]
