"""Baselines that differ between samples: drawn rows of the data, noise, and the blurred sample itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from igc_dist import data as sources
from igc_dist import seeds
from igc_dist.baselines.base import Baseline, Surroundings, check_positive, enough, rows_of
from igc_dist.data import Source
from igc_dist.records import ConfigError
from igc_dist.tensors import Batch, Tensors


@dataclass(frozen=True)
class Resampled(Baseline):
    """For each input, `k` rows of the data (or of another data set `data`), drawn without replacement.

    The draws are addressed by (seed, sample index) and are unbiased for the expectation over baselines. The baseline
    term rho0 is random with mean 0 and standard deviation near ``1 / sqrt(N k)``. With `stratify`, the data are sorted
    by prediction and cut into k equal parts, and one row is drawn from each part. This makes rho0 several times
    smaller. It is not possible for another data set, because its predictions are not known.
    """

    k: int
    data: Any = None
    stratify: bool = False
    shared = False

    def __post_init__(self) -> None:
        check_positive("baseline.k", self.k)
        if self.stratify and self.data is not None:
            raise ConfigError(
                "baseline.stratify=true with rows of another data set: its predictions are not known, drop one of them"
            )

    @property
    def needs_ranks(self) -> bool:
        return self.stratify

    @cached_property
    def _other(self) -> Source:
        """The other data set. It is prepared once, as a data module may split its data at random each time."""
        return sources.ensure(self.data)

    def count(self, n_pool: int, features: Sequence[tuple[int, ...]]) -> int:
        return enough(self.k, n_pool if self.data is None else len(self._other))

    def draw(self, batch: Batch, block: range, around: Surroundings) -> Tensors:
        source, pool = around.source, around.pool
        if self.data is not None:
            source = self._other
            pool = np.arange(len(source))
        generators = (seeds.generator(around.seed, int(i), "baselines.resampled") for i in batch.index)
        if self.stratify:
            assert around.ranked is not None
            # every row is drawn equally often; the order of the strata is random for each sample
            cuts = (generator.permutation(self.k) + generator.random(self.k) for generator in generators)
            drawn = [around.ranked[(cut * (len(around.ranked) / self.k)).astype(np.int64)] for cut in cuts]
        else:
            drawn = [generator.choice(pool, self.k, replace=False) for generator in generators]
        return rows_of(source, np.stack(drawn, axis=1)[block.start : block.stop])


@dataclass(frozen=True)
class Partners(Baseline):
    """Other rows of the data, drawn by the design `pairs` (`designs.Pairs`): each of a pair is the other's baseline."""

    shared = False

    def draw(self, batch: Batch, block: range, around: Surroundings) -> Tensors:
        raise TypeError("partners are drawn by the design")


@dataclass(frozen=True)
class Noise(Baseline):
    """`k` draws of Gaussian noise ``mean + std * N(0, 1)`` per input, in the units of the input.

    The draws are addressed by (seed, sample index, draw).
    """

    std: float = 1.0
    mean: float = 0.0
    k: int = 1
    shared = False
    pooled = False

    def __post_init__(self) -> None:
        check_positive("baseline.k", self.k)
        if not self.std >= 0:
            raise ConfigError(f"baseline.std={self.std}: give a standard deviation of at least 0")

    def count(self, n_pool: int, features: Sequence[tuple[int, ...]]) -> int:
        return self.k

    def draw(self, batch: Batch, block: range, around: Surroundings) -> Tensors:
        def noise(x: Tensor, i: int) -> Tensor:
            drawn = x.new_empty(len(block), *x.shape)
            for row, b in enumerate(block):
                for column, n in enumerate(batch.index):
                    normal = seeds.generator(around.seed, int(n), f"baselines.noise.{i}", b).standard_normal(
                        x.shape[1:]
                    )
                    drawn[row, column] = torch.as_tensor(self.mean + self.std * normal)
            return drawn

        return tuple(noise(x, i) for i, x in enumerate(batch.inputs))


@dataclass(frozen=True)
class Blur(Baseline):
    """The input, blurred by a Gaussian of `sigma` pixels over its last two dimensions.

    Edges are reflected, and the kernel is cut off at 4 sigma.
    """

    sigma: float = 2.0
    shared = False
    pooled = False

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ConfigError(f"baseline.sigma={self.sigma}: give a width in pixels above 0")

    def count(self, n_pool: int, features: Sequence[tuple[int, ...]]) -> int:
        for shape in features:
            if len(shape) < 2:
                raise ConfigError(
                    f"baseline Blur needs inputs with at least two dimensions (..., height, width), got {tuple(shape)}"
                )
        return 1

    def draw(self, batch: Batch, block: range, around: Surroundings) -> Tensors:
        def blurred(x: Tensor) -> Tensor:
            width = (0.0,) * (x.ndim - 2) + (float(self.sigma),) * 2
            return torch.from_numpy(gaussian_filter(x.double().cpu().numpy(), width, mode="reflect", truncate=4.0)).to(
                x.dtype
            )

        return tuple(blurred(x)[None] for x in batch.inputs)
