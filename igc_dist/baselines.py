"""Baselines: where the paths start.

A baseline object gives, for a micro-batch of n samples, `count` baselines each: (B, n, *P) per input. `shared` says
that all samples have the same ones; then the baseline output is constant and completeness is exact
(``rho0 = 0``, see `statistics/correlation.py`).
"""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int64
from scipy.ndimage import gaussian_filter
from torch import Tensor

from igc_dist import data as sources
from igc_dist import seeds
from igc_dist.data import Source
from igc_dist.records import Batch, ConfigError, Tensors


@dataclass(frozen=True)
class Surroundings:
    """What a baseline may draw from: the data, the rows of it that are fit for use, the run's seed, the mean of the inputs.

    `ranked`: the rows in the order of their predictions (`findings.by_prediction`). `classes`: the most predicted classes of each row of
    the data (`findings.top_classes`).
    """

    source: Source
    pool: Int64[np.ndarray, " N"]
    seed: int
    mean: Tensors | None = None
    ranked: Int64[np.ndarray, " N"] | None = None
    classes: Int64[np.ndarray, "M C"] | None = None


class Baseline(ABC):
    """`count` baselines per sample; `shared` by all samples or not.

    `needs_mean` asks pass 1 for the mean input, `needs_ranks` for the order of the predictions, `needs_classes` for so many of the most
    predicted classes of each sample.
    """

    shared: ClassVar[bool]
    needs_mean: ClassVar[bool] = False

    @property
    def needs_ranks(self) -> bool:
        return False

    @property
    def needs_classes(self) -> int:
        return 0

    def count(self, n_pool: int, features: Sequence[tuple[int, ...]]) -> int:
        """B, the number of baselines of a sample. Raises `ConfigError` if this cannot serve `n_pool` usable samples of these shapes."""
        return 1

    @abstractmethod
    def draw(self, batch: Batch, block: range, around: Surroundings) -> Tensors:
        """Baselines number `block` of each sample: per input (len(block), n, *P), or (len(block), 1, *P) when shared."""


@dataclass(frozen=True)
class Constant(Baseline):
    """Every feature at `value`, in the units of the input."""

    value: float = 0.0
    shared = True

    def draw(self, batch: Batch, block: range, around: Surroundings) -> Tensors:
        return tuple(torch.full((1, 1, *x.shape[1:]), float(self.value), dtype=x.dtype) for x in batch.inputs)


@dataclass(frozen=True)
class Zeros(Constant):
    """Every feature at 0."""

    def __post_init__(self) -> None:
        if self.value != 0:
            raise ConfigError(f"Zeros(value={self.value}): use Constant({self.value})")


@dataclass(frozen=True)
class Constants(Baseline):
    """Several constants, each a baseline with every feature at it, in the units of the input: black and white are 0 and 1."""

    values: Any
    shared = True

    def __post_init__(self) -> None:
        values = tuple(self.values) if isinstance(self.values, list | tuple) else (self.values,)
        if not values or not all(_is_number(value) and math.isfinite(value) for value in values):
            raise ConfigError(f"baseline.values={self.values!r}: give finite numbers, for example [0.0, 1.0]")
        object.__setattr__(self, "values", tuple(map(float, values)))

    def count(self, n_pool: int, features: Sequence[tuple[int, ...]]) -> int:
        return len(self.values)

    def draw(self, batch: Batch, block: range, around: Surroundings) -> Tensors:
        values = torch.tensor(self.values[block.start : block.stop], dtype=torch.float64)
        return tuple(values.to(x.dtype).reshape(-1, 1, *(1,) * (x.ndim - 1)).repeat(1, 1, *x.shape[1:]) for x in batch.inputs)


