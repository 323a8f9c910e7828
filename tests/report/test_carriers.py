"""Samples that carry an output, and strategies, on a page: beside their own numbers, marked, and within a budget."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
import xarray as xr

import igc_dist
from igc_dist.report import Beside, gather, keep_thumbnails, write_report
from igc_dist.report.carriers import gap_of
from igc_dist.report.evidence import EACH, EXAMPLES, MOST
from igc_dist.report.pictures import SIDE, SPACE, UNKNOWN, as_bytes, framed, jpeg, strip
from igc_dist.results import Grouping, samples_in, strategies
from tests.report.test_report import SCRIPT, Page

N, WRONG, TWIN, LEFT, RIGHT = 120, 75, (80, 100), range(40), range(40, 70)


class Either(torch.nn.Module):
    """The class is seen by a mark at the left or at the right of an image of 4 x 6: two strategies."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = torch.relu(x[:, 0, :, :2]).sum((1, 2)), torch.relu(x[:, 0, :, 4:]).sum((1, 2))
        return torch.stack([left + right, 4 - left - right], 1)


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, torch.Tensor]:
    """A third of the samples has the mark at the left, a quarter at the right; one has it and another label, and two
    of the rest are the same."""
    x = 0.05 * torch.randn(N, 1, 4, 6, generator=torch.Generator().manual_seed(0)).abs()
    x[: len(LEFT), ..., :2] += 1.0
    x[len(LEFT) : RIGHT.stop, ..., 4:] += 1.0
    x[WRONG] += 1.0
    x[TWIN[1]] = x[TWIN[0]]
    return x, torch.eye(2)[(torch.arange(N) >= RIGHT.stop).long()]


@pytest.fixture(scope="module")
def tree(data: tuple[torch.Tensor, torch.Tensor]) -> xr.DataTree:
    return igc_dist.attribute(
        Either(), data, target=igc_dist.Targets(names=["1", SCRIPT]), n_steps=2, n_folds=4, threads=1, samples=True
    )


def rows_below(page: Page, head: str) -> list[list[str]]:
    """The rows of each table whose head has this cell."""
    found, inside = [], False
    for row in page.rows:
        heads = row and all(cell and not cell[0].isdigit() for cell in row[1:3])
        inside = head in row if heads and (head in row or "output" in row or "sample" in row) else inside
        found += [row] if inside and head not in row else []
    return found


def test_samples_are_beside_their_own_numbers(tree: xr.DataTree, tmp_path: Path) -> None:
    """In the order of the answer, for and against; the label that the model contradicts and the two that are the same
    are marked; names are text."""
    text = write_report(tree, tmp_path).read_text(encoding="utf-8")
    page = Page(text)
    rows = [row for row in rows_below(page, "note") if row[0] in ("for", "against")]
    wanted = [row for row in samples_in(tree.igc.ask.influence(most=EACH)) if row["rank"] <= EACH]
    assert [(row[0], int(row[1])) for row in rows] == [(each["side"], each["sample"]) for each in wanted]
    for row, each in zip(rows, wanted, strict=True):
        assert row[2] == f"{100 * each['share']:+.1f} %"
        assert row[4] == ("1" if each["sample"] < RIGHT.stop else SCRIPT) == each["label"]
        assert float(row[5]) == pytest.approx(each["prediction"], rel=1e-3)
        assert ("target may be wrong" in row[-1]) == each["candidate"]
        assert (f"same targets and predictions as sample {each['twin']}" in row[-1]) == bool(each["twins"])
    assert {int(row[1]) for row in rows if "may be wrong" in row[-1]} == {WRONG}
    assert text.count("<script") == 2  # the page's own
    assert f"{SCRIPT}: " in page.text


