"""Performance information curves: how much of an image, by the length of its file, the model needs to see."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float64, UInt8
from PIL import Image, ImageFilter
from scipy.integrate import trapezoid
from threadpoolctl import ThreadpoolController
from torch import Tensor

from igc_dist.metrics.base import FOUR, Effort, Maps, Predict, Subject, check_of, choice, whole
from igc_dist.metrics.images import OfImages
from igc_dist.metrics.pic import inpainted, random_mask
from igc_dist.metrics.similarity import ms_ssim
from igc_dist.records import ConfigError
from igc_dist.seeds import generator

THRESHOLDS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.10, 0.13, 0.21, 0.34, 0.5, 0.75)
"""PAIR's shares of the pixels."""
FILLS, MEASURES = ("linear", "bokeh"), ("webp", "png", "ms_ssim")
SECONDS = {"linear": 2.5e-6, "bokeh": 5e-8, "webp": 3.6e-6, "png": 4e-7, "ms_ssim": 5e-7}
"""Seconds per pixel to fill an image and to measure one, on one core of an Intel Xeon at 2.5 GHz."""
TRIANGLES = 1200
"""Bytes per pixel of a triangulation of all of them."""
SMALLEST = 176
"""Pixels a side of which the fifth scale of MS-SSIM still has a whole window of 11."""

Pixels = UInt8[np.ndarray, "H W C"]