@dataclass(frozen=True, eq=False)
class Given(Baseline):
    """The user's own: per input one baseline (*P) or several (B, *P), shared by all samples."""

    values: Tensors
    shared = True

    def count(self, n_pool: int, features: Sequence[tuple[int, ...]]) -> int:
        if len(self.values) != len(features):
            raise ConfigError(f"baseline has {len(self.values)} tensors, but the model has {len(features)} inputs: give one each")
        for value, shape in zip(self.values, features, strict=True):
            if tuple(value.shape) != tuple(shape) and (not len(value) or tuple(value.shape[1:]) != tuple(shape)):
                raise ConfigError(
                    f"baseline of shape {tuple(value.shape)}: expected {tuple(shape)}, or (B, *{tuple(shape)}) for B baselines"
                )
        counts = [1 if value.ndim == len(shape) else len(value) for value, shape in zip(self.values, features, strict=True)]
        if len(set(counts)) > 1:
            raise ConfigError(f"baseline: the inputs have {counts} baselines, the numbers must agree")
        return counts[0]

    def draw(self, batch: Batch, block: range, around: Surroundings) -> Tensors:
        rows = (value[None] if value.ndim == x.ndim - 1 else value for value, x in zip(self.values, batch.inputs, strict=True))
        return tuple(row[block.start : block.stop, None].to(x.dtype) for row, x in zip(rows, batch.inputs, strict=True))


@dataclass(frozen=True)
class Mean(Baseline):
    """The mean of the inputs over the data set, found in pass 1."""

    shared = True
    needs_mean = True

    def draw(self, batch: Batch, block: range, around: Surroundings) -> Tensors:
        assert around.mean is not None
        return tuple(mean[None, None].to(x.dtype) for mean, x in zip(around.mean, batch.inputs, strict=True))


@dataclass(frozen=True)
class Samples(Baseline):
    """One set of `k` rows of the data, drawn without replacement and shared by all inputs: completeness is exact."""

    k: int
    shared = True

    def __post_init__(self) -> None:
        check_positive("baseline.k", self.k)

    def count(self, n_pool: int, features: Sequence[tuple[int, ...]]) -> int:
        return enough(self.k, n_pool)

    def draw(self, batch: Batch, block: range, around: Surroundings) -> Tensors:
        chosen = seeds.generator(around.seed, 0, "baselines.samples").choice(around.pool, self.k, replace=False)
        return tuple(x[:, None] for x in around.source.fetch(chosen[block.start : block.stop].tolist()).inputs)


@dataclass(frozen=True)
class Resampled(Baseline):
    """`k` rows of the data for each input, or of another data set `data`, drawn without replacement, addressed by (seed, sample index).

    Unbiased for the expectation over baselines; the baseline term rho0 is then random with mean 0 and standard
    deviation near ``1 / sqrt(N k)``. With `stratify` one row is drawn from each of k equal parts of the data in the order of the
    predictions, which makes rho0 several times smaller; not for another data set, whose predictions are not known.
    """

    k: int
    data: Any = None
    stratify: bool = False
    shared = False

    def __post_init__(self) -> None:
        check_positive("baseline.k", self.k)
        if self.stratify and self.data is not None:
            raise ConfigError("baseline.stratify=true with rows of another data set: its predictions are not known, drop one of them")

    @property
    def needs_ranks(self) -> bool:
        return self.stratify

    def count(self, n_pool: int, features: Sequence[tuple[int, ...]]) -> int:
        return enough(self.k, n_pool if self.data is None else len(sources.ensure(self.data)))

    def draw(self, batch: Batch, block: range, around: Surroundings) -> Tensors:
        source, pool = around.source, around.pool
        if self.data is not None:
            source = sources.ensure(self.data)
            pool = np.arange(len(source))
        generators = (seeds.generator(around.seed, int(i), "baselines.resampled") for i in batch.index)
        if self.stratify:
            assert around.ranked is not None
            # every row equally often, and no stratum with the same number for all samples
            cuts = (generator.permutation(self.k) + generator.random(self.k) for generator in generators)
            drawn = [around.ranked[(cut * (len(around.ranked) / self.k)).astype(np.int64)] for cut in cuts]
        else:
            drawn = [generator.choice(pool, self.k, replace=False) for generator in generators]
        return rows_of(source, np.stack(drawn, axis=1)[block.start : block.stop])


CHOICES = ("other_label", "top_k")