def test_strategies_are_beside_their_maps_and_examples(
    tree: xr.DataTree, data: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    page = Page(tree.igc.report(tmp_path, data=data).read_text(encoding="utf-8"))
    rows = rows_below(page, "mean map")
    assert [row[0] for row in rows[:2]] == ["40", "30"]
    examples = strategies(tree, ["1"], how=Grouping(most=MOST, examples=EXAMPLES))["example"].values[0]
    for row, its, where in zip(rows, examples, (LEFT, RIGHT), strict=False):
        assert row[3] == "".join(map(str, its))
        assert {*its.tolist()} <= {*where}
    assert "output 1: 2 clusters: the gap after eigenvalue 2" in page.text
    pictures = [str(attrs["alt"]) for tag, attrs in page.tags if tag == "img"]
    assert f"overlay of sample {examples[0, 0]} for output 1" in pictures
    assert "mean map of cluster 2 of output 1" in pictures


def test_no_clusters_are_said_to_be_none() -> None:
    its = xr.Dataset({"clusters": 1, "p": 0.5, "eigenvalue": ("eigen", np.zeros(7))})
    assert gap_of(its).startswith("No clusters stand out: the gaps between eigenvalues are like those of data")


def test_what_is_left_out_is_said(tree: xr.DataTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples times outputs, and attributions, beyond the budget; a class with too few samples has no clusters."""
    monkeypatch.setattr("igc_dist.report.evidence.READ", 24 * N - 1)
    found = gather(tree)
    assert found.influence is not None
    assert found.strategies is None
    assert f"Clusters of samples: of {24 * N:,} attributions" in found.left[0]
    monkeypatch.setattr("igc_dist.report.evidence.CELLS", 2 * N - 1)
    page = Page(write_report(tree, tmp_path).read_text(encoding="utf-8"))
    assert f"Left out. Samples that carry an output: of {2 * N:,} predictions" in page.text
    assert not rows_below(page, "note")


def test_results_without_states_have_neither(tree: xr.DataTree) -> None:
    """Nor those where each sample has outputs of its own."""
    del (bare := tree.copy())["shards"]
    assert gather(bare).samples == []
    work = {**tree.attrs["recipe"]["plan"]["work"], "each": 1}
    own = tree.copy()
    own.attrs = {**tree.attrs, "recipe": {**tree.attrs["recipe"], "plan": {"work": work}}}
    assert gather(own).left == []


def test_pictures_are_kept_of_those_that_are_named(tree: xr.DataTree, tmp_path: Path) -> None:
    """Before the first samples, within one number."""
    named = gather(tree).samples
    keep_thumbnails(tree, tmp_path, lambda index: np.ones((len(index), 8, 8)), len(named) + 1, 0, named)
    kept = {int(path.stem) for path in (tmp_path / "thumbnails").glob("[0-9]*.jpg")}
    assert kept == {*named, next(i for i in range(N) if i not in named)}


def test_a_strip_has_sample_map_and_overlay() -> None:
    """The map in the page's colours, enlarged; what is not defined is grey. Large pictures are averaged."""
    values = np.array([[1.0, -1.0], [0.0, np.nan]])
    drawn = strip(framed(as_bytes(np.linspace(0, 1, 16).reshape(4, 4))), values)
    assert drawn is not None
    assert drawn.shape == (SIDE, 3 * SIDE + 2 * SPACE, 3)
    cell = {at: drawn[SIDE * at[0] // 2 + 9, SIDE + SPACE + SIDE * at[1] // 2 + 9].tolist() for at in np.ndindex(2, 2)}
    assert cell[0, 0][0] > cell[0, 0][2]
    assert cell[0, 1][0] < cell[0, 1][2]
    assert min(cell[1, 0]) > 240
    assert cell[1, 1] == [UNKNOWN] * 3
    overlay = drawn[:, -SIDE:].astype(int)
    assert (overlay[9, 9, 0] - overlay[9, 9, 2]) > 40
    assert np.ptp(overlay[-9, 9]) == 0  # no colour where the map is zero
    large = np.zeros((2 * SIDE, 4 * SIDE, 3), np.uint8)
    large[:, ::2] = 200
    assert framed(large).shape == (SIDE // 2, SIDE, 3)
    assert (framed(large) == 100).all()
    assert strip(None, np.zeros(3)) is None
    assert matplotlib.image.imread(io.BytesIO(jpeg(drawn)), format="jpeg").shape == drawn.shape


def test_a_page_takes_the_evidence_that_is_known(tree: xr.DataTree, tmp_path: Path) -> None:
    """A run gathers it once, for its thumbnails and for its page."""
    known = gather(tree, ["1"])
    page = Page(write_report(tree, tmp_path, beside=Beside(evidence=known)).read_text(encoding="utf-8"))
    assert len([row for row in rows_below(page, "note") if row[0] in ("for", "against")]) == len(
        samples_in(tree.igc.ask.influence(["1"], most=EACH))
    )
