"""Images for the performance information curves (AIC and SIC): some pixels are kept, the others are filled in.

Source: Kapishnikov et al. 2019, arXiv:1906.02825, section 4.2.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Real
from scipy.interpolate import griddata

from igc_dist.records import ConfigError


def random_mask(shape: tuple[int, int], fraction: float, generator: np.random.Generator) -> Bool[np.ndarray, "H W"]:
    """Exactly ``round(fraction * H * W)`` pixels of an image, drawn without replacement.

    Raises `ConfigError` for a fraction outside of [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ConfigError(f"fraction={fraction!r} of the pixels: give a number from 0 to 1")
    n_pixels = shape[0] * shape[1]
    mask = np.zeros(n_pixels, dtype=bool)
    mask[generator.choice(n_pixels, round(fraction * n_pixels), replace=False)] = True
    return mask.reshape(shape)


def inpainted(image: Real[np.ndarray, "H W *C"], kept: Bool[np.ndarray, "h w"]) -> Float64[np.ndarray, "H W *C"]:
    """The image with every pixel that is not `kept` filled in, linearly on a Delaunay triangulation of the kept ones.

    The four corners are always kept, so that every pixel lies in a triangle. Raises `ConfigError` for a mask of another
    size.
    """
    if kept.shape != image.shape[:2]:
        raise ConfigError(
            f"a mask of shape {kept.shape} for an image of shape {image.shape}: give one entry for each pixel"
        )
    kept = kept.copy()
    kept[np.ix_([0, -1], [0, -1])] = True
    filled = image.astype(np.float64)
    if kept.all():
        return filled
    if min(kept.shape) < 2:
        raise ConfigError(
            f"an image of shape {image.shape} has no triangles to fill: give one of at least 2 x 2 pixels"
        )
    filled[~kept] = griddata(np.argwhere(kept), filled[kept], np.argwhere(~kept), method="linear")
    return filled
