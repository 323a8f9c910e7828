"""ROAD: how fast the model fails when features are removed so that their mask does not show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from scipy.sparse import coo_array
from scipy.sparse.linalg import splu
from torch import Tensor

from igc_dist.metrics.base import FOUR, OF, Effort, Maps, Metric, Predict, Subject, check_of, choice
from igc_dist.metrics.curves import RANKS, ranks_of
from igc_dist.records import ConfigError
from igc_dist.seeds import generator

NEIGHBOURS = {(down, right): 1 / 6 if 0 in (down, right) else 1 / 12
              for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)}  # fmt: skip
"""The weights of the eight neighbours of a pixel."""

SECONDS, SYSTEM = 4e-6, 1500
"""Seconds and bytes per pixel to fill half of an image, on one core of an Intel Xeon at 2.5 GHz."""


@dataclass(frozen=True)
class Road(Metric):
    """The score of x after the share t of its pixels, those of the largest values, is removed: its mean over `shares`.

    A removed pixel becomes the weighted mean of its neighbours (1/6 beside, 1/12 at the corners), itself removed or
    not, by one sparse linear system, and normal noise of standard deviation `noise` is added. `first`: "most" removes
    the largest values first, and lower is better; "least" the smallest, and higher is better. `of`: "recognised"
    (whether the output is the largest, whose mean is ROAD's accuracy), "probability" or "logit".

    Source: Rong et al. 2022, arXiv:2202.00449.
    """

    name = "road"
    shares: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    first: str = "most"
    of: str = "recognised"
    rank: str = "signed"
    noise: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        choice(self, "first", ("most", "least"))
        choice(self, "rank", RANKS)
        if not self.shares or not all(0 <= share < 1 for share in self.shares):
            raise ConfigError(f"road: shares={self.shares!r}, give shares of the pixels from 0 to below 1")

    def check(self, subject: Subject) -> None:
        if len(subject.shape) != 3:
            raise ConfigError(f"road fills pixels from their neighbours, and samples have shape {subject.shape}")
        choice(self, "of", ("recognised", *OF))
        check_of(self, "logit" if self.of == "recognised" and len(subject.first) > 1 else self.of, subject)

    def axis(self, subject: Subject) -> Float64[np.ndarray, " T"]:
        return np.asarray(self.shares, np.float64)

    def effort(self, subject: Subject) -> Effort:
        return Effort(
            len(self.shares),
            seconds=len(self.shares) * SECONDS * subject.worked,
            held=FOUR * subject.size,
            row=FOUR * subject.size,
            fixed=SYSTEM * subject.n_positions,
        )

    def __call__(self, predict: Predict, maps: Maps) -> dict[str, Float64[Tensor, "M *T"]]:
        values = maps.positions()
        ranks = ranks_of(values if self.first == "most" else -values, self.rank).cpu().numpy()
        samples, n, form = maps.sample.tolist(), values.shape[1], maps.x.shape[2:]

        def made(m: slice, t: slice) -> Float[Tensor, "m t *P"]:
            rows = [
                [self._without(maps.x[i], (ranks[i] < round(share * n)).reshape(form), samples[i], share)
                 for share in self.shares[t]]
                for i in range(len(maps))[m]
            ]  # fmt: skip
            return torch.as_tensor(np.array(rows)).to(maps.x)

        curve = predict.grid(self.of, maps.output, len(self.shares), made)
        return {"": curve.mean(1), "curve": curve}

    def _without(
        self, x: Float[Tensor, "C H W"], removed: Bool[np.ndarray, "H W"], sample: int, share: float
    ) -> Float64[np.ndarray, "C H W"]:
        filled = imputed(x.double().cpu().numpy(), removed)
        draws = generator(self.seed, sample, self.name, round(1e6 * share)).standard_normal(x.shape)
        return np.where(removed, filled + self.noise * draws, filled)


def imputed(x: Float64[np.ndarray, "C H W"], removed: Bool[np.ndarray, "H W"]) -> Float64[np.ndarray, "C H W"]:
    """The image whose removed pixels are the weighted means of their neighbours. One pixel at least is kept."""
    if not removed.any():
        return x
    number = np.full(removed.shape, -1)
    number[removed] = np.arange(removed.sum())
    size, height, width = int(removed.sum()), *removed.shape
    rows, columns, entries = [np.arange(size)], [np.arange(size)], [np.zeros(size)]
    known = np.zeros((size, len(x)))
    down, right = np.nonzero(removed)
    for (dh, dw), weight in NEIGHBOURS.items():
        h, w = down + dh, right + dw
        there = (h >= 0) & (h < height) & (w >= 0) & (w < width)
        entries[0] = entries[0] + weight * there
        at = np.flatnonzero(there)
        other = number[h[at], w[at]]
        unknown = other >= 0
        rows.append(at[unknown])
        columns.append(other[unknown])
        entries.append(np.full(unknown.sum(), -weight))
        kept = at[~unknown]
        known[kept] += weight * x[:, h[kept], w[kept]].T
    system = coo_array((np.concatenate(entries), (np.concatenate(rows), np.concatenate(columns))), (size, size))
    found = x.copy()
    found[:, removed] = splu(system.tocsc()).solve(known).T
    return found
