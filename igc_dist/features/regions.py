"""Attribution to regions: a map has one value per segment of the image."""

from __future__ import annotations

import math
import numbers
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy.ndimage import distance_transform_edt
from torch import Tensor, from_numpy

from igc_dist.features.names import Names, Shape
from igc_dist.features.reducers import Reducer
from igc_dist.records import ConfigError

INSTALL = "XRAI (reduce=xrai) needs scikit-image: pip install 'igc-dist[xrai]'"


@dataclass(frozen=True)
class XRAI(Reducer):
    """XRAI (Kapishnikov, Bolukbasi, Viegas and Terry, 2019, Algorithm 1): (C, H, W) or (H, W) to (H, W).

    A is the maximum of the attribution over channels. Felzenszwalb's method finds segments of the image at several
    `scales`. Each segment is grown by `dilation` pixels, so segments overlap. A region S starts empty. In each step,
    the segment s with the highest ``mean of A over s \\ S`` joins S, and all its new pixels get this mean. A segment
    with fewer than `min_pixels` new pixels is dropped. This ends when no segment is left, or when S covers more than
    the part `area` of the image. The remaining pixels then get their own mean.

    A mean over new pixels preserves their sum, so maps of one channel keep their sum. The maximum over channels does
    not preserve it. `fast`: segments are ordered by the mean over the whole segment. `sigma` (pixels), `min_size`
    (pixels) and the scales are settings of Felzenszwalb's method. The defaults are for images of 224 x 224; small
    images need smaller values. The image is not resized. Its channels come first, and its values are stretched to [-1,
    1]. If means are equal, the first segment in the order of `scales` is taken.

    If a map has a NaN or infinity, all its values become NaN. Raises `ConfigError` for invalid settings, for features
    that are no image, and if scikit-image is missing.
    """

    scales: Any = (50.0, 100.0, 150.0, 250.0, 500.0, 1200.0)
    sigma: float = 0.8
    min_size: int = 150
    dilation: int = 5
    area: float = 1.0
    min_pixels: int = 50
    fast: bool = False
    linear = False

    def __post_init__(self) -> None:
        scales = tuple(self.scales) if isinstance(self.scales, list | tuple) else (self.scales,)
        if not scales or not all(_number(scale) and scale > 0 for scale in scales):
            raise ConfigError(
                f"reduce.scales={self.scales!r}: give numbers above 0; the larger the scale, the larger the segments"
            )
        object.__setattr__(self, "scales", tuple(map(float, scales)))
        if not _number(self.sigma) or self.sigma < 0:
            raise ConfigError(f"reduce.sigma={self.sigma!r}: give a width in pixels of at least 0")
        for name, least in (("min_size", 1), ("dilation", 0), ("min_pixels", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
                raise ConfigError(f"reduce.{name}={value!r}: give a whole number of pixels, at least {least}")
        if not _number(self.area) or not 0 <= self.area <= 1:
            raise ConfigError(
                f"reduce.area={self.area!r}: give the part of the image to cover by segments, from 0 to 1"
            )

    def shape(self, shape: Shape) -> Shape:
        if len(shape) not in (2, 3):
            raise ConfigError(
                f"xrai needs images, (channels, height, width) or (height, width), and the features have shape {shape}"
            )
        return shape[-2:]

    def dims(self, dims: Names, n_dims: int) -> Names:
        return dims[-2:]

    def __call__(
        self, values: Float[Tensor, "n J *P"], x: Tensor, segments: Tensor | None = None
    ) -> Float[Tensor, "n J H W"]:
        if values.shape[2:] != x.shape[1:]:
            raise ConfigError(
                f"xrai looks for segments in the input, of shape {tuple(x.shape[1:])}, but its features have shape "
                f"{tuple(values.shape[2:])}: reduce attributions of the pixels themselves"
            )
        maps = values.detach().double().cpu().numpy()
        maps = maps.max(2) if maps.ndim == 5 else maps
        images = x.detach().double().cpu().numpy()
        images = images if images.ndim == 4 else images[:, None]
        found = np.full_like(maps, np.nan)
        for of_sample, image, into in zip(maps, images, found, strict=True):
            usable = [j for j, one in enumerate(of_sample) if np.isfinite(one).all()]
            if not usable or not np.isfinite(image).all():
                continue
            masks = self.segments(image)
            for j in usable:
                into[j] = self.covered(of_sample[j], masks)
        return from_numpy(found).to(values)

    def segments(self, image: Float64[np.ndarray, "C H W"]) -> Bool[np.ndarray, "S H W"]:
        """The masks of the segments at all scales, grown by a disc. Raises `ConfigError` if scikit-image is missing."""
        return self.grown(self._found(image))

    def segments_at(self, side: int, image: Float64[np.ndarray, "C H W"]) -> Bool[np.ndarray, "S H W"]:
        """The masks of the segments of the image resized to `side` x `side`, brought back to its size, and grown."""
        try:
            from skimage.transform import resize
        except ImportError as error:
            raise ConfigError(INSTALL) from error
        shape = len(image), side, side
        masks = self._found(resize(image, shape, order=3, mode="constant", preserve_range=True, anti_aliasing=True))
        rows, columns = (((np.arange(n) + 0.5) * side / n).astype(int) for n in image.shape[1:])
        own = masks[:, rows[:, None], columns]
        return self.grown(own[own.any((1, 2))])

    def _found(self, image: Float64[np.ndarray, "C H W"]) -> Bool[np.ndarray, "S H W"]:
        """The masks of the segments at all scales."""
        try:
            from skimage.segmentation import felzenszwalb
        except ImportError as error:
            raise ConfigError(INSTALL) from error
        low, high = image.min(), image.max()
        stretched = np.moveaxis(2 * (image - low) / (high - low) - 1 if high > low else np.zeros_like(image), 0, -1)
        masks = []
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Got image with third dimension"
            )  # any number of channels is fine
            for scale in self.scales:
                labels = felzenszwalb(
                    np.ascontiguousarray(stretched), scale=scale, sigma=float(self.sigma), min_size=int(self.min_size)
                )
                masks.append(labels == np.unique(labels)[:, None, None])
        return np.concatenate(masks)

    def grown(self, masks: Bool[np.ndarray, "S H W"]) -> Bool[np.ndarray, "S H W"]:
        """Masks grown by a disc: to all pixels at most `dilation` from one of theirs.

        Distances in the box of each segment take a twentieth of the time of a dilation of whole images.
        """
        if not self.dilation:
            return masks
        found = np.zeros_like(masks)
        for mask, into in zip(masks, found, strict=True):
            box = tuple(_around(mask.any(axis), self.dilation) for axis in (1, 0))
            into[box] = distance_transform_edt(~mask[box]) <= self.dilation
        return found

    def covered(self, a: Float64[np.ndarray, "H W"], masks: Bool[np.ndarray, "S H W"]) -> Float64[np.ndarray, "H W"]:
        """The map of region means: segments are added one by one, and the new pixels of each get their mean."""
        flat, segments = a.reshape(-1), masks.reshape(len(masks), -1)
        result, free = np.empty_like(flat), np.ones(flat.size, bool)
        # sizes and sums count only the pixels of each segment that are not covered yet; covered pixels are subtracted,
        # so each pixel is visited once
        sizes, sums = segments.sum(1), np.array([flat[mask].sum() for mask in segments])
        left = np.argsort(-sums / sizes, kind="stable") if self.fast else np.arange(len(segments))
        while 1 - free.mean() <= self.area:
            left = left[sizes[left] >= self.min_pixels]
            if not len(left):
                break
            best = left[0] if self.fast else left[np.argmax(sums[left] / sizes[left])]
            new = segments[best] & free
            result[new] = flat[new].mean()
            free &= ~new
            gone = segments[:, new]
            sizes, sums = sizes - gone.sum(1), sums - gone @ flat[new]
        if free.any():
            result[free] = flat[free].mean()
        return result.reshape(a.shape)


def _number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _around(there: Bool[np.ndarray, " L"], more: int) -> slice:
    """The part from the first to the last of a line that is there, and `more` on both sides."""
    at = np.flatnonzero(there)
    return slice(max(at[0] - more, 0), at[-1] + more + 1)
