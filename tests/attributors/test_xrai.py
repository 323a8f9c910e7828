"""XRAI: the greedy cover against its loops, closed forms, segments of images; whole runs, and what is refused."""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
import pytest
import torch

import igc_dist
from igc_dist import features
from igc_dist.features import XRAI
from igc_dist.records import ConfigError, NonFiniteError
from tests import models
from tests.oracles import statistics
from tests.oracles import xrai as oracle

KINDS: set[type] = set()
PRESETS: set[str] = set()

SMALL = XRAI(scales=(5, 20, 60), sigma=0.3, min_size=2, dilation=1, min_pixels=2)


def masks(seed: int, n: int = 12, shape: tuple[int, int] = (6, 7)) -> np.ndarray:
    """Random rectangles that overlap: some within others, some equal."""
    rng = np.random.default_rng(seed)
    found = np.zeros((n, *shape), bool)
    for mask in found:
        (top, bottom), (left, right) = (np.sort(rng.choice(extent + 1, 2, replace=False)) for extent in shape)
        mask[top:bottom, left:right] = True
    found[-1] = found[0]
    return found


def sets(found: np.ndarray) -> list[oracle.Segment]:
    return [set(zip(*map(np.ndarray.tolist, np.nonzero(mask)), strict=True)) for mask in found]


# -- the cover of given segments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "settings", [{}, {"area": 0.4}, {"area": 0.0}, {"min_pixels": 5}, {"min_pixels": 100}], ids=str
)
@pytest.mark.parametrize("fast", [False, True], ids=["greedy", "fast"])
def test_equals_its_loops(settings: dict[str, Any], seed: int, fast: bool) -> None:
    a, segments = np.random.default_rng(seed + 100).standard_normal((6, 7)), masks(seed)
    found = XRAI(**{"min_pixels": 1, **settings}, fast=fast).covered(a, segments)
    expected = (oracle.fast if fast else oracle.greedy)(a, sets(segments), **settings)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    assert found.sum() == pytest.approx(a.sum(), abs=1e-12)


def test_closed_forms() -> None:
    """A constant stays; one segment gives its mean; of two that overlap, one has what is left; the rest has its own
    mean."""
    whole = np.ones((1, 2, 4), bool)
    a = np.array([[8.0, 4.0, 2.0, -1.0], [0.0, 4.0, 2.0, -3.0]])
    one = XRAI(min_pixels=1)
    np.testing.assert_allclose(one.covered(np.full((6, 7), 0.3), masks(1)), 0.3, rtol=1e-15)
    np.testing.assert_array_equal(one.covered(a, whole), np.full((2, 4), 2.0))
    two = np.zeros((2, 2, 4), bool)
    two[0, :, 1:3], two[1, :, :2] = (
        True,
        True,
    )  # means 3 and 4: the second goes first, and the first has 2 in its last column
    np.testing.assert_array_equal(one.covered(a, two), [[4, 4, 2, -2], [4, 4, 2, -2]])
    np.testing.assert_array_equal(XRAI(min_pixels=3).covered(a, two), [[4, 4, 0, 0], [4, 4, 0, 0]])
    np.testing.assert_array_equal(XRAI(min_pixels=1, area=0.3).covered(a, two), [[4, 4, 0, 0], [4, 4, 0, 0]])


def test_the_order_is_by_the_mean_of_what_is_new() -> None:
    """The wide segment comes second by its whole (7/3 and 1.5), and last once its first pixel is taken (1/2 and
    1.5)."""
    a, three = np.array([[6.0, 1.0, 0.0, 3.0]]), np.array([[[1, 0, 0, 0]], [[1, 1, 1, 0]], [[0, 0, 1, 1]]], bool)
    np.testing.assert_array_equal(XRAI(min_pixels=1).covered(a, three), [[6, 1, 1.5, 1.5]])
    np.testing.assert_array_equal(XRAI(min_pixels=1, fast=True).covered(a, three), [[6, 0.5, 0.5, 3]])


