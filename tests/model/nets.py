"""Small vision models with the parts of large ones, and stand-ins for the libraries that have the large ones."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

NORMAL = {"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.2, 0.5)}


class Attention(nn.Module):
    """A block of a ViT: attention, then a perceptron, each after a norm and beside a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.proj(mixed)
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches of 4 pixels, two blocks, a class token."""

    def __init__(self, width: int = 16, n_outputs: int = 5, size: int = 16) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, 4, 4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) / 4)
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + (size // 4) ** 2, width) / 4)
        self.blocks = nn.Sequential(Attention(width), Attention(width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


class ConvNeXt(nn.Module):
    """A stem, a depthwise convolution of 7 with a perceptron over channels, a mean over positions."""

    def __init__(self, width: int = 8, n_outputs: int = 5) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, width, 2, 2), nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.fc = nn.Linear(width, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.mlp(self.norm(self.depthwise(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return self.fc(x.mean((2, 3)))


class EfficientNetLite(nn.Module):
    """An inverted bottleneck with ReLU6 and batch norms, no squeeze and excitation."""

    def __init__(self, width: int = 8, n_outputs: int = 5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU6(),
            nn.Conv2d(width, 2 * width, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU6(),
            nn.Conv2d(2 * width, 2 * width, 3, 1, 1, groups=2 * width, bias=False), nn.BatchNorm2d(2 * width),
            nn.ReLU6(), nn.Conv2d(2 * width, width, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.classifier = nn.Linear(width, n_outputs)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """As models of `transformers`: a dict of logits and more."""
        hidden = self.features(x).mean((2, 3))
        return {"loss": hidden.sum(1), "logits": self.classifier(hidden), "hidden": hidden}


class CLIP(nn.Module):
    """Towers of images and of texts (here a table of words) that meet in one space of 6 dimensions."""

    WORDS = ("a photo of a cat.", "a photo of a dog.", "a cat", "a dog")

    def __init__(self) -> None:
        super().__init__()
        self.visual, self.table = ViT(n_outputs=6), nn.Embedding(len(self.WORDS), 6)
        self.logit_scale = nn.Parameter(torch.tensor(1.5))
        vars(self.visual).update(image_size=16, image_mean=NORMAL["mean"], image_std=NORMAL["std"])

    def encode_image(self, x: Tensor) -> Tensor:
        return self.visual(x)

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.table(tokens)


SMALL = (ViT, ConvNeXt, EfficientNetLite)


def stand_in(monkeypatch: pytest.MonkeyPatch, net: type[nn.Module] = ViT) -> None:
    """`timm` with two models, for a machine where it does not import."""
    config = {"input_size": (3, 16, 16), "crop_pct": 0.8, "interpolation": "bilinear", **NORMAL, "num_classes": 5}

    def create_model(name: str, pretrained: bool, num_classes: int = 5) -> nn.Module:
        assert not pretrained
        torch.manual_seed(3)
        made: Any = net(n_outputs=num_classes)
        made.pretrained_cfg = config
        return made

    def list_models(pretrained: bool = False) -> list[str]:
        return ["vit_mini", "convnext_mini"] + ["vit_mini.of_nobody"] * pretrained

    data = SimpleNamespace(infer_imagenet_subset=lambda made: None)
    given = SimpleNamespace(create_model=create_model, list_models=list_models, data=data)
    monkeypatch.setitem(sys.modules, "timm", given)  # type: ignore[arg-type]


def clip_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """`open_clip` with one model, for a machine where it does not import."""

    def create_model(name: str, pretrained: None, pretrained_hf: bool) -> nn.Module:
        assert not pretrained_hf
        return CLIP()

    given = SimpleNamespace(
        create_model=create_model,
        list_models=lambda: ["ViT-mini"],
        get_model_config=lambda name: {"text_cfg": {}},
        get_tokenizer=lambda name: lambda said: torch.tensor([CLIP.WORDS.index(text) for text in said]),
    )
    monkeypatch.setitem(sys.modules, "open_clip", given)  # type: ignore[arg-type]
