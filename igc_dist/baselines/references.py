"""References: other rows of the data, by their labels or by what is predicted for the sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from igc_dist import seeds
from igc_dist.baselines.base import Baseline, Surroundings, check_positive, enough, rows_of
from igc_dist.records import Batch, ConfigError, Tensors

CHOICES = ("other_label", "top_k")
UNKNOWN = -1


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


def _labels(target: Tensor) -> Int64[np.ndarray, " n"]:
    """Labels by targets (n, ...), `UNKNOWN` by missing ones: whole numbers, or the place of the largest entry. Raises `ConfigError`."""
    flat = target.reshape(len(target), -1)
    known = ~flat.isnan().any(1)
    if flat.shape[1] == 1 and bool((flat[known] != flat[known].round()).any()):
        raise ConfigError("baseline References: y is no label but a real number, so no sample has another label: take baseline=resampled")
    found = (flat[:, 0] if flat.shape[1] == 1 else flat.argmax(1)).nan_to_num().long()
    return torch.where(known, found, UNKNOWN).cpu().numpy()
