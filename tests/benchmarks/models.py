"""The nets and data that the benchmarks run on: seeded, so that every run sees the same numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from igc_dist import baselines, inputs, targets
from igc_dist import data as sources
from igc_dist.attributors import PathIntegral
from igc_dist.demo import Digits, digits_cnn
from igc_dist.job import Job, limits_of, named_statistics, plan_of
from igc_dist.model import Model
from igc_dist.plan import Plan
from igc_dist.quadrature import rule

SEED = 7


@dataclass(frozen=True)
class Task:
    """A net in evaluation mode and the samples to attribute."""

    name: str
    module: nn.Module
    x: Tensor
    y: Tensor


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        plain = stride == 1 and channels_in == channels
        self.shortcut: nn.Module = nn.Identity() if plain else nn.Conv2d(channels_in, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet(outputs: int = 10, width: int = 16) -> nn.Module:
    """A residual net of eight blocks for images (3, 64, 64), with random weights."""
    torch.manual_seed(SEED)
    widths = (width, width, 2 * width, 2 * width, 4 * width, 4 * width, 8 * width, 8 * width)
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    before = width
    for number, channels in enumerate(widths):
        layers.append(Block(before, channels, 2 if number and channels != before else 1))
        before = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, outputs)).eval()


def digits(samples: int) -> Task:
    """The demo: images (1, 8, 8), ten outputs, trained weights."""
    data = Digits()
    return Task("digits", digits_cnn(), data.x[:samples], data.y[:samples])


def images(samples: int, outputs: int = 10) -> Task:
    """Noise images (3, 64, 64) through `resnet`."""
    generator = torch.Generator().manual_seed(SEED)
    x, y = torch.rand(samples, 3, 64, 64, generator=generator), torch.randn(samples, outputs, generator=generator)
    return Task("resnet64", resnet(outputs), x, y)


def planned(task: Task, n_steps: int, **limits: Any) -> Plan:
    """The plan that `attribute` makes for IGC of this task."""
    model = Model(task.module)
    job = Job(
        inputs=inputs.ensure(model),
        source=sources.ensure((task.x, task.y)),
        targets=targets.ensure(None),
        baseline=baselines.ensure(None),
        attributor=PathIntegral(rule("midpoint", n_steps)),
        statistics=named_statistics(["correlation"]),
        limits=limits_of(limits),
    )
    with model.borrowed("cpu"):
        return plan_of(job, torch.device("cpu"))