# -- segments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_segments_of_flat_areas(channels: int) -> None:
    """Four quarters of one colour each are four segments at any fine scale, whatever the range of the values, grown by
    a disc."""
    image = np.zeros((channels, 12, 12))
    quarters = [
        (slice(0, 6), slice(0, 6)),
        (slice(0, 6), slice(6, 12)),
        (slice(6, 12), slice(0, 6)),
        (slice(6, 12), slice(6, 12)),
    ]
    for level, quarter in enumerate(quarters):
        image[(slice(None), *quarter)] = level
    for affine in (image, 255 * image - 40, 1e-6 * image):
        found = sets(XRAI(scales=[1.0], sigma=0.0, min_size=1, dilation=0).segments(affine))
        assert sorted(map(sorted, found)) == sorted(
            sorted((i, j) for i in range(12)[q[0]] for j in range(12)[q[1]]) for q in quarters
        )
        for radius in (1, 2, 3):
            grown = sets(XRAI(scales=(1.0, 2.0), sigma=0.0, min_size=1, dilation=radius).segments(affine))
            assert grown == 2 * [oracle.grown(segment, radius, (12, 12)) for segment in found]


def test_an_image_of_one_colour_is_one_segment() -> None:
    assert SMALL.segments(np.full((1, 5, 6), 3.0)).all(axis=(1, 2)).tolist() == [True] * 3


def literal(a: np.ndarray, x: np.ndarray, reducer: XRAI = SMALL) -> np.ndarray:
    """(n, J, H, W) from (n, J, C, H, W): segments as found, the cover by loops."""
    result = np.zeros((*a.shape[:2], *a.shape[3:]))
    for n in range(len(a)):
        segments = sets(reducer.segments(x[n]))
        for j in range(a.shape[1]):
            result[n, j] = oracle.greedy(oracle.channels(a[n, j]), segments, reducer.area, reducer.min_pixels)
    return result


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


@pytest.mark.parametrize("channels", [1, 3])
def test_reduces_to_regions(channels: int) -> None:
    """The largest of each pixel's channels, then its region's mean; each sample has the segments of its own image."""
    a, x = drawn(3, 2, channels, 6, 7), drawn(3, channels, 6, 7, seed=1)
    found = SMALL(a, x)
    np.testing.assert_allclose(found, literal(a.numpy(), x.numpy()), rtol=1e-12, atol=1e-14)
    assert torch.equal(found[1:2, 1:], SMALL(a[1:2, 1:], x[1:2]))
    assert SMALL(a.float(), x.float()).dtype == torch.float32
    assert SMALL.shape((channels, 6, 7)) == (6, 7)
    assert SMALL.dims(("channel", "height", "width"), 2) == ("height", "width")
    if channels == 1:
        assert torch.equal(SMALL(a[:, :, 0], x[:, 0]), found)


def test_what_is_not_finite_is_nan() -> None:
    """The map with the NaN, and all maps of an image with one; the others stay."""
    a, x = drawn(3, 2, 1, 6, 7), drawn(3, 1, 6, 7, seed=1)
    whole = SMALL(a, x)
    a[0, 1, 0, 2, 3], a[1, 0, 0, 0, 0], x[2, 0, 0, 0] = torch.nan, torch.inf, torch.nan
    found = SMALL(a, x)
    assert found.isnan().all((2, 3)).tolist() == [[False, True], [True, False], [True, True]]
    assert torch.equal(found[0, 0], whole[0, 0])
    assert torch.equal(found[1, 1], whole[1, 1])


# -- whole runs --------------------------------------------------------------------------------------------------------


def net(channels: int) -> torch.nn.Module:
    torch.manual_seed(6)
    flat = torch.nn.Flatten(), torch.nn.Linear(48, 2)
    return torch.nn.Sequential(torch.nn.Conv2d(channels, 4, 3), torch.nn.GELU(), *flat).double()


