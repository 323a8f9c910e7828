"""The page in a browser: headless Chromium, where there is one. A copy of the page gets a second script, which does
what a reader does, and writes down what it sees."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import igc_dist
from igc_dist.report import write_report
from tests.report.test_explorer import outputs_of

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium (apt-get install chromium)"),
]

TOOLS = """
const pick = (id, value) => {
  const control = document.querySelector(id);
  if (control.type === "checkbox") control.checked = value; else control.value = value;
  control.dispatchEvent(new Event("input", {bubbles: true}));
};
const rows = () => [...document.querySelectorAll("#summary-table tbody tr")].map((row) => row.cells[0].textContent);
const press = (key) =>
  document.querySelector("canvas").dispatchEvent(new KeyboardEvent("keydown", {key, cancelable: true}));
const sorts = [...document.querySelectorAll("#summary-table .sort")];
const sort = (name) => sorts.find((button) => button.textContent === name).click();
const text = (id) => document.querySelector(id).textContent;
const pixel = (x, y) => [...document.querySelector("canvas").getContext("2d").getImageData(x, y, 1, 1).data];
"""


def seen(page: Path, actions: str = "", *, window: str = "1200,900") -> dict[str, Any]:
    """What `actions` put into `seen`, the errors of the page, and what it asked for beyond itself."""
    spy = (
        "<script>window.faults = []; window.addEventListener('error', (e) => faults.push(e.message));"
        "window.addEventListener('securitypolicyviolation', (e) => faults.push(e.violatedDirective + e.blockedURI));"
        "console.error = (...words) => faults.push(words.join(' '));</script>"
    )
    driver = (
        f"<script>const seen = {{}};try {{ {TOOLS}{actions} }} catch (e) {{ faults.push(String(e)); }}"
        "seen.faults = faults; seen.requests = performance.getEntriesByType('resource').map((e) => e.name)"
        ".filter((n) => !n.startsWith('data:'));"
        "seen.ready = performance.now();"
        "document.body.append(Object.assign(document.createElement('pre'), {id: 'seen', textContent: "
        "JSON.stringify(seen)}));</script>"
    )
    whole = page.read_text(encoding="utf-8")
    open_policy = re.sub(r"; script-src &#39;.*?&#39;", "; script-src 'unsafe-inline'", whole)
    assert open_policy != whole
    copy = page.with_name("driven.html")
    copy.write_text(open_policy.replace("<main>", spy + "<main>", 1).replace("</body>", driver + "</body>", 1))
    done = subprocess.run(
        [
            str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={window}",
            "--dump-dom", copy.as_uri(),
        ],
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    (found,) = re.findall(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    return json.loads(unescape(found))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 outputs with maps of 4 x 5: cell c of output k is k + 1 where c = k modulo 20, else 0."""
    tree = outputs_of(120)
    return write_report(tree, tmp_path_factory.mktemp("page"), 4)


