"""An image file as a tensor: upright, in three colours, of one size."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from igc_dist.data.label_maps import pixels_of
from igc_dist.records import ConfigError, DataError

WHITE = (255, 255, 255)
INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "lanczos")
SQUASH = "squash"
ORIENTATION, SIDEWAYS = 0x0112, range(5, 9)
"""The EXIF tag of how a photograph lies, and its values where width and height are exchanged."""


@dataclass(frozen=True)
class Decoding:
    """How image files become tensors of one size.

    `size`: height and width, or one number for both; None: images have one size already. `resize`: the shorter side
    before the centre of `size` is cut out; "squash": to `size` whatever the image's shape; None: as long as `size`
    needs. `interpolation`: see `INTERPOLATIONS`; it smooths when an image shrinks, but for nearest. `background`: the
    colour behind transparent pixels, 0 to 255. Raises `ConfigError`.
    """

    size: int | Sequence[int] | None = 224
    resize: int | str | None = None
    interpolation: str = "bicubic"
    background: Sequence[int] = WHITE

    def __post_init__(self) -> None:
        size, resize, colour = self.sides, self.resize, self.background
        wrong = isinstance(resize, str) and resize != SQUASH
        if wrong or (resize is not None and (size is None or (not isinstance(resize, str) and resize < min(size)))):
            raise ConfigError(
                f"resize={resize} with size={self.size}: give the shorter side before the cut, not below size, or "
                f"{SQUASH}"
            )
        if self.interpolation not in INTERPOLATIONS:
            raise ConfigError(f"interpolation={self.interpolation!r}: choose one of {', '.join(INTERPOLATIONS)}")
        if len(colour) != 3 or not all(0 <= part <= 255 for part in colour):
            raise ConfigError(f"background={colour}: give red, green and blue, each 0 to 255")

    @property
    def sides(self) -> tuple[int, int] | None:
        """Height and width."""
        if self.size is None:
            return None
        both = (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)
        if len(both) != 2 or min(both) < 1:
            raise ConfigError(f"size={self.size}: give the height and width in pixels, one number for both, or null")
        return int(both[0]), int(both[1])

    def __call__(self, path: str | Path | io.BytesIO) -> Float[Tensor, "3 height width"]:
        """The image of a file in [0, 1], float32: red, green, blue.

        It is turned upright by its EXIF orientation. Gray, palette and CMYK become RGB; 16-bit gray keeps its depth.
        Raises OSError for what is no image or is cut off, and ValueError for an image of floats, whose range is not
        known.
        """
        from PIL import Image, ImageOps

        with Image.open(path) as opened:
            ImageOps.exif_transpose(opened, in_place=True)  # a copy of the whole photograph takes 3 % of all
            planes = [self._fitted(plane, self.interpolation) for plane in _planes(opened, tuple(self.background))]
        values = np.concatenate([np.asarray(plane, np.float32).reshape(*plane.size[::-1], -1) for plane in planes], 2)
        largest = 1.0 if planes[0].mode == "F" else 255.0
        return torch.from_numpy(values / np.float32(largest)).clamp(0, 1).movedim(2, 0).expand(3, -1, -1).contiguous()

    def labels(
        self,
        path: str | Path,
        of: str | Path,
        opened: tuple[str | Path | io.BytesIO, str | Path | io.BytesIO] | None = None,
    ) -> Integer[np.ndarray, "height width"]:
        """The label map at `path`, resized and cut as its image, at `of`, is; each pixel takes the nearest label.

        `opened`: the files, if these are only their names. A map has the size of its image as it is seen, upright.
        Raises `DataError` with the path for another size.
        """
        from PIL import Image

        map_file, image_file = opened or (path, of)
        found = pixels_of(path, map_file)
        with Image.open(image_file) as image:
            turned = image.getexif().get(ORIENTATION, 1) in SIDEWAYS
            size = image.size[::-1] if turned else image.size
        if found.shape != size[::-1]:
            seen = " as it is seen, turned by its EXIF orientation" if turned else ""
            raise DataError(
                f"label map {path} has {found.shape[1]} x {found.shape[0]} pixels, and its image {of} has {size[0]} x "
                f"{size[1]}{seen}: give a map of the size of its image"
            )
        return np.asarray(self._fitted(Image.fromarray(found), "nearest"))

    def _fitted(self, plane: Any, interpolation: str) -> Any:
        """An image resized and cut to `size`."""
        from PIL import Image

        if (size := self.sides) is None:
            return plane
        (height, width), (w, h) = size, plane.size
        scale = max(height / h, width / w) if not isinstance(self.resize, int) else self.resize / min(h, w)
        to = max(width, int(w * scale)), max(height, int(h * scale))  # rounded as torchvision does
        to = (width, height) if self.resize == SQUASH else to
        left, top = round((to[0] - width) / 2), round((to[1] - height) / 2)
        by = Image.Resampling[interpolation.upper()]
        return plane.resize(to, by).crop((left, top, left + width, top + height))


def _planes(image: Any, background: tuple[int, ...]) -> list[Any]:
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
    return [image if image.mode == "RGB" else image.convert("RGB")]
