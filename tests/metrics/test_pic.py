"""Images of which some pixels are kept: cases 82 and 83 of acceptance.md, and what linear interpolation promises."""

from __future__ import annotations

import numpy as np
import pytest

from igc_dist import seeds
from igc_dist.metrics import inpainted, random_mask
from igc_dist.records import ConfigError


def draws(draw: int = 0) -> np.random.Generator:
    return seeds.generator(0, 0, "tests", draw)


def test_a_random_mask_is_exact_case_82() -> None:
    mask = random_mask((100, 100), 0.2, draws())
    assert (mask.shape, mask.sum()) == ((100, 100), 2000)
    assert (mask != random_mask((100, 100), 0.2, draws(1))).any()
    np.testing.assert_array_equal(mask, random_mask((100, 100), 0.2, draws()))
    # rows and columns alike: 20 +- 4 each on average, all within 5 standard deviations
    assert all(abs(mask.sum(axis) - 20).max() <= 20 for axis in (0, 1))
    assert [random_mask((3, 5), f, draws()).sum() for f in (0.0, 0.5, 1.0)] == [0, 8, 15]


def test_inpainted_case_83() -> None:
    image = np.array([[0.0, 0, 0], [1, 8, 1], [0, 0, 0]])
    kept = np.zeros((3, 3), dtype=bool)
    kept[1, 0] = True
    np.testing.assert_allclose(inpainted(image, kept), [[0, 0, 0], [1, 0.5, 0], [0, 0, 0]], atol=1e-15)
    assert kept.sum() == 1  # the caller's mask is as it was


def test_a_plane_is_filled_exactly() -> None:
    """Whatever is kept, with channels and without; and pixels that are kept keep their values, of any image."""
    rows, columns = np.mgrid[:9, :7].astype(float)
    kept = random_mask((9, 7), 0.3, draws())
    for image in (3 * rows - columns + 1, np.stack([rows, 2 * columns, rows - columns], -1)):
        np.testing.assert_allclose(inpainted(image, kept), image, atol=1e-12)
    image = draws().random((9, 7, 2))
    filled = inpainted(image, kept)
    np.testing.assert_array_equal(filled[kept], image[kept])
    assert np.isfinite(filled).all()
    assert (filled[~kept] != image[~kept]).any()
    np.testing.assert_array_equal(inpainted(image, np.ones((9, 7), dtype=bool)), image)


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"fraction=1\.5 of the pixels: give a number from 0 to 1"):
        random_mask((3, 3), 1.5, draws())
    with pytest.raises(ConfigError, match=r"mask of shape \(2, 3\) for an image of shape \(3, 3\)"):
        inpainted(np.zeros((3, 3)), np.zeros((2, 3), dtype=bool))
    with pytest.raises(ConfigError, match="at least 2 x 2"):
        inpainted(np.zeros((1, 5)), np.zeros((1, 5), dtype=bool))
