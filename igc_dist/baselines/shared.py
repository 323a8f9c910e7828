"""Baselines that all samples share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from igc_dist import seeds
from igc_dist.arrays import real
from igc_dist.baselines.base import Baseline, Surroundings, check_positive, enough, is_number
from igc_dist.records import ConfigError
from igc_dist.tensors import Batch, Tensors


@dataclass(frozen=True)
class Constant(Baseline):
    """Every feature at `value`, in the units of the input."""

    value: float = 0.0
    shared = True
    pooled = False

    def __post_init__(self) -> None:
        if not is_number(self.value) or not math.isfinite(self.value):
            raise ConfigError(f"baseline.value={self.value!r}: give a finite number, for example 0.0")

    def draw(self, batch: Batch, block: range, around: Surroundings) -> Tensors:
        return tuple(torch.full((1, 1, *x.shape[1:]), float(self.value), dtype=x.dtype) for x in batch.inputs)


@dataclass(frozen=True)
class Zeros(Constant):
    """Every feature at 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.value != 0:
            raise ConfigError(f"Zeros(value={self.value}): use Constant({self.value})")


@dataclass(frozen=True)
class Constants(Baseline):
    """Several constants, in the units of the input. Each is a baseline with every feature at this value.

    For example, 0 and 1 are black and white.
    """

    values: Any
    shared = True
    pooled = False

    def __post_init__(self) -> None:
        values = tuple(self.values) if isinstance(self.values, list | tuple) else (self.values,)
        if not values or not all(is_number(value) and math.isfinite(value) for value in values):
            raise ConfigError(f"baseline.values={self.values!r}: give finite numbers, for example [0.0, 1.0]")
        object.__setattr__(self, "values", tuple(map(float, values)))

    def count(self, n_pool: int, features: Sequence[tuple[int, ...]]) -> int:
        return len(self.values)

    def draw(self, batch: Batch, block: range, around: Surroundings) -> Tensors:
        values = torch.tensor(self.values[block.start : block.stop], dtype=torch.float64)
        return tuple(
            values.to(x.dtype).reshape(-1, 1, *(1,) * (x.ndim - 1)).repeat(1, 1, *x.shape[1:]) for x in batch.inputs
        )


@dataclass(frozen=True, eq=False)
class Given(Baseline):
    """Baselines given by the user: per input one (*P) or several (B, *P), shared by all samples.

    Raises `ConfigError` for values that are not finite real numbers.
    """

    values: Any
    shared = True
    pooled = False

    def __post_init__(self) -> None:
        names = ["baseline"] if len(self.values) == 1 else [f"baseline[{i}]" for i in range(len(self.values))]
        values = tuple(real(value, name, ConfigError) for value, name in zip(self.values, names, strict=True))
        for value, name in zip(values, names, strict=True):
            wrong = torch.nonzero(~torch.isfinite(value))
            if len(wrong):
                at = tuple(wrong[0].tolist())
                raise ConfigError(f"{name} is {float(value[at])} at index {at}: give finite numbers")
        object.__setattr__(self, "values", values)

    def count(self, n_pool: int, features: Sequence[tuple[int, ...]]) -> int:
        if len(self.values) != len(features):
            raise ConfigError(
                f"baseline has {len(self.values)} tensors, but the model has {len(features)} inputs: give one each"
            )
        for value, shape in zip(self.values, features, strict=True):
            if tuple(value.shape) != tuple(shape) and (not len(value) or tuple(value.shape[1:]) != tuple(shape)):
                raise ConfigError(
                    f"baseline of shape {tuple(value.shape)}: expected {tuple(shape)}, or (B, *{tuple(shape)}) for B "
                    "baselines"
                )
        counts = [
            1 if value.ndim == len(shape) else len(value) for value, shape in zip(self.values, features, strict=True)
        ]
        if len(set(counts)) > 1:
            raise ConfigError(f"baseline: the inputs have {counts} baselines, the numbers must agree")
        return counts[0]

    def draw(self, batch: Batch, block: range, around: Surroundings) -> Tensors:
        rows = (
            value[None] if value.ndim == x.ndim - 1 else value
            for value, x in zip(self.values, batch.inputs, strict=True)
        )
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
