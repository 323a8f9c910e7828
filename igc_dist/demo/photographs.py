"""Twenty labelled photographs of ImageNet, which PyPI's `foolbox` ships (extra `audit`)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

SIDE, PART = 224, 224 / 256
"""Pixels of a side, and the part of the shorter side of a photograph that its middle square takes."""

NAMES = {
    22: "bald eagle", 99: "goose", 129: "spoonbill", 243: "bull mastiff", 251: "dalmatian", 305: "dung beetle",
    317: "leafhopper", 438: "beaker", 455: "bottlecap", 471: "cannon", 541: "drum", 559: "folding chair", 609: "jeep",
    630: "loafer", 741: "prayer rug", 853: "thatched roof", 915: "yurt", 949: "strawberry", 990: "buckeye",
}  # fmt: skip
"""The classes of the photographs; no package of the extra `audit` has the names of all."""


class Photographs(Dataset[tuple[Tensor, int]]):
    """`x` is the middle of a photograph (3, 224, 224) in [0, 1], `y` the number of its class of ImageNet, 0 to 999.

    `classes`: the names of the classes that occur, and the numbers of all others, as text.
    `n`: the first ones, at most 20. Raises ImportError if foolbox is not installed, ValueError for another n.
    """

    classes = tuple(NAMES.get(k, str(k)) for k in range(1000))

    def __init__(self, n: int = 20) -> None:
        found = find_spec("foolbox")
        if found is None or found.origin is None:
            raise ImportError("foolbox, which ships the photographs, is not installed: pip install 'igc-dist[audit]'")
        every = sorted(Path(found.origin).parent.glob("data/imagenet_*.jpg"))
        if not 1 <= n <= len(every):
            raise ValueError(f"n={n} photographs: give 1 to {len(every)}")
        self.paths = [str(path) for path in every[:n]]
        self.y = [int(path.stem.rpartition("_")[2]) for path in every[:n]]

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "3 224 224"], int]:
        from PIL import Image  # as in scenes.py

        picture = Image.open(self.paths[index]).convert("RGB")
        side = int(PART * min(picture.size))
        left, top = ((whole - side) // 2 for whole in picture.size)
        picture = picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.asarray(picture, np.float32) / 255).permute(2, 0, 1).contiguous(), self.y[index]