def test_nothing_fails_and_nothing_is_asked_for(page: Path) -> None:
    """And the page's own policy allows its own script: with it the table has pages, too."""
    found = seen(page)
    assert found["faults"] == []
    assert found["requests"] == []
    done = subprocess.run(
        [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    assert "120 of 120 outputs, page 1 of 3" in done.stdout


def test_outputs_are_found_sorted_and_turned_over(page: Path) -> None:
    found = seen(
        page,
        """
        seen.first = rows().length; document.querySelector("#next").click(); seen.second = rows()[0];
        pick("#search", "name 11"); seen.found = rows();
        pick("#search", ""); sort("correlation"); seen.most = rows()[0]; sort("correlation"); seen.least = rows()[0];
        pick("#filter", "significant"); seen.significant = text("#shown");
        """,
    )
    assert found["first"] == 50
    assert found["second"] == "name 50"
    assert found["found"] == ["name 11", *(f"name {k}" for k in range(110, 120))]
    assert (found["most"], found["least"]) == ("name 119", "name 0")
    assert "60 of 120 outputs" in found["significant"]
    assert found["faults"] == []


def test_a_map_is_chosen_and_read(page: Path) -> None:
    """By a click, by the pointer and by the keyboard: output k has k + 1 in cell k modulo 20, with an interval."""
    found = seen(
        page,
        """
        pick("#search", "name 27"); document.querySelector("#summary-table .choose").click();
        const canvas = document.querySelector("canvas"), box = canvas.getBoundingClientRect();
        const point = (column, row) => canvas.dispatchEvent(new MouseEvent("mousemove", {
          clientX: box.left + (column + 0.5) * box.width / 5, clientY: box.top + (row + 0.5) * box.height / 4}));
        point(2, 1); seen.pointed = text("#told"); press("ArrowRight"); seen.right = text("#told");
        press("ArrowDown"); seen.down = text("#told");
        const side = canvas.width / 5; seen.hot = pixel(2.5 * side, 1.5 * side);
        seen.cold = pixel(0.5 * side, 3.5 * side);
        pick("#scale", "all"); point(0, 0); seen.pale = pixel(2.5 * side, 1.5 * side); seen.all = text("#told");
        pick("#sure", true); seen.label = canvas.getAttribute("aria-label");
        """,
    )
    assert found["pointed"].startswith("name 27, row 1, column 2: 28.0 (95 %: ")
    assert found["right"].startswith("name 27, row 1, column 3: 0")
    assert found["down"].startswith("name 27, row 2, column 3: 0")
    assert found["hot"][:3] == [178, 24, 43]
    assert found["cold"][:3] == [255, 255, 255]
    share = 28 / 120
    np.testing.assert_allclose(found["pale"][:3], [255 + (c - 255) * share for c in (178, 24, 43)], atol=1)
    assert "-120 (blue) to 120 (red)" in found["all"]
    assert "arrow keys" in found["label"]
    assert found["faults"] == []


@pytest.mark.parametrize("outputs", [1000])
def test_a_page_of_a_thousand_outputs_opens_soon(outputs: int, tmp_path: Path) -> None:
    """Under 8 MB; the table of all, and as many maps as the page holds. On a quiet machine in less than 2 s, of which
    the script takes a fifth; other tests run beside this one."""
    written = write_report(outputs_of(outputs, height=28, width=28), tmp_path)
    assert written.stat().st_size < 8e6
    found = seen(written, 'pick("#output", "900"); seen.told = text("#told");')
    assert found["ready"] < 10_000
    assert found["told"].startswith(f"name 900, row {900 % 784 // 28}, column {900 % 784 % 28}: 901")
    assert found["faults"] == []


def test_vectors_are_bars(tmp_path: Path) -> None:
    """Named features; one below zero is blue."""
    tree = xr.DataTree.from_dict(
        {
            "/": xr.Dataset(
                {"correlation": ("output", [0.5]), "n": ("output", [9])},
                coords={"output": ["only"]},
                attrs={"schema": 5, "status": "complete", "method": "igc"},
            ),
            "/x": xr.Dataset(
                {"igc": (("output", "feature"), [[0.25, -0.5, np.nan]])}, coords={"feature": ["age", "sex", "dose"]}
            ),
        }
    )
    found = seen(
        write_report(tree, tmp_path),
        """
        seen.second = text("#told"); press("ArrowRight"); seen.third = text("#told");
        press("ArrowLeft"); press("ArrowLeft"); seen.first = text("#told");
        seen.up = pixel(20, 100); seen.down = pixel(60, 160);
        """,
    )
    assert found["first"].startswith("only, age: 0.25")
    assert found["second"].startswith("only, sex: -0.500")
    assert found["third"].startswith("only, dose: undefined")
    assert (found["up"][:3], found["down"][:3]) == ([178, 24, 43], [33, 102, 172])
    assert found["faults"] == []


def test_what_differs_is_outlined_and_patches_have_sums(page: Path) -> None:
    """Cell 7 of output 7 alone is above zero: its upper edge is dark, and 2 x 2 cells have its colour as a patch."""
    found = seen(
        page,
        """
        pick("#output", "7");
        seen.edge = pixel(2 * 48 + 24, 47);
        seen.inside = pixel(3 * 48 + 24, 24);
        pick("#outline", false);
        seen.off = pixel(2 * 48 + 24, 47);
        pick("#patches", "2");
        seen.patch = pixel(3 * 48 + 24, 24);
        seen.beyond = pixel(4 * 48 + 24, 24);
        seen.told = text("#told");
        """,
    )
    assert found["faults"] == []
    assert found["edge"] == [17, 17, 17, 255]
    assert found["inside"] == found["off"] == found["beyond"] == [255, 255, 255, 255]
    assert found["patch"] == [178, 24, 43, 255]
    assert "in a patch of 2 x 2 whose sum is 8.00" in found["told"]


def test_half_widths_of_intervals_are_on_demand(page: Path) -> None:
    """Output 7 has 8 in cell 7 with a standard error of 0.8, and no error elsewhere: t of five degrees is 2.57."""
    found = seen(
        page,
        """
        pick("#output", "7"); pick("#outline", false);
        seen.before = [pixel(2 * 48 + 24, 48 + 20), pixel(24, 20)]; seen.scale = text("#told").split("Scale")[1];
        seen.legend = text("#legend");
        pick("#shows", "width"); seen.wide_legend = text("#legend");
        seen.widths = [pixel(2 * 48 + 24, 48 + 20), pixel(24, 20)]; seen.wide = text("#told").split("Scale")[1];
        """,
    )
    assert found["faults"] == []
    assert found["before"][0][:3] != found["before"][1][:3]
    assert [each[:3] for each in found["widths"]] == [[153, 52, 4], [255, 255, 255]]
    assert "(blue)" in found["scale"]
    assert found["wide"].startswith(": 0 to 2.06")
    assert found["legend"] == "-8.00  8.00 (IGC, part of the correlation)"
    assert found["wide_legend"] == "0  2.06 (half of the 95 % interval of IGC, part of the correlation)"


def test_samples_and_clusters_are_folded_and_printed_whole(tmp_path: Path) -> None:
    """Only the first output is open; in print all are, and no picture is wider than its cell."""
    torch.manual_seed(0)
    x, label = torch.rand(90, 1, 8, 8), torch.arange(90) % 3
    data = x, torch.eye(3)[label]
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    tree = igc_dist.attribute(net, data, n_steps=2, n_folds=3, threads=1, samples=True)
    written = tree.igc.report(tmp_path, data=data)
    found = seen(
        written,
        """
        const all = [...document.querySelectorAll("#carriers ~ details")];
        seen.open = all.map((each) => each.open);
        all[1].querySelector("summary").click(); seen.clicked = all[1].open;
        seen.broken = [...document.images].filter((each) => each.complete && !each.naturalWidth).length;
        """,
    )
    assert found["faults"] == []
    assert found["requests"] == []
    assert found["open"][:3] == [True, False, False]
    assert found["clicked"]
    assert found["broken"] == 0
    pdf = tmp_path / "page.pdf"
    subprocess.run(
        [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", f"--print-to-pdf={pdf}", written.as_uri()],
        capture_output=True, timeout=100, check=True,
    )  # fmt: skip
    if (reader := shutil.which("pdftotext")) is not None:
        text = subprocess.run([reader, "-layout", str(pdf), "-"], capture_output=True, text=True, check=True).stdout
        assert text.count("against") > 3 * 4  # four of each output
