"""What insertion and deletion share: samples of which the positions of the largest values are exchanged first."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int32, Int64
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from igc_dist.metrics.base import FOUR, Effort, Maps, Metric, Predict, Subject, check_of, choice, whole
from igc_dist.records import ConfigError

STARTS = ("black", "blurred", "mean", "baseline")
RANKS = ("signed", "absolute")
KERNEL, SIGMA = 11, 5.0
"""RISE's blur: pixels of the kernel, and its width."""
SMALL = 1e-6
"""A curve is not divided by a score of smaller size: its normalised score is NaN."""


@dataclass(frozen=True)
class Curve(Metric):
    """The score while positions change between the sample x and another image x0.

    Positions are ordered by their values, the largest first (`rank`: "signed"; "absolute" takes ``|v|``), equal ones
    by their place. ``m_t`` of the S positions are exchanged at point t: ``m_t = floor(t S / steps)`` for t = 0 to
    `steps`, or 0, `pixels`, 2 `pixels`, ..., S. The score is the area under the curve by the trapezoid rule over
    ``m_t / S``. "_normalised" is the same divided by the score of x itself; NaN if that is smaller than 1e-6.

    `start` is x0: "black", zeros (of the inputs as the model gets them); "blurred", x blurred as RISE does (11 x 11
    pixels, sigma 5, zeros around the image); "mean", the mean sample of the data; "baseline", what `score` was given.
    `of`: "probability" (softmax) or "logit" (the output as it is).
    """

    start: str = "black"
    of: str = "probability"
    steps: int = 20
    pixels: int | None = None
    rank: str = "signed"

    def __post_init__(self) -> None:
        choice(self, "start", STARTS)
        choice(self, "rank", RANKS)
        whole(self, "steps")
        if self.pixels is not None:
            whole(self, "pixels")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.start} & {"mean", "baseline"})

    def check(self, subject: Subject) -> None:
        check_of(self, self.of, subject)
        if self.start == "blurred" and len(subject.shape) != 3:
            raise ConfigError(
                f"{self.name}: start='blurred' needs images (channels, height, width), and samples have shape "
                f"{subject.shape}: choose black, mean or baseline"
            )

    def counts(self, n_positions: int) -> Int64[np.ndarray, " T"]:
        """``m_t``, the number of exchanged positions at each point."""
        if self.pixels is None:
            return np.arange(self.steps + 1, dtype=np.int64) * n_positions // self.steps
        return np.append(np.arange(0, n_positions, self.pixels, dtype=np.int64), n_positions)

    def axis(self, subject: Subject) -> Float64[np.ndarray, " T"]:
        return self.counts(subject.n_positions) / subject.n_positions

    def effort(self, subject: Subject) -> Effort:
        return Effort(
            len(self.counts(subject.n_positions)),
            held=FOUR * (subject.n_positions + (self.start == "blurred") * subject.size),
            row=8 * subject.size,
        )

    @abstractmethod
    def row(
        self, exchanged: Bool[Tensor, "m t *S"], x: Float[Tensor, "m 1 *P"], x0: Float[Tensor, "m 1 *P"]
    ) -> Float[Tensor, "m t *P"]:
        """Samples of which these positions are exchanged."""

    @abstractmethod
    def whole(self, curve: Float64[Tensor, "M T"]) -> Float64[Tensor, " M"]:
        """The score of x itself, from the curve."""

    def __call__(self, predict: Predict, maps: Maps) -> dict[str, Float64[Tensor, "M *T"]]:
        ranks = ranks_of(maps.positions(), self.rank)
        n_positions = ranks.shape[1]
        ranks = maps.spread(ranks)[:, None]
        x, x0 = maps.x[:, None], self._start(maps)[:, None]
        counts = torch.as_tensor(self.counts(n_positions), device=ranks.device)
        below = counts.int().reshape(-1, *(1,) * (ranks.ndim - 2))

        def made(m: slice, t: slice) -> Float[Tensor, "m t *P"]:
            return self.row(ranks[m] < below[t], x[m], x0[m])

        curve = predict.grid(self.of, maps.output, len(counts), made)
        area = torch.trapezoid(curve, counts.double() / n_positions, dim=1)
        last = self.whole(curve)
        normalised = torch.where(last.abs() < SMALL, torch.nan, area / last)
        return {"": area, "normalised": normalised, "curve": curve}

    def _start(self, maps: Maps) -> Float[Tensor, "M *P"]:
        if self.start == "blurred":
            return blurred(maps.x)
        if self.start == "black":
            return maps.x.new_zeros(()).expand_as(maps.x)  # no memory to read
        x0 = maps.mean if self.start == "mean" else maps.baseline
        assert x0 is not None  # `needs` says so
        return x0.expand_as(maps.x)


def blurred(x: Float[Tensor, "M C H W"]) -> Float[Tensor, "M C H W"]:
    """Images under RISE's blur: an 11 x 11 Gaussian of sigma 5, folded back at its own edges; zeros around the image.

    Source: Petsiuk, Das and Saenko 2018, arXiv:1806.07421, and its program.
    """
    kind = x.dtype
    kernel = gaussian_filter1d(np.eye(KERNEL)[KERNEL // 2], SIGMA).tolist()
    # sums of shifted images, since a convolution in float64 makes a column of 11 numbers for each pixel
    for dim, around in ((2, (0, 0, KERNEL // 2, KERNEL // 2)), (3, (KERNEL // 2, KERNEL // 2, 0, 0))):
        padded = torch.nn.functional.pad(x.double(), around)
        smooth = torch.zeros_like(x, dtype=torch.float64)
        for shift, weight in enumerate(kernel):
            smooth.add_(padded.narrow(dim, shift, x.shape[dim]), alpha=weight)
        x = smooth
    return x.to(kind)


def ranks_of(values: Float64[Tensor, "M S"], rank: str = "signed") -> Int32[Tensor, "M S"]:
    """The place of each position in its order: 0 for the largest value; equal values in the order of positions."""
    order = (values.abs() if rank == "absolute" else values).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(values.shape[1], device=values.device, dtype=torch.int32).expand_as(order)
    return torch.empty_like(places, memory_format=torch.contiguous_format).scatter_(1, order, places)