@dataclass(frozen=True)
class Performance(OfImages):
    """The area under the model's score against the information in the image, for images that show ever more.

    The blurred image keeps a random `fraction` of the pixels, and fills the others. For each of the `thresholds` t the
    image shows, beside these, pixels whose value is at least the quantile 1 - t of the map. Information is
    ``E = clip((e - e_blurred) / (e_x - e_blurred), 0, 1)`` with e the length of a lossless file, and the score
    ``clip((p - p_blurred) / (p_x - p_blurred), 0, 1)``, never falling with t (`monotone`). (0, 0) and (1, 1) are added,
    and the curve is interpolated at `points` + 1 equal steps; of equal E the largest score counts.

    `measure`: "webp" (as PAIR), "png", or "ms_ssim", which takes MS-SSIM to x in place of E and no blurred image's.
    `fill`: "linear" fills by triangles (PAIR); "bokeh" takes other pixels from x under a Gaussian blur of `radius`, as
    the study does. `thresholds` as a whole number n are n equal shares from 0 to 1.

    Images are left out (NaN) and counted: `_unsure` if the score of x is below `min_score`, `_dense` if the blurred
    file is not shorter, `_recognised` if the blurred image scores no less than x. `_mean` is the mean of areas, which
    is the area of the mean curve, and `_median` the area of the median curve (`_median_curve`). PAIR reports medians;
    the study the median for SIC and the mean for AIC.

    Sources: Kapishnikov et al. 2019, arXiv:1906.02825, and its program (PAIR); the study is arXiv:2409.09043.
    """

    score: ClassVar[str]
    """What of the model is the score: see `base.Predict`."""
    median: ClassVar[bool] = True
    counted: ClassVar[tuple[str, ...]] = ("unsure", "dense", "recognised")

    thresholds: int | Sequence[float] = THRESHOLDS
    fraction: float = 0.01
    measure: str = "webp"
    fill: str = "linear"
    radius: float = 20.0
    min_score: float = 0.8
    points: int = 1000
    monotone: bool = True
    seed: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        choice(self, "fill", FILLS)
        choice(self, "measure", MEASURES)
        whole(self, "points")
        whole(self, "workers")
        if isinstance(self.thresholds, int):
            whole(self, "thresholds", 2)
        elif not self.thresholds or not all(0 <= t <= 1 for t in self.thresholds):
            raise ConfigError(f"{self.name}: thresholds={self.thresholds!r}, give shares of the pixels from 0 to 1")

    def check(self, subject: Subject) -> None:
        super().check(subject)
        check_of(self, "probability", subject)
        if self.measure == "ms_ssim" and min(subject.shape[1:]) < SMALLEST:
            raise ConfigError(
                f"{self.name}: MS-SSIM has five scales and needs images of at least {SMALLEST} pixels a side, not "
                f"{subject.shape[1:]}: set measure='webp'"
            )

    def axis(self, subject: Subject) -> Float64[np.ndarray, " T"]:
        return np.arange(self.points + 1) / self.points

    def effort(self, subject: Subject) -> Effort:
        return Effort(
            2 + len(self.shares),
            seconds=self._seconds * subject.worked / self.workers,
            held=(FOUR + 2 + len(self.shares)) * subject.size + FOUR * self.points,
            row=FOUR * subject.size,
            fixed=self.workers * TRIANGLES * subject.n_positions,
        )

    @classmethod
    def study(cls, measure: str = "png") -> Performance:
        """As the study does: 25 shares, no filling but blur, PNG (or "ms_ssim"), 100 points."""
        return cls(thresholds=25, measure=measure, fill="bokeh", points=100)

    @property
    def shares(self) -> Float64[np.ndarray, " T"]:
        """The thresholds as shares of the pixels."""
        given = self.thresholds
        return np.linspace(0, 1, given) if isinstance(given, int) else np.asarray(given, np.float64)

    @property
    def _seconds(self) -> float:
        """Seconds per pixel for one map: it fills one image for each threshold, and measures two more."""
        return len(self.shares) * (SECONDS[self.fill] + SECONDS[self.measure]) + 2 * SECONDS[self.measure]

    def __call__(self, predict: Predict, maps: Maps) -> dict[str, Float64[Tensor, "M *T"]]:
        values = maps.positions().reshape(len(maps), *maps.x.shape[2:]).cpu().numpy()
        samples, shown = maps.sample.tolist(), self.pixels(maps.x)
        first = {sample: m for m, sample in reversed(list(enumerate(samples)))}
        # The triangulation and the codecs let go of Python's lock, and the model runs beside them. OpenBLAS would give
        # each 2 x 2 matrix of a triangulation to all cores, which spin: 10 times the time of the processor.
        blas = ThreadpoolController().select(internal_api="openblas").limit(limits=1)
        with blas, ThreadPoolExecutor(self.workers) as pool:
            bases = dict(zip(first, pool.map(self._base, first, [shown[m] for m in first.values()]), strict=True))
            starts = [bases[sample] for sample in samples]
            drawn = [pool.submit(self._images, *one) for one in zip(shown, starts, values, strict=True)]
            told = [pool.submit(self._information, *one) for one in zip(drawn, shown, strict=True)]

            def made(m: slice, t: slice) -> Tensor:
                rows = np.stack([np.stack(images.result()[t]) for images in drawn[m]])
                return self.inputs(rows.reshape(-1, *rows.shape[2:]), maps.x).unflatten(0, rows.shape[:2])

            p = predict.grid(self.score, maps.output, len(self.shares) + 2, made).cpu().numpy()
            e = np.array([one.result() for one in told]).reshape(p.shape)
        return {name: torch.as_tensor(part, device=maps.x.device) for name, part in self._curves(e, p).items()}

    def _base(self, sample: int, x: Pixels) -> tuple[Pixels, Bool[np.ndarray, "H W"]]:
        """The image that shows next to nothing, and the pixels that it keeps."""
        if self.fill == "bokeh":
            picture = Image.fromarray(x.squeeze(-1) if x.shape[2] == 1 else x).filter(
                ImageFilter.GaussianBlur(self.radius)
            )
            return np.asarray(picture).reshape(x.shape), np.zeros(x.shape[:2], bool)
        kept = random_mask(x.shape[:2], self.fraction, generator(self.seed, sample, "information"))
        return np.rint(inpainted(x, kept)).astype(np.uint8), kept

    def _images(self, x: Pixels, base: tuple[Pixels, Bool[np.ndarray, "H W"]], values: np.ndarray) -> list[Pixels]:
        """The blurred image, the whole one, and those of the thresholds."""
        found = [base[0], x]
        order = np.argsort(-values.ravel(), kind="stable")
        for share, least in zip(self.shares, np.quantile(values, 1 - self.shares), strict=True):
            if self.fill == "bokeh":
                shown = np.zeros(values.size, bool)
                shown[order[: int(share * values.size + 1e-9)]] = True  # a share of n steps is rounded
                found.append(np.where(shown.reshape(values.shape)[..., None], x, base[0]))
            else:
                shown = (values >= least) | base[1]
                found.append(np.rint(inpainted(x, shown)).astype(np.uint8))
        return found

    def _information(self, drawn: Future[list[Pixels]], x: Pixels) -> list[float]:
        """What the images tell, of each: the length of its file, or its likeness to x."""
        images = drawn.result()
        if self.measure == "ms_ssim":
            grey = [np.asarray(image, np.float64).mean(2) for image in images]
            return [ms_ssim(image, x.astype(np.float64).mean(2), 255.0) for image in grey]
        return [float(_length(image, self.measure)) for image in images]

    def _curves(self, e: np.ndarray, p: np.ndarray) -> dict[str, np.ndarray]:
        """Areas, curves and reasons, of (M, 2 + T) information and scores."""
        dense = (e[:, 0] >= e[:, 1]) & (self.measure != "ms_ssim")
        unsure = p[:, 1] < self.min_score
        recognised = p[:, 0] >= p[:, 1]
        reasons = {"unsure": unsure, "dense": ~unsure & dense, "recognised": ~unsure & ~dense & recognised}
        at = np.arange(self.points + 1) / self.points
        curve = np.full((len(e), len(at)), np.nan)
        for m in np.flatnonzero(~(unsure | dense | recognised)):
            x = e[m, 2:] if self.measure == "ms_ssim" else (e[m, 2:] - e[m, 0]) / (e[m, 1] - e[m, 0])
            y = ((p[m, 2:] - p[m, 0]) / (p[m, 1] - p[m, 0])).clip(0, 1)
            curve[m] = _interpolated(x.clip(0, 1), np.maximum.accumulate(y) if self.monotone else y, at)
        area = trapezoid(curve, at, axis=1)
        return {"": area, "curve": curve} | {name: found.astype(np.float64) for name, found in reasons.items()}


def _interpolated(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The curve through the points, (0, 0) and (1, 1): of equal x the largest y, and 1 at the end."""
    x, y = np.append(x, [0.0, 1.0]), np.append(y, [0.0, 1.0])
    order = np.lexsort((y, x))
    x, y = x[order], y[order]
    last = np.append(x[1:] > x[:-1], True)
    return np.interp(at, x[last], y[last])


def _length(image: Pixels, codec: str) -> int:
    """Bytes of a lossless file."""
    held = io.BytesIO()
    # a grey WebP would be stored as three channels all the same
    settings = {"lossless": True, "quality": 100} if codec == "webp" else {}
    Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image).convert("RGB").save(held, codec, **settings)
    return held.tell()
