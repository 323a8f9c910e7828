"""Arrays as picture files: a map in the page's colours, a sample as it is."""

from __future__ import annotations

import io

import matplotlib
import matplotlib.image
import numpy as np

from igc_dist.report.contents import Floats
from igc_dist.report.overlays import PALE, clipped_norm, picture, tinted
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


SIDE, SPACE = 128, 4
"""Pixels: the longer side of a panel in a strip, the space between two."""
UNKNOWN = 208
"""The grey of a cell that is not defined."""


def strip(seen: np.ndarray | None, values: Floats | None, *, one: bool = False) -> np.ndarray | None:
    """Sample, map and overlay side by side as pixels (H, W, 3), as many of them as are known; of `one` the last.

    `seen`: the sample as pixels, `framed`; `values` (height, width), others are not drawn. Colours end at the 99th
    percentile.
    """
    panels = [] if seen is None else [seen]
    if values is not None and values.ndim == 2:
        panels.append(framed(mapped(values)))
        panels += [] if seen is None else [overlaid(seen, values)]
    if not panels:
        return None
    panels = panels[-1:] if one else panels
    tall = max(panel.shape[0] for panel in panels)
    whole = np.full((tall, sum(panel.shape[1] + SPACE for panel in panels) - SPACE, 3), 255, np.uint8)
    left = 0
    for panel in panels:
        whole[: panel.shape[0], left : left + panel.shape[1]] = panel
        left += panel.shape[1] + SPACE
    return whole


def mapped(values: Floats) -> np.ndarray:
    """A map as pixels (height, width, 3): red for, blue against, white zero, grey where it is not defined."""
    found = np.asarray(colours("RdBu_r")(clipped_norm(values)(values), bytes=True))[..., :3].copy()
    found[~np.isfinite(values)] = UNKNOWN
    return found


def overlaid(seen: np.ndarray, values: Floats) -> np.ndarray:
    """A map over a picture (H, W, 3) in pale grey."""
    grey = seen @ np.array([0.299, 0.587, 0.114])
    low, high = float(grey.min()), float(grey.max())
    pale = PALE + (1 - PALE) * (grey - low) / (high - low if high > low else 1.0)
    tint = tinted(stretched(values, *seen.shape[:2]))
    mixed = pale[..., None] * (1 - tint[..., 3:]) + tint[..., :3] * tint[..., 3:]
    return np.rint(255 * mixed).astype(np.uint8)


def framed(pixels: np.ndarray) -> np.ndarray:
    """Pixels (H, W, 3) with a longer side of 128: averages of squares, then of repeated pixels."""
    if (times := -(-max(pixels.shape[:2]) // SIDE)) > 1:
        high, wide = (max(side // times, 1) for side in pixels.shape[:2])
        cut = pixels[: high * times, : wide * times]
        rows = np.add.reduceat(cut.astype(np.float64), np.arange(0, cut.shape[0], times), 0)
        sums = np.add.reduceat(rows, np.arange(0, cut.shape[1], times), 1)
        pixels = np.rint(sums / (min(times, cut.shape[0]) * min(times, cut.shape[1]))).astype(np.uint8)
    share = SIDE / max(pixels.shape[:2])
    return stretched(pixels, *(max(round(side * share), 8) for side in pixels.shape[:2]))


def stretched(pixels: np.ndarray, high: int, wide: int) -> np.ndarray:
    """Pixels (H, W, ...) of another size: the nearest ones."""
    rows, columns = (np.arange(n) * side // n for n, side in zip((high, wide), pixels.shape, strict=False))
    return pixels[rows][:, columns]


def jpeg(pixels: np.ndarray, quality: int = 85) -> bytes:
    """Pixels (H, W, 3) of bytes as a JPEG."""
    held = io.BytesIO()
    matplotlib.image.imsave(held, np.ascontiguousarray(pixels), format="jpeg", pil_kwargs={"quality": quality})
    return held.getvalue()