@functools.cache
def run(channels: int, reduced: bool, **more: Any) -> Any:
    model = net(channels)
    data = models.data(model, 9, ((channels, 5, 6),))
    settings: dict[str, Any] = {"baseline": [0.0, 1.0], "n_steps": 3, "n_folds": 3, "threads": 1, **more}
    wished = {"statistics": ["correlation", "moments"], "samples": True, "reduce": SMALL if reduced else None}
    return igc_dist.attribute(model, data, method="ig", **wished, **settings)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_run(channels: int) -> None:
    """Rows are the literal ones of the attributions, and statistics those of the rows; sums are told where there is one
    channel."""
    model = net(channels)
    x, y = (a.numpy() for a in models.data(model, 9, ((channels, 5, 6),)))
    plain, found = run(channels, False), run(channels, True)
    rows = literal(plain["samples/x/attribution"].values, x)
    np.testing.assert_allclose(found["samples/x/attribution"], rows, rtol=1e-9, atol=1e-12)
    r = model(torch.from_numpy(x)).detach().numpy()
    igc = statistics.igc(rows.reshape(9, 2, -1), y, r)
    np.testing.assert_allclose(found["x/igc"].values.reshape(2, -1), igc, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found["x/ig_std"], rows.std(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found["samples/delta"], plain["samples/delta"], rtol=1e-9, atol=1e-12)
    assert found["x/igc"].dims == ("output", "height", "width")
    assert found.attrs["sums_to_prediction"] is (channels == 1)
    everything = {str(name) for node in found.subtree for name in node.data_vars}
    assert any("igc_sum" in name for name in everything) is (channels == 1)
    if channels == 1:
        np.testing.assert_allclose(found["igc_sum"], plain["igc_sum"], rtol=1e-9)


def test_batches_change_nothing() -> None:
    for cut in ({"micro_batch": 2}, {"output_block": 1}):
        found = run(3, True, **cut)["samples/x/attribution"]
        np.testing.assert_allclose(found, run(3, True)["samples/x/attribution"], rtol=1e-9, atol=1e-12)


def test_one_of_two_inputs_is_an_image() -> None:
    model = models.TwoInputs()
    data = models.data(model, 5, ((3,), (2, 2)))
    reduce = (None, XRAI(scales=[1.0], sigma=0.0, min_size=1, dilation=0, min_pixels=1))
    tree = igc_dist.attribute(model, data, method="ig", reduce=reduce, n_steps=3, n_folds=1, threads=1)
    assert tree["samples/x1/attribution"].shape == (5, 2, 2, 2)
    assert bool(tree["samples/x1/attribution"].notnull().all())
    with pytest.raises(ConfigError, match=r"input 0: xrai needs images.*shape \(3,\)"):
        igc_dist.attribute(model, data, method="ig", reduce=SMALL, n_steps=3)


def test_a_gradient_of_nan_is_told() -> None:
    model = models.Function(lambda x: (x - x[:, :1, :1, :1].detach()).sqrt().sum((1, 2, 3))[:, None])
    with pytest.raises(NonFiniteError):
        igc_dist.attribute(
            model, (drawn(4, 1, 5, 6).abs(), drawn(4, 1)), method="gradients", reduce=SMALL, n_folds=1, threads=1
        )


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: XRAI(scales=[]), r"reduce.scales=\[\]: give numbers above 0"),
        (lambda: XRAI(scales=[50, 0]), r"scales=\[50, 0\]"),
        (lambda: XRAI(scales="fine"), "scales='fine'"),
        (lambda: XRAI(sigma=-1.0), "sigma=-1.0: give a width"),
        (lambda: XRAI(min_size=0), "min_size=0.*at least 1"),
        (lambda: XRAI(dilation=-1), "dilation=-1.*at least 0"),
        (lambda: XRAI(min_pixels=0), "min_pixels=0.*at least 1"),
        (lambda: XRAI(min_pixels=True), "min_pixels=True"),
        (lambda: XRAI(area=1.5), "area=1.5.*from 0 to 1"),
        (lambda: XRAI(area=float("nan")), "area=nan"),
        (lambda: SMALL.shape((4,)), r"xrai needs images, .* shape \(4,\)"),
        (lambda: SMALL.shape((2, 2, 4, 4)), r"shape \(2, 2, 4, 4\)"),
        (
            lambda: SMALL(drawn(2, 1, 4, 4), drawn(2, 7)),
            r"input, of shape \(7,\), but its features have shape \(4, 4\)",
        ),
    ],
)
def test_refusals(make: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make()


def test_without_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named, before anything is computed."""
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    model = models.Function(lambda x: x.sum((1, 2, 3))[:, None])
    with pytest.raises(ConfigError, match=r"needs scikit-image: pip install 'igc-dist\[xrai\]'"):
        features.ensure(SMALL, 1).complete([(1, 6, 7)], (torch.zeros(2, 1, 6, 7),))
    with pytest.raises(ConfigError, match="needs scikit-image"):
        igc_dist.attribute(model, (drawn(4, 1, 5, 6), drawn(4, 1)), method="ig", reduce=SMALL)
