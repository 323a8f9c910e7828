"""Metrics of maps: what they cost, against the forward passes that they need."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from igc_dist.metrics import score
from igc_dist.model import Model
from tests.benchmarks.measure import Report, compared, report
from tests.benchmarks.models import SEED, resnet


def run(n: int = 256, points: int = 21, batch: int = 64) -> Iterator[Report]:
    """Insertion of 256 photos (3, 64, 64), one map each: at most 1.15 times its 21 forward passes."""
    draws = torch.Generator().manual_seed(SEED)
    x, maps = torch.randn(n, 3, 64, 64, generator=draws), torch.randn(n, 3, 64, 64, generator=draws)
    net, own = resnet(), np.arange(n) % 10
    model = Model(net)

    def forwards() -> None:
        with model.borrowed("cpu"):
            for _ in range(points):
                for rows in x.split(batch):
                    model.predict((rows,))

    def scored() -> None:
        score(net, (x, torch.zeros(n)), maps, ["insertion"], target=own, batch_size=batch)

    forwards(), scored()
    timed = compared(scored, forwards, 3)
    yield report("metrics/insertion", **timed, at_most=1.15, samples=n, points=points, batch_size=batch)
