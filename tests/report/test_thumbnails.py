"""Thumbnails: a store alone shows the pictures of its own run, and none where none are wanted."""

from __future__ import annotations

import io
import json
import re
from functools import partial
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.axes import Axes
from PIL import Image

import igc_dist
from igc_dist.__main__ import main
from igc_dist.report import Beside, Thumbnails, forget_thumbnails, keep_thumbnails, means_of, write_report
from igc_dist.report.overlays import Overlay, draw_overlay
from igc_dist.report.rows import fetched
from igc_dist.report.thumbnails import LEAST, SIDE, jpeg
from tests.commands import command

N, CLASSES = 30, 3
LABEL = np.arange(N) % CLASSES
RAMP = np.linspace(0, 1, 20)[:, None] * np.ones(24)
X = np.stack([np.stack([RAMP * (k == c) + i / N * RAMP.T[0, 0] for c in range(3)]) for i, k in enumerate(LABEL)])
"""Each class is a ramp in a colour of its own."""


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 20 * 24, CLASSES), torch.nn.Softmax(1))
    data = torch.tensor(X, dtype=torch.float32), torch.eye(CLASSES)[torch.tensor(LABEL)]
    return igc_dist.attribute(net, data, method="igc", n_steps=4, n_folds=4, threads=1, samples=True)


def call(*arguments: str | Path) -> None:
    """A command that ends well."""
    with pytest.raises(SystemExit) as left:
        main([*map(str, arguments)])
    assert left.value.code == 0


def fetch(index: list[int]) -> np.ndarray:
    return X[index]


def test_what_is_kept_is_what_was_there(tree: xr.DataTree, tmp_path: Path) -> None:
    """The first samples, each under its own index; others have none, and so have other runs."""
    keep_thumbnails(tree, tmp_path, fetch, 5, 2)
    found = Thumbnails.beside(tree, tmp_path).fetch([4, 0, 5])
    assert found[2] is None
    for i, image in ((4, found[0]), (0, found[1])):
        assert image is not None
        times = image.shape[1] // 20
        np.testing.assert_allclose(image[:, ::times, ::times], X[i] / X[i].max(), atol=0.06)
    other = tree.copy()
    other.attrs = {**tree.attrs, "spec_hash": "another"}
    strange = Thumbnails.beside(other, tmp_path)
    assert strange.fetch([4]) == [None]
    assert strange.means == {}
    keep_thumbnails(tree, tmp_path, fetch, 2, 2)
    assert len([*(tmp_path / "thumbnails").glob("[0-9]*.jpg")]) == 2
    forget_thumbnails(tmp_path)
    assert [*(tmp_path / "thumbnails").iterdir()] == []


def test_means_are_of_the_class(tree: xr.DataTree, tmp_path: Path) -> None:
    """Of labels, the samples whose target is above its mean are those of the class: its colour alone has the ramp."""
    keep_thumbnails(tree, tmp_path, fetch, 0, 32)
    for found, close in ((means_of(tree, fetch, 32), 2.1e-3), (Thumbnails.beside(tree, tmp_path).means, 0.06)):
        assert [*found] == ["0", "1", "2"]
        for k in range(CLASSES):
            mean = found[str(k)]
            whole = X[k == LABEL].mean(0)
            times = mean.image.shape[0] // 20
            wanted = np.moveaxis((whole - whole.min()) / np.ptp(whole), 0, -1)
            np.testing.assert_allclose(mean.image[::times, ::times], wanted, atol=close)
            assert (mean.n, mean.of) == (10, 10)
    assert [*means_of(tree, fetch, 2)] == ["0", "1"]


def test_large_samples_are_read_a_few_at_a_time() -> None:
    """The first one alone, then as many as take 16 MiB, at most 64; and each in its turn."""
    sizes: list[int] = []

    def read(side: int, index: list[int]) -> np.ndarray:
        sizes.append(len(index))
        return np.zeros((len(index), side, side)) + np.array(index)[:, None, None]

    for side, most in ((8, 64), (512, 8), (2048, 1)):
        sizes.clear()
        found = [int(image[0, 0]) for image in fetched(partial(read, side), range(20)) if image is not None]
        assert found == [*range(20)]
        assert sizes[0] == 1
        assert max(sizes) == min(most, 19)
    assert [*fetched(None, [3, 1])] == [None, None]


