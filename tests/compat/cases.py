"""Data sets and literal references for the tests of `igc_dist.compat`: each number from loops over rows and nodes, in
float64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from igc_dist import seeds
from tests import models
from tests.oracles import attributions


class Items(Dataset[Any]):
    """Rows in memory, ``(x, y)`` or ``((x1, x2, ...), y)``; `reads` counts how often each was read."""

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y = x, y
        self.reads: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> Any:
        self.reads[index] += 1
        return (tuple(x[index] for x in self.x) if isinstance(self.x, tuple) else self.x[index]), self.y[index]


class Drawn(Dataset[Any]):
    """The data set of the package's guide: every access draws a new item from `rng`, whatever the index; y is the mean
    of x."""

    def __init__(self, n: int = 100, seed: int = 100) -> None:
        self.n, self.rng = n, torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = torch.rand(5, generator=self.rng)
        return x, x.mean()[None]


D4 = Items(models.D4, models.Y4[:, None])
"""Four rows, one target; `models.linear4` and `models.product4` go with it."""


def close(found: Any, expected: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=tolerance)


def arrays(dataset: Items) -> tuple[list[np.ndarray], np.ndarray]:
    """The inputs as float64 arrays, and the targets."""
    x = dataset.x if isinstance(dataset.x, tuple) else (dataset.x,)
    return [np.asarray(one, np.float64) for one in x], np.asarray(dataset.y, np.float64)


def nodes(n: int) -> tuple[list[float], list[float]]:
    """The trapezoidal rule on n points."""
    ends = [0.5 / (n - 1)] if n > 1 else []
    return [k / (n - 1) for k in range(n)], [*ends, *[1 / (n - 1)] * (n - 2), *ends]


def ig(model: nn.Module, dataset: Items, starts: Any, outputs: Sequence[int], n_steps: int) -> tuple[np.ndarray, ...]:
    """Integrated Gradients of every sample; `starts` are baselines for all (tuples of arrays), or a list of such for
    each sample."""
    x, y = arrays(dataset)
    baselines = starts if isinstance(starts[0], list) else attributions.shared(starts, len(y))
    return attributions.integrated_gradients(model, x, baselines, outputs, *nodes(n_steps))


def orders(n: int, n_baselines: int, n_iter: int, n_components: int, seed: int = 100) -> list[Any]:
    """The permutations that are addressed to each sample and baseline: given data for the reference."""
    draw = lambda i, k: seeds.generator(seed, i, "attributors.shapley", k).permutation(n_components).tolist()  # noqa: E731
    return [[[draw(i, b * n_iter + k) for k in range(n_iter)] for b in range(n_baselines)] for i in range(n)]


def predicted(model: nn.Module, dataset: Items) -> np.ndarray:
    """f(x), (N, J)."""
    x, y = arrays(dataset)
    return attributions.predictions(model, x, range(y.shape[1]))


def problem(n: int = 12, n_out: int = 3) -> tuple[nn.Module, Items]:
    """A smooth network of 3 features in float64, and targets that agree with it in part."""
    model = models.mlp(nn.GELU, n_out=n_out)
    return model, Items(*models.data(model, n))
