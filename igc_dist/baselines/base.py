"""The contract of baselines, and what they may draw from."""

from __future__ import annotations

import numbers
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int64

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
    predicted classes of each sample. `pooled`: they depend on the data set, not on the sample alone, so that runs over parts of it cannot
    be merged.
    """

    shared: ClassVar[bool]
    pooled: ClassVar[bool] = True
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


def rows_of(source: Source, rows: Int64[np.ndarray, "B n"]) -> Tensors:
    """These rows of the data, (B, n, *P) per input, each read once."""
    unique, where = np.unique(rows, return_inverse=True)
    return tuple(x[torch.from_numpy(where.reshape(rows.shape))] for x in source.fetch(unique.tolist()).inputs)


def check_positive(name: str, value: Any) -> None:
    """Raise `ConfigError` unless `value` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ConfigError(f"{name}={value!r}: give an integer of at least 1")


def enough(k: int, n_pool: int) -> int:
    """`k`, or `ConfigError` if `k` rows cannot be drawn without replacement from `n_pool`."""
    if k > n_pool:
        raise ConfigError(f"baseline.k={k} rows cannot be drawn from {n_pool} usable samples: give at most {n_pool}")
    return k


def is_number(value: Any) -> bool:
    """Whether it is a real number, and not a truth value."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
