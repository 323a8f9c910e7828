"""Metrics of maps, and maps of each sample's own output: what they cost, against the passes that they need."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import nn

import igc_dist
from igc_dist.metrics import Sic, score
from igc_dist.model import Model
from tests.benchmarks.measure import Report, compared, report, seconds
from tests.benchmarks.models import SEED, resnet


def run() -> Iterator[Report]:
    """Insertion of 256 photos (3, 64, 64), one map each: at most 1.15 times its 21 forward passes. IG of each of 64
    photos' own of 1,000 outputs: at most 1.1 times that of a net with one output. SIC of 24 photos: two workers
    at least 1.7 times as fast as one."""
    yield insertion()
    yield own_output()
    yield sic("codecs", nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(48, 10)))
    yield sic("resnet64", resnet())


def insertion(n: int = 256, points: int = 21, batch: int = 64) -> Report:
    """Against the forward passes that it needs."""
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
    return report("metrics/insertion", **timed, at_most=1.15, samples=n, points=points, batch_size=batch)


def own_output(n: int = 64, outputs: int = 1000, steps: int = 8) -> Report:
    """Against the same net with one output."""
    x, label = torch.randn(n, 3, 64, 64, generator=torch.Generator().manual_seed(SEED)), torch.arange(n) * 13 % outputs
    many, single, settings = resnet(outputs), resnet(1), {"method": "ig", "n_steps": steps, "threads": 1}

    def of_label() -> None:
        igc_dist.attribute(many, (x, label), target="own", **settings)

    def of_one() -> None:
        igc_dist.attribute(single, (x, torch.zeros(n)), **settings)

    of_label(), of_one()
    timed = compared(of_label, of_one, 3)
    return report("metrics/own_output", **timed, at_most=1.1, samples=n, outputs=outputs, steps=steps)


def sic(name: str, net: nn.Module, n: int = 24, rounds: int = 4) -> Report:
    """One worker against two, in turns; with a net that takes no time next to the codecs and the inpainting, and with
    one that takes a core of its own."""
    draws = np.random.default_rng(SEED)
    small = torch.as_tensor(draws.uniform(size=(n, 3, 16, 16))).float()
    x = nn.functional.interpolate(small, (64, 64), mode="bicubic").clip(0, 1)
    maps, data = draws.normal(size=x.shape), (x, torch.zeros(n))

    def scored(workers: int) -> None:
        score(net, data, maps, [Sic(workers=workers, min_score=0.0)], target=np.arange(n) % 10, batch_size=n)

    scored(2)
    times = np.array([[seconds(partial(scored, workers)) for workers in (1, 2)] for _ in range(rounds)])
    (one, one_cpu), (two, two_cpu) = times.min(0)
    return report(
        f"metrics/sic/{name}",
        one / two,
        at_least=1.7 if name == "codecs" else None,
        seconds=times[..., 0].round(2).tolist(),
        cpu_seconds=[round(one_cpu, 2), round(two_cpu, 2)],
        samples=n,
        cores=os.cpu_count(),
        load=[round(value, 2) for value in os.getloadavg()],
    )
