"""Lossy: whether a map stays when its image is compressed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from PIL import Image
from torch import Tensor

from igc_dist.metrics.base import FOUR, Effort, Maps, Predict, Subject, whole
from igc_dist.metrics.images import OfImages
from igc_dist.metrics.similarity import LIKENESS, spearman, ssim
from igc_dist.records import ConfigError

JPEG = 3e-7
"""Seconds per pixel to write and read a JPEG file, on one core of an Intel Xeon at 2.5 GHz."""


@dataclass(frozen=True)
class Lossy(OfImages):
    """How a map a changes to b when its image is a JPEG file, on average over the `qualities`.

    The score is ``mean_i (a_i / |a|_1 - b_i / |b|_1)^2``, the mean squared
    error of maps of unit L1 norm; lower is better. "_l2" is the same with the Euclidean norm, and "_sum" with the
    signed sum, as in the study (arXiv:2409.09043): it grows without bound where the sum is near 0. "_spearman" and
    "_ssim" are the rank correlation and the structural similarity (of values summed over channels); higher is better.
    Maps of the files are asked of `explain`. Undefined quotients are NaN.
    """

    name = "lossy"
    qualities: Sequence[int] = (95, 75, 50)
    workers: int = 1

    def __post_init__(self) -> None:
        whole(self, "workers")
        if not self.qualities or not all(isinstance(q, int) and 1 <= q <= 100 for q in self.qualities):
            raise ConfigError(f"lossy: qualities={self.qualities!r}, give whole numbers from 1 to 100")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"explain"})

    def effort(self, subject: Subject) -> Effort:
        return Effort(
            walks=len(self.qualities),
            seconds=len(self.qualities) * (JPEG / self.workers + LIKENESS) * subject.worked,
            held=3 * FOUR * subject.size,
        )

    def __call__(self, predict: Predict, maps: Maps) -> dict[str, Float64[Tensor, "M *T"]]:
        shown, a = self.pixels(maps.x), maps.values
        found: dict[str, list[Tensor]] = {}
        for quality in self.qualities:
            with ThreadPoolExecutor(self.workers) as pool:
                files = list(pool.map(partial(_compressed, quality=quality), shown))
            x = self.inputs(np.array(files, np.uint8).reshape(shown.shape), maps.x)
            b = predict.explained(x, maps)
            for name, part in _changes(a, b).items():
                found.setdefault(name, []).append(part)
        return {name: torch.stack(parts, 1).mean(1) for name, parts in found.items()}


def _changes(a: Float64[Tensor, "M C H W"], b: Float64[Tensor, "M C H W"]) -> dict[str, Float64[Tensor, " M"]]:
    """The scores of one quality."""
    one, other = a.flatten(1), b.flatten(1)
    sizes = {"": [z.abs().sum(1) for z in (one, other)], "l2": [z.norm(dim=1) for z in (one, other)],
             "sum": [z.sum(1) for z in (one, other)]}  # fmt: skip
    found = {}
    for name, (p, q) in sizes.items():
        error = (one / p[:, None] - other / q[:, None]).square().mean(1)
        found[name] = torch.where((p != 0) & (q != 0), error, torch.nan)
    flat = [z.sum(1) for z in (a, b)]
    found["spearman"] = spearman(*(z.flatten(1) for z in flat))
    alike = [ssim(p, q) for p, q in zip(*(z.cpu().numpy() for z in flat), strict=True)]
    found["ssim"] = torch.tensor(alike, dtype=torch.float64, device=a.device)
    return found


def _compressed(image: UInt8[np.ndarray, "H W C"], quality: int) -> UInt8[np.ndarray, "H W C"]:
    """The image as its JPEG file has it."""
    held = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image).save(held, "jpeg", quality=quality)
    return np.asarray(Image.open(held)).reshape(image.shape)