@dataclass(frozen=True)
class References(Baseline):
    """`k` rows of the data for each input that it is not one of, for attributors that lead there (IG²); addressed by (seed, sample index).

    `choice`: "other_label": rows whose label is another than the input's, drawn without replacement; y is the label, a whole number, or
    its largest entry is. "top_k": a row that the model takes for the class that it finds second most likely for the input, one for the
    third, and so on to number k + 1 ("relevant references", Zhuo and Ge 2024); classes that the model takes no row for are passed over.
    For references of one's own give tensors: they are shared by all inputs, also by those of the same label.
    """

    k: int = 8
    choice: str = "other_label"
    shared = False

    def __post_init__(self) -> None:
        check_positive("baseline.k", self.k)
        if self.choice not in CHOICES:
            raise ConfigError(f"baseline.choice={self.choice!r}: choose one of {', '.join(CHOICES)}")

    @property
    def needs_classes(self) -> int:
        return self.k + 1 if self.choice == "top_k" else 0

    def count(self, n_pool: int, features: Sequence[tuple[int, ...]]) -> int:
        return enough(self.k, n_pool)

    def draw(self, batch: Batch, block: range, around: Surroundings) -> Tensors:
        generators = [seeds.generator(around.seed, int(i), "baselines.references") for i in batch.index]
        drawn = self._likely(batch, generators, around) if self.needs_classes else self._others(batch, generators, around)
        return rows_of(around.source, np.stack(drawn, axis=1)[block.start : block.stop])

    def _likely(self, batch: Batch, generators: list[np.random.Generator], around: Surroundings) -> list[Int64[np.ndarray, " k"]]:
        """A row of each of the next classes, for each sample."""
        assert around.classes is not None
        taken_for = around.classes[around.pool, 0]
        return [
            np.array([generator.choice(around.pool[taken_for == c]) for c in around.classes[i, 1:]])
            for generator, i in zip(generators, batch.index, strict=True)
        ]

    def _others(self, batch: Batch, generators: list[np.random.Generator], around: Surroundings) -> list[Int64[np.ndarray, " k"]]:
        """The first rows of another label in a random order of each sample's own."""
        mine, orders = _labels(batch.target), [generator.permutation(around.pool) for generator in generators]
        drawn: list[list[int]] = [[] for _ in orders]
        start = 0
        while short := [n for n, rows in enumerate(drawn) if len(rows) < self.k]:
            if start >= len(around.pool):
                n = short[0]
                raise ConfigError(
                    f"baseline.k={self.k} references of another label: sample {batch.index[n]} has label {mine[n]}, only {len(drawn[n])} "
                    f"of {len(around.pool)} usable samples have another: give fewer, or take baseline=resampled, whatever the label"
                )
            tried = np.stack([orders[n][start : start + self.k] for n in short])
            unique, where = np.unique(tried, return_inverse=True)
            labels = _labels(around.source.fetch(unique.tolist()).target)[where.reshape(tried.shape)]
            for n, rows, label in zip(short, tried, labels, strict=True):
                drawn[n] += rows[(label != mine[n]) & (label != UNKNOWN)].tolist()
            start += self.k
        return [np.array(rows[: self.k], dtype=np.int64) for rows in drawn]


UNKNOWN = -1


def _labels(target: Tensor) -> Int64[np.ndarray, " n"]:
    """Labels by targets (n, ...), `UNKNOWN` by missing ones: whole numbers, or the place of the largest entry. Raises `ConfigError`."""
    flat = target.reshape(len(target), -1)
    known = ~flat.isnan().any(1)
    if flat.shape[1] == 1 and bool((flat[known] != flat[known].round()).any()):
        raise ConfigError("baseline References: y is no label but a real number, so no sample has another label: take baseline=resampled")
    found = (flat[:, 0] if flat.shape[1] == 1 else flat.argmax(1)).nan_to_num().long()
    return torch.where(known, found, UNKNOWN).cpu().numpy()


def rows_of(source: Source, rows: Int64[np.ndarray, "B n"]) -> Tensors:
    """These rows of the data, (B, n, *P) per input, each read once."""
    unique, where = np.unique(rows, return_inverse=True)
    return tuple(x[torch.from_numpy(where.reshape(rows.shape))] for x in source.fetch(unique.tolist()).inputs)


