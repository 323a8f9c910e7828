"""The demo's data set and its network, whose trained weights ship beside this file as safetensors.

`train.py` makes the weights. Nothing here needs it, so running the demo never imports a training loop.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import Dataset

CLASSES = 10
WEIGHTS = Path(__file__).with_name("digits.safetensors")

SPLIT_SEED = 20240229
HELD_OUT = 5  # one sample in 5 is not used for training


class Digits(Dataset[tuple[Tensor, Tensor]]):
    """The handwritten digits of scikit-learn: `x` is an image (1, 8, 8) in [0, 1], `y` the one-hot label (10,).

    Both are float32. `n`: the number of digits, from the first on; the first ten are 0, 1, ... 9. Raises ValueError if
    it is less than 1.
    """

    def __init__(self, n: int | None = None) -> None:
        if n is not None and n < 1:
            raise ValueError(f"n={n} digits: give at least 1, or null for all")
        table = digits_table()[:n]
        images, labels = table[:, :-1], table[:, -1]
        # the pixels are integers from 0 to 16, so the division is exact in float32
        self.x: Float[Tensor, "samples 1 8 8"] = torch.from_numpy(images).float().div(16).reshape(-1, 1, 8, 8)
        self.y: Float[Tensor, "samples 10"] = F.one_hot(torch.from_numpy(labels).long(), CLASSES).float()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "1 8 8"], Float[Tensor, "10"]]:
        return self.x[index], self.y[index]


def digits_table() -> Float[np.ndarray, "samples 65"]:
    """Pixels and label of each digit, from the file that scikit-learn ships: to import it all takes a second more."""
    found = find_spec("sklearn")
    file = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz" if found and found.origin else None
    if file is None or not file.is_file():  # another layout of scikit-learn
        from sklearn.datasets import load_digits

        return np.column_stack(load_digits(return_X_y=True))
    return np.loadtxt(file, delimiter=",")


def split(samples: int) -> tuple[Int[Tensor, "train"], Int[Tensor, "held_out"]]:
    """Indices of the training samples and of the held-out fifth, from one fixed permutation."""
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(SPLIT_SEED))
    held_out = samples // HELD_OUT
    return order[held_out:], order[:held_out]


class DigitsCNN(nn.Module):
    """Three convolutions and two linear layers with ReLU between them; returns logits.

    Strides shrink the image instead of pooling, and no layer keeps statistics of a batch: the output is piecewise
    linear in the pixels and a sample's logits do not depend on its neighbours in the batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=3, padding=1, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 2 * 2, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Float[Tensor, "batch 1 8 8"]) -> Float[Tensor, "batch 10"]:
        return self.head(self.features(x))


def digits_cnn() -> DigitsCNN:
    """The network with its shipped weights, in evaluation mode."""
    model = DigitsCNN()
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()
