"""References: rows of the data, chosen by their labels or by the model's prediction for the sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from igc_dist import seeds
from igc_dist.baselines.base import Baseline, Surroundings, check_positive, enough, rows_of
from igc_dist.records import ConfigError
from igc_dist.tensors import Batch, Tensors

CHOICES = ("other_label", "top_k")
UNKNOWN = -1


@dataclass(frozen=True)
class References(Baseline):
    """For each input, `k` other rows of the data, as references for attributors that lead there (IG²).

    The draws are addressed by (seed, sample index). `choice` is one of:

    "other_label": rows with another label than the input, drawn without replacement. The label is y if y is a whole
    number, else the position of its largest entry.

    "top_k": one row of each class from the second to number k + 1, in the order in which the model finds the classes
    likely for the input ("relevant references", Zhuo and Ge 2024). A row belongs to the class that the model predicts
    for it. Classes without a row are skipped.

    To use your own references, give tensors: all inputs share them, including inputs of the same label.
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
        drawn = (
            self._likely(batch, generators, around) if self.needs_classes else self._others(batch, generators, around)
        )
        return rows_of(around.source, np.stack(drawn, axis=1)[block.start : block.stop])

    def _likely(
        self, batch: Batch, generators: list[np.random.Generator], around: Surroundings
    ) -> list[Int64[np.ndarray, " k"]]:
        """For each sample, one row of each of its next most likely classes."""
        assert around.classes is not None
        taken_for = around.classes[around.pool, 0]
        return [
            np.array([generator.choice(around.pool[taken_for == c]) for c in around.classes[i, 1:]])
            for generator, i in zip(generators, batch.index, strict=True)
        ]

    def _others(
        self, batch: Batch, generators: list[np.random.Generator], around: Surroundings
    ) -> list[Int64[np.ndarray, " k"]]:
        """For each sample, the first rows of another label in a random order of its own."""
        mine, orders = _labels(batch.target), [generator.permutation(around.pool) for generator in generators]
        drawn: list[list[int]] = [[] for _ in orders]
        start = 0
        while short := [n for n, rows in enumerate(drawn) if len(rows) < self.k]:
            if start >= len(around.pool):
                n = short[0]
                raise ConfigError(
                    f"baseline.k={self.k} references of another label: sample {batch.index[n]} has label {mine[n]}, "
                    f"only {len(drawn[n])} "
                    f"of {len(around.pool)} usable samples have another: give fewer, or take baseline=resampled, "
                    "whatever the label"
                )
            tried = np.stack([orders[n][start : start + self.k] for n in short])
            unique, where = np.unique(tried, return_inverse=True)
            labels = _labels(around.source.fetch(unique.tolist()).target)[where.reshape(tried.shape)]
            for n, rows, label in zip(short, tried, labels, strict=True):
                drawn[n] += rows[(label != mine[n]) & (label != UNKNOWN)].tolist()
            start += self.k
        return [np.array(rows[: self.k], dtype=np.int64) for rows in drawn]


def _labels(target: Tensor) -> Int64[np.ndarray, " n"]:
    """Labels from targets (n, ...): whole numbers, or the positions of the largest entries.

    A missing target gives `UNKNOWN`. Raises `ConfigError`.
    """
    flat = target.reshape(len(target), -1)
    known = ~flat.isnan().any(1)
    if flat.shape[1] == 1 and bool((flat[known] != flat[known].round()).any()):
        raise ConfigError(
            "baseline References: y is no label but a real number, so no sample has another label: take "
            "baseline=resampled"
        )
    found = (flat[:, 0] if flat.shape[1] == 1 else flat.argmax(1)).nan_to_num().long()
    return torch.where(known, found, UNKNOWN).cpu().numpy()