@dataclass(frozen=True)
class Partners(Baseline):
    """Other rows of the data, drawn by the design `pairs` (`designs.Pairs`), each serving as the baseline of the other."""

    shared = False

    def draw(self, batch: Batch, block: range, around: Surroundings) -> Tensors:
        raise TypeError("partners are drawn by the design")


@dataclass(frozen=True)
class Noise(Baseline):
    """`k` draws of Gaussian noise ``mean + std * N(0, 1)`` per input, in its units, addressed by (seed, sample index, draw)."""

    std: float = 1.0
    mean: float = 0.0
    k: int = 1
    shared = False

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
                    normal = seeds.generator(around.seed, int(n), f"baselines.noise.{i}", b).standard_normal(x.shape[1:])
                    drawn[row, column] = torch.as_tensor(self.mean + self.std * normal)
            return drawn

        return tuple(noise(x, i) for i, x in enumerate(batch.inputs))


@dataclass(frozen=True)
class Blur(Baseline):
    """The input itself, blurred by a Gaussian of `sigma` pixels over its last two dimensions (edges reflected, cut at 4 sigma)."""

    sigma: float = 2.0
    shared = False

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ConfigError(f"baseline.sigma={self.sigma}: give a width in pixels above 0")

    def count(self, n_pool: int, features: Sequence[tuple[int, ...]]) -> int:
        for shape in features:
            if len(shape) < 2:
                raise ConfigError(f"baseline Blur needs inputs with at least two dimensions (..., height, width), got {tuple(shape)}")
        return 1

    def draw(self, batch: Batch, block: range, around: Surroundings) -> Tensors:
        def blurred(x: Tensor) -> Tensor:
            width = (0.0,) * (x.ndim - 2) + (float(self.sigma),) * 2
            return torch.from_numpy(gaussian_filter(x.double().cpu().numpy(), width, mode="reflect", truncate=4.0)).to(x.dtype)

        return tuple(blurred(x)[None] for x in batch.inputs)


def number(baseline: Baseline, source: Source) -> int:
    """Baselines per sample. Raises `ConfigError` if the data cannot give them."""
    return baseline.count(len(source), tuple(tuple(x.shape[1:]) for x in source.fetch([0]).inputs))


def check_positive(name: str, value: Any) -> None:
    """Raise `ConfigError` unless `value` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ConfigError(f"{name}={value!r}: give an integer of at least 1")


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def enough(k: int, n_pool: int) -> int:
    """`k`, or `ConfigError` if `k` rows cannot be drawn without replacement from `n_pool`."""
    if k > n_pool:
        raise ConfigError(f"baseline.k={k} rows cannot be drawn from {n_pool} usable samples: give at most {n_pool}")
    return k


def ensure(baseline: Any) -> Baseline:
    """Coerce to a `Baseline`: None (zeros), a float (constant) or a list of them, an int K (K shared data samples), tensors, an object."""
    if isinstance(baseline, Baseline):
        return baseline
    if baseline is None:
        return Zeros()
    if isinstance(baseline, bool):
        raise ConfigError(f"baseline={baseline!r}: give None, a float, an int K, tensors, or a baseline object")
    if isinstance(baseline, numbers.Integral):
        if baseline < 1:
            raise ConfigError(
                f"baseline={baseline}: an int is a number of data samples, at least 1; for a constant give a float ({float(baseline)})"
            )
        return Samples(int(baseline))
    if isinstance(baseline, numbers.Real):
        return Constant(float(baseline))
    if isinstance(baseline, Tensor | np.ndarray):
        return Given((torch.as_tensor(baseline),))
    if isinstance(baseline, list | tuple) and baseline and all(isinstance(value, Tensor | np.ndarray) for value in baseline):
        return Given(tuple(torch.as_tensor(value) for value in baseline))
    if isinstance(baseline, list | tuple) and baseline and all(map(_is_number, baseline)):
        return Constants(tuple(baseline))
    raise ConfigError(
        f"baseline={baseline!r} of type {type(baseline).__name__}: give None, a float or several, an int K, tensors, or a baseline object"
    )
