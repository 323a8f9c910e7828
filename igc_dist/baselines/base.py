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
from igc_dist.records import ConfigError
from igc_dist.tensors import Batch, Tensors


@dataclass(frozen=True)
class Surroundings:
    """What a baseline may draw from: the data set, its usable rows (`pool`), the run's seed, the mean input.

    `ranked`: the rows in the order of their predictions (`findings.by_prediction`). `classes`: the most predicted
    classes of each row of the data (`findings.top_classes`).
    """

    source: Source
    pool: Int64[np.ndarray, " N"]
    seed: int
    mean: Tensors | None = None
    ranked: Int64[np.ndarray, " N"] | None = None
    classes: Int64[np.ndarray, "M C"] | None = None


class Baseline(ABC):
    """The contract of a baseline: it gives `count` baselines per sample.

    `shared`: all samples have the same baselines. `pooled`: the baselines depend on the data set and not on the sample
    alone, so runs over parts of the data set cannot be merged. Pass 1 finds what a baseline needs: the mean input
    (`needs_mean`), the order of the predictions (`needs_ranks`), the most predicted classes of each sample
    (`needs_classes` is their number).
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
        """The number B of baselines per sample. Raises `ConfigError` if samples or shapes do not fit."""
        return 1

    @abstractmethod
    def draw(self, batch: Batch, block: range, around: Surroundings) -> Tensors:
        """Baselines `block` of each sample, per input: (len(block), n, *P), or (len(block), 1, *P) if shared."""

    def drawn(self, batch: Batch, block: range, around: Surroundings) -> Tensors:
        """What `draw` gives. Raises `ConfigError` unless it is of these shapes."""
        found, head = self.draw(batch, block, around), (len(block), 1 if self.shared else len(batch.index))
        told = [tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__ for x in found]
        expected = [(*head, *x.shape[1:]) for x in batch.inputs]
        if told != expected:
            raise ConfigError(
                f"{type(self).__name__}.draw gave {told}, expected tensors of shapes {expected}: baselines, samples (1 "
                "where they are shared), and features of each input"
            )
        return found


def rows_of(source: Source, rows: Int64[np.ndarray, "B n"]) -> Tensors:
    """The given rows of the data, (B, n, *P) per input. Each row is read once."""
    unique, where = np.unique(rows, return_inverse=True)
    return tuple(x[torch.from_numpy(where.reshape(rows.shape))] for x in source.fetch(unique.tolist()).inputs)


def check_positive(name: str, value: Any) -> None:
    """Raise `ConfigError` unless `value` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ConfigError(f"{name}={value!r}: give an integer of at least 1")


def enough(k: int, n_pool: int) -> int:
    """Return `k`. Raises `ConfigError` if `k` rows cannot be drawn without replacement from `n_pool`."""
    if k > n_pool:
        raise ConfigError(f"baseline.k={k} rows cannot be drawn from {n_pool} usable samples: give at most {n_pool}")
    return k


def is_number(value: Any) -> bool:
    """Whether `value` is a real number but not a bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