def test_sizes_are_bounded() -> None:
    """Large pictures are averages of squares; small ones have each pixel as a square."""
    for shape, wanted in (((3, 500, 300), (166, 100)), ((8, 8), (96, 96)), ((1, 100, 100), (100, 100))):
        made = jpeg(np.random.default_rng(0).uniform(size=shape))
        assert matplotlib.image.imread(io.BytesIO(made), format="jpeg").shape == (*wanted, 3)
        assert max(wanted) <= SIDE
        assert min(wanted) >= LEAST


def test_data_that_is_no_picture_has_none(tree: xr.DataTree, tmp_path: Path) -> None:
    """Tables, stacks of channels, samples that cannot be read."""
    for images in (np.ones((N, 7)), np.ones((N, 5, 8, 8)), np.full((N, 3, 8, 8), np.nan), np.ones((N, 3, 3, 8))):
        keep_thumbnails(tree, tmp_path, lambda index, images=images: images[index], 9, 9)
        assert [path.name for path in (tmp_path / "thumbnails").iterdir()] == ["about.json"]


def test_only_jpegs_are_decoded(tree: xr.DataTree, tmp_path: Path) -> None:
    """What lies there may be of others: PostScript would run a program, a link may lead anywhere."""
    keep_thumbnails(tree, tmp_path, fetch, 3, 1)
    Image.new("RGB", (8, 8)).save(tmp_path / "thumbnails/0.jpg", format="bmp")
    (tmp_path / "thumbnails/1.jpg").write_bytes(b"\xff\xd8\xff broken")
    found = Thumbnails.beside(tree, tmp_path).fetch([0, 1, 2])
    assert [image is None for image in found] == [True, True, False]
    for text in ("[]", "{", '{"spec_hash": 1}', json.dumps({"spec_hash": tree.attrs["spec_hash"], "means": [1]})):
        (tmp_path / "thumbnails/about.json").write_text(text)
        assert Thumbnails.beside(tree, tmp_path).fetch([2]) == [None]


def test_a_page_of_the_store_alone(tree: xr.DataTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gallery and the means, from what lies beside the store; the confidence of probabilities is their largest."""
    monkeypatch.setattr("igc_dist.store.results", lambda path: tree)
    keep_thumbnails(tree, tmp_path / "a.run", fetch, 5, 32)
    (tmp_path / "a").mkdir()
    call("report", tmp_path / "a", tmp_path / "page")
    text = (tmp_path / "page/report.html").read_text()
    assert len(re.findall("sample, map and overlay of sample [^:]*: red speaks", text)) == 5
    assert (
        "over the mean of samples whose target lies above its mean, for labels those of the class (10 of each" in text
    )
    assert f"{100 * tree['samples/prediction'].values[0].max():.0f} %</td>" in text
    call("report", tmp_path / "a", tmp_path / "page", "--no-images")
    text = (tmp_path / "page/report.html").read_text()
    assert "overlay of sample" not in text
    assert "over the mean" not in text
    call("export", tmp_path / "a", tmp_path / "out", "--to", "folder")
    assert len([*(tmp_path / "out/samples").glob("*-image.png")]) == 5


def test_means_are_behind_the_maps_of_their_own(tree: xr.DataTree, tmp_path: Path) -> None:
    """In whatever order the outputs are drawn."""
    found: dict[str, np.ndarray] = {}

    def noted(axes: Axes, image: np.ndarray, drawn: Overlay) -> None:
        found[drawn.title] = image
        draw_overlay(axes, image, drawn)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("igc_dist.report.samples.draw_overlay", noted)
        del (alone := tree.copy())["samples"]
        write_report(alone, tmp_path, outputs=["2", "0"], beside=Beside(means=means_of(tree, fetch, 32)))
    assert [*found] == ["output 2", "output 0"]
    for title, image in found.items():
        assert int(image.std((1, 2)).argmax()) == int(title.split()[1])


@pytest.mark.slow
@pytest.mark.e2e
def test_a_run_keeps_them_or_not(tmp_path: Path) -> None:
    """`report.images=none` also removes what an earlier run has left; nothing of a sample is on the page."""
    small = ["store.path=a", "method=ig", "quadrature.n_steps=2", "plan.n_folds=4", "report.thumbnails=3"]
    for more, wanted in (([], 3), (["report.images=none", "target.outputs=[0,3]", "store.path=b"], 0)):
        (tmp_path / "b.run/thumbnails").mkdir(parents=True, exist_ok=True)
        (tmp_path / "b.run/thumbnails/7.jpg").write_bytes(b"old")
        done = command(*small, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        beside = tmp_path / ("b.run" if more else "a.run")
        assert len([*(beside / "thumbnails").glob("[0-9]*.jpg")]) == wanted
        assert ("overlay of sample" in (beside / "report.html").read_text()) == bool(wanted)
