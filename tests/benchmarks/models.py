"""The nets and data that the benchmarks run on: seeded, so that every run sees the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from igc_dist import baselines, inputs, targets
from igc_dist import data as sources
from igc_dist.attributors import PathIntegral
from igc_dist.demo import Digits, digits_cnn
from igc_dist.job import Job, limits_of, named_statistics, plan_of
from igc_dist.model import Model
from igc_dist.paths import rule
from igc_dist.planning import Plan

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


class Attention(nn.Module):
    """A transformer block, normalised first: self-attention, and two layers with GELU."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.one, self.two = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.one(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.two(x))


class Transformer(nn.Module):
    """A vision transformer for images (3, size, size) in square patches, with random weights."""

    def __init__(
        self, outputs: int = 10, width: int = 64, blocks: int = 3, heads: int = 4, size: int = 64, patch: int = 8
    ) -> None:
        super().__init__()
        torch.manual_seed(SEED)
        self.patches, self.place = (
            nn.Conv2d(3, width, patch, patch),
            nn.Parameter(0.02 * torch.randn((size // patch) ** 2, width)),
        )
        self.blocks = nn.Sequential(*(Attention(width, heads) for _ in range(blocks)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.patches(x).flatten(2).transpose(1, 2) + self.place).mean(1))


def vit_large() -> nn.Module:
    """A net of the shape of ViT-L/16: 304 million parameters, 1,000 outputs."""
    return Transformer(1000, 1024, 24, 16, 224, 16)


class Validation(Dataset[tuple[Tensor, int]]):
    """Noise of the shape of ImageNet's validation set: 50,000 images (3, 224, 224) of 1,000 classes, made as they are
    read."""

    def __len__(self) -> int:
        return 50_000

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.rand(3, 224, 224, generator=torch.Generator().manual_seed(index)), index % 1000


def digits(samples: int) -> Task:
    """The demo: images (1, 8, 8), ten outputs, trained weights."""
    data = Digits()
    return Task("digits", digits_cnn(), data.x[:samples], data.y[:samples])


def trained(
    name: str, samples: int, layers: Callable[[], list[nn.Module]], rate: float, batch: int, epochs: int = 8
) -> Task:
    """The digits through a net that is trained here, in some seconds (96 to 98 % right)."""
    data = Digits()
    torch.manual_seed(SEED)
    module = nn.Sequential(*layers())
    optimizer = torch.optim.Adam(module.parameters(), rate)
    for _ in range(epochs):
        for rows in torch.randperm(len(data)).split(batch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(data.x[rows]), data.y[rows]).backward()
            optimizer.step()
    return Task(name, module.eval(), data.x[:samples], data.y[:samples])


def smooth(samples: int) -> Task:
    """A convolutional net without kinks."""

    def layers() -> list[nn.Module]:
        return [
            nn.Conv2d(1, 16, 3, padding=1), nn.GELU(), nn.Conv2d(16, 32, 3, 2, 1), nn.GELU(), nn.Flatten(),
            nn.Linear(512, 64), nn.Tanh(),
            nn.Linear(64, 10),
        ]  # fmt: skip

    return trained("smooth", samples, layers, 2e-3, 32)


def pooled(samples: int) -> Task:
    """Two convolutions with ReLU and max pooling: many kinks."""

    def layers() -> list[nn.Module]:
        convolutions = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()]
        return [*convolutions, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 10)]

    return trained("pooled", samples, layers, 1e-3, 64)


def images(samples: int, outputs: int = 10) -> Task:
    """Noise images (3, 64, 64) through `resnet`."""
    generator = torch.Generator().manual_seed(SEED)
    x, y = torch.rand(samples, 3, 64, 64, generator=generator), torch.randn(samples, outputs, generator=generator)
    return Task("resnet64", resnet(outputs), x, y)


def patches(samples: int, outputs: int = 10) -> Task:
    """Noise images (3, 64, 64) through `Transformer`."""
    task = images(samples, outputs)
    return Task("vit64", Transformer(outputs), task.x, task.y)


def planned(
    task: Task, n_steps: int, device: str = "cpu", precision: str = "32-true", cuda_graphs: bool = False, **limits: Any
) -> Plan:
    """The plan that `attribute` makes for IGC of this task."""
    model = Model(task.module, precision=precision, cuda_graphs=cuda_graphs)
    job = Job(
        inputs=inputs.ensure(model),
        source=sources.ensure((task.x, task.y)),
        targets=targets.ensure(None),
        baseline=baselines.ensure(None),
        attributor=PathIntegral(rule("midpoint", n_steps)),
        statistics=named_statistics(["correlation"]),
        limits=limits_of(limits),
    )
    with model.borrowed(device):
        return plan_of(job, torch.device(device))
