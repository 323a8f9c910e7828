"""Many outputs, few groups of features: what forward mode saves, and what it changes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

import igc_dist
from igc_dist.features import Segments
from tests.benchmarks.measure import Report, compared, report
from tests.benchmarks.models import SEED, Task

OUTPUTS, SIDE = 1000, 56
LABELS = np.add.outer(7 * (np.arange(SIDE) // 8), np.arange(SIDE) // 8)
"""49 patches of 8 x 8 pixels."""


def task(samples: int) -> Task:
    """Noise images (3, 56, 56) through a small convolutional net with 1,000 outputs."""
    torch.manual_seed(SEED)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.GELU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, 1, 1), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, OUTPUTS),
    ).eval()  # fmt: skip
    x = torch.rand(samples, 3, SIDE, SIDE)
    with torch.no_grad():
        y = module(x)
    return Task("patches", module, x, y + y.std() * torch.randn(y.shape))


def run(samples: int = 8, n_steps: int = 4) -> Iterator[Report]:
    """49 patches and 1,000 outputs: time of reverse over forward mode at least 5, maps equal to 1e-5 of their largest
    value."""
    given = task(samples)

    def igc(mode: str) -> Any:
        return igc_dist.attribute(
            given.module, (given.x, given.y), n_steps=n_steps, reduce=Segments(LABELS), mode=mode, n_folds=2
        )

    trees = {mode: igc(mode) for mode in ("auto", "reverse")}
    assert trees["auto"].attrs["cost"]["mode"] == "forward"
    one, two = (tree["x/igc"].values for tree in trees.values())
    details = {"samples": samples, "nodes": n_steps, "outputs": OUTPUTS, "groups": one[0].size}
    yield report(
        "forward_mode/speed", **compared(partial(igc, "reverse"), partial(igc, "auto"), 2), at_least=5, **details
    )
    change = abs(one - two).reshape(OUTPUTS, -1).max(1) / abs(two).reshape(OUTPUTS, -1).max(1)
    line = report("forward_mode/difference", 0.0, at_most=1e-5, **details)
    yield line | {"value": float(change.max()), "ok": bool(change.max() <= 1e-5)}
