"""Similarity of maps: other packages' numbers, and known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.signal import convolve2d
from skimage.metrics import structural_similarity

from igc_dist.metrics.similarity import ms_ssim, pearson, spearman, ssim

DRAWS = np.random.default_rng(0)
A = DRAWS.normal(size=(20, 31))
B = A + DRAWS.normal(size=A.shape)


def test_ssim_is_that_of_scikit_image_case_96() -> None:
    span = max(A.max(), B.max()) - min(A.min(), B.min())
    theirs = structural_similarity(A, B, data_range=span, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    np.testing.assert_allclose(ssim(A, B), theirs, rtol=1e-9)
    assert ssim(A, A) == pytest.approx(1, abs=1e-12)
    assert ssim(np.zeros((16, 16)), np.ones((16, 16))) == pytest.approx(0, abs=1e-3)
    assert np.isfinite(ssim(A[:3, :4], B[:3, :4]))


def test_ms_ssim_equals_its_literal_twin() -> None:
    """Whole windows only, at five scales (torchmetrics pads the last one, and differs by 7e-4 here)."""
    a = DRAWS.uniform(size=(192, 201))
    b = (a + 0.1 * DRAWS.normal(size=a.shape)).clip(0, 1)
    found, (p, q) = ms_ssim(255 * a, 255 * b, 255.0), (a, b)
    window = np.exp(-(np.arange(-5, 6)[:, None] ** 2 + np.arange(-5, 6) ** 2) / 2 / 1.5**2)
    window, twin = window / window.sum(), 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        one, two, of_one, of_two, both = (convolve2d(z, window, "valid") for z in (p, q, p * p, q * q, p * q))
        cs = (2 * (both - one * two) + 0.0009) / (of_one - one**2 + of_two - two**2 + 0.0009)
        luminance = (2 * one * two + 0.0001) / (one**2 + two**2 + 0.0001)
        twin *= (cs * luminance if scale == 4 else cs).mean() ** weight
        h, w = p.shape[0] // 2, p.shape[1] // 2
        p, q = (z[: 2 * h, : 2 * w].reshape(h, 2, w, 2).mean((1, 3)) for z in (p, q))
    np.testing.assert_allclose(found, twin, rtol=1e-9)


@pytest.mark.parametrize(("a", "b", "is_"), [([-1, 1, 1], [0, 0, 2], 0.5), ([0, 1, 0, 1], [1, 2, 1, 0], 0)])
def test_correlations_cases_92_to_94(a: list[float], b: list[float], is_: float) -> None:
    for of in (pearson, spearman):
        one, other = (torch.tensor([z, z]).double() for z in (a, b))
        np.testing.assert_allclose(of(one, other), is_, atol=1e-12)
        np.testing.assert_allclose(of(one, 3 * one), 1, atol=1e-12)
        np.testing.assert_allclose(of(one, -3 * one), -1, atol=1e-12)
        assert of(one, 0 * one).isnan().all()
    x, y = np.round(A, 1), np.round(B, 1)  # with ties
    theirs = [stats.spearmanr(p, q).statistic for p, q in zip(x, y, strict=True)]
    np.testing.assert_allclose(spearman(torch.as_tensor(x), torch.as_tensor(y)), theirs, rtol=1e-9)
