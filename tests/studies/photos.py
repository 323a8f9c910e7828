"""A small task on photographs: which of eight photographs of scikit-image is a crop from? For `make study`.

Crops of 96 x 96 pixels are shrunk to 32 x 32. The network learns those of the left two thirds of each photograph, and
is asked for those of the right third, so that no crop of the test shares a pixel with one of the training.
`python -m tests.studies.photos FILE` trains it, in about a minute, and writes its weights.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
import skimage
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

NAMES = (
    "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg", "motorcycle_left.png",
    "ihc.png", "retina.jpg",
)  # fmt: skip
CROP, SIDE, LEARNED, SEED = 96, 32, 2 / 3, 20260101


@cache
def photographs() -> list[np.ndarray]:
    """The photographs as (height, width, 3) in [0, 1]; the longer side is at most 640 pixels."""
    found = []
    for name in NAMES:
        picture = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
        picture.thumbnail((640, 640))
        found.append(np.asarray(picture, np.float32) / 255)
    return found


def crops(n: int, first: float, last: float, seed: int) -> tuple[Tensor, Tensor]:
    """n crops (3, 32, 32), with the numbers of their photographs, from between two shares of the width."""
    draws, x, y = np.random.default_rng(seed), [], []
    for k in range(n):
        of = k % len(NAMES)
        whole = photographs()[of]
        low, high = int(first * whole.shape[1]), int(last * whole.shape[1]) - CROP
        row, column = draws.integers(whole.shape[0] - CROP + 1), draws.integers(low, max(low, high) + 1)
        part = whole[row : row + CROP, column : column + CROP]
        part = np.pad(part, ((0, 0), (0, CROP - part.shape[1]), (0, 0)), mode="reflect")
        small = part.reshape(SIDE, CROP // SIDE, SIDE, CROP // SIDE, 3).mean((1, 3))
        x.append(torch.from_numpy(small).permute(2, 0, 1))
        y.append(of)
    return torch.stack(x).contiguous(), torch.tensor(y)


class Net(nn.Module):
    """Three convolutions with ReLU, the last averaged over the image, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.ReLU(),
            nn.Conv2d(32, 48, 3, padding=1, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(4 * 48, len(NAMES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def net() -> Net:
    """The network without weights: `model.weights` are those of `train`."""
    return Net()


class Photos(TensorDataset):
    """`n` crops of the test."""

    def __init__(self, n: int = 96) -> None:
        super().__init__(*crops(n, LEARNED, 1.0, SEED + 1))


def train(path: str, n: int = 3000, epochs: int = 6, batch: int = 60) -> float:
    """Train the network, write its weights, and return its accuracy on the test."""
    torch.manual_seed(SEED)
    x, y = crops(n, 0.0, LEARNED, SEED)
    model = Net()
    steps = epochs * (n // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(n).split(batch):
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
    test = Photos(400)
    with torch.no_grad():
        right = float((model(test.tensors[0]).argmax(1) == test.tensors[1]).double().mean())
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), path)
    return right


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"accuracy on the test: {train(sys.argv[1]):.3f}")
