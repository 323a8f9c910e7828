"""What the benches of a card run on: nets of timm with random weights, and how much of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from igc_dist.demo import digits_cnn
from tests.benchmarks.models import Transformer
from tests.card import Card


@dataclass(frozen=True)
class Size:
    """`samples`: images per walk; `steps`: nodes; `outputs`: gradients per node; `rows`: micro-batches that are tried;
    `classes_n`: images of the bench of all classes; `jpegs`: images in a folder; `real`: whether nets are timm's."""

    side: int = 224
    samples: int = 32
    steps: int = 16
    outputs: int = 10
    n_classes: int = 1000
    rows: tuple[int, ...] = (128, 256)
    small_rows: tuple[int, ...] = (32, 512)
    small_samples: int = 512
    classes_n: int = 2048
    captum_n: int = 4
    captum_rows: tuple[int, ...] = (16, 64)
    jpegs: int = 256
    square: int = 8192
    repeats: int = 3
    real: bool = True


FULL = Size()
SHORT = Size(samples=8, steps=2, rows=(16,), small_samples=64, classes_n=64, captum_n=1, jpegs=32, repeats=1)
"""For a trace."""
TINY = Size(
    side=16, samples=2, steps=1, outputs=2, n_classes=12, rows=(2,), small_rows=(8,), small_samples=16, classes_n=16,
    captum_n=1, captum_rows=(2,), jpegs=4, square=64, repeats=1, real=False,
)  # fmt: skip
"""For a dry run."""

NETS = ("vit_large_patch16_224", "vit_base_patch16_224", "resnet50", "convnext_base")


def net(name: str, card: Card, size: Size) -> nn.Module:
    """A net in evaluation mode on the card. Nothing is downloaded, so its weights are random."""
    torch.manual_seed(0)
    if name == "digits":
        return digits_cnn().to(card.device)
    if not size.real:
        return Transformer(size.n_classes, 16, 1, size=size.side).to(card.device)
    import timm

    return timm.create_model(name, num_classes=size.n_classes).eval().to(card.device)


@cache
def images(n: int, size: Size) -> tuple[Tensor, Tensor]:
    """Random images and targets, on the host."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, size.side, size.side, generator=generator), torch.randn(
        n, size.n_classes, generator=generator
    )
