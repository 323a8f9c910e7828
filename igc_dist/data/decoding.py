"""An image file as a tensor: upright, in three colours, of one size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

WHITE = (255, 255, 255)


def decoded(
    path: str | Path,
    size: tuple[int, int] | None = None,
    resize: int | None = None,
    background: tuple[int, int, int] = WHITE,
) -> Float[Tensor, "3 height width"]:
    """The image at `path` in [0, 1], float32: red, green, blue.

    It is turned upright by its EXIF orientation. Gray, palette and CMYK become RGB; transparent pixels show
    `background` (0 to 255); 16-bit gray keeps its depth. The shorter side becomes `resize` pixels (bicubic, smoothed
    when it shrinks; None: as long as `size` needs), then the centre of `size` (height, width) is cut out; None: as it
    is.

    Raises OSError for what is no image or is cut off, and ValueError for an image of floats, whose range is not known.
    """
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        planes = _planes(image, background)
    if size is not None:
        height, width = size
        w, h = planes[0].size
        scale = max(height / h, width / w) if resize is None else resize / min(h, w)
        to = max(width, round(w * scale)), max(height, round(h * scale))
        left, top = (to[0] - width) // 2, (to[1] - height) // 2
        planes = [
            plane.resize(to, Image.Resampling.BICUBIC).crop((left, top, left + width, top + height)) for plane in planes
        ]
    values = np.concatenate([np.asarray(plane, np.float32).reshape(*plane.size[::-1], -1) for plane in planes], axis=2)
    largest = 1.0 if planes[0].mode == "F" else 255.0
    return torch.from_numpy(values / np.float32(largest)).clamp(0, 1).movedim(2, 0).expand(3, -1, -1).contiguous()


def _planes(image: Any, background: tuple[int, int, int]) -> list[Any]:
    """An RGB image; of 16-bit gray, one plane of floats in [0, 1]."""
    from PIL import Image

    if image.mode.startswith("I"):
        return [Image.fromarray(np.asarray(image, np.float32) / np.float32(65535))]
    if image.mode == "F":
        raise ValueError("an image of floats has no known range: save it with 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        below = Image.new("RGBA", image.size, (*background, 255))
        return [Image.alpha_composite(below, image).convert("RGB")]
    return [image.convert("RGB")]
