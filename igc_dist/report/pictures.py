"""Arrays as picture files: a map in the page's colours, a sample as it is."""

from __future__ import annotations

import io

import matplotlib
import matplotlib.image
import numpy as np

from igc_dist.report.contents import Floats
from igc_dist.report.overlays import clipped_norm, picture
from igc_dist.report.panels import colours

LEAST = 128
"""The shorter side of a picture in pixels: smaller ones are enlarged by whole numbers, so no value is invented."""


def map_png(values: Floats) -> bytes:
    """A map (*F) of at most two dimensions: red for, blue against, white zero; colours end at the 99th percentile."""
    values = np.atleast_2d(values)
    return png(colours("RdBu_r")(clipped_norm(values)(values), bytes=True))


def image_png(image: np.ndarray) -> bytes:
    """A sample (*P) as the model got it, stretched to the whole range of brightness."""
    return png(as_bytes(image))


def as_bytes(image: np.ndarray) -> np.ndarray:
    """A sample as a picture (H, W, 3) of bytes; black where it is not finite."""
    seen = picture(image)
    low, high = np.nanmin(seen), np.nanmax(seen)
    scaled = np.nan_to_num(255 * (seen - low) / (high - low if high > low else 1.0))
    grey = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    return grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, -1)


def png(pixels: np.ndarray) -> bytes:
    """Pixels (H, W, channels) of bytes as a PNG. The same pixels give the same bytes."""
    times = -(-LEAST // max(min(pixels.shape[:2]), 1)) if pixels.shape[0] > 1 else 1
    held, large = io.BytesIO(), np.ascontiguousarray(pixels.repeat(times, 0).repeat(times, 1))
    matplotlib.image.imsave(held, large, format="png", metadata={"Software": "igc-dist"})
    return held.getvalue()
