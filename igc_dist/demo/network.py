"""A small convolutional network that has learnt the four tasks of the benchmark; its weights ship beside this file.

`train_network.py` makes the weights.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from igc_dist.demo.tasks import TASKS

NETWORK = Path(__file__).with_name("network.safetensors")
SIDE = 64
WIDTHS = (16, 32, 64)
HIDDEN = 64


class Block(nn.Module):
    """A block of ConvNeXt (Liu et al. 2022): 7 x 7 of each channel, then a small network of each pixel, added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(width, width, kernel_size=7, padding=3, groups=width)
        self.pixel = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Float[Tensor, "n C H W"]) -> Float[Tensor, "n C H W"]:
        return x + self.pixel(self.around(x).movedim(1, -1)).movedim(-1, 1)


class SimulationNet(nn.Module):
    """A ConvNeXt of three stages, 16 x 16 to 4 x 4, and for each task two linear layers.

    `task`: the one whose outputs are returned, as `Simulation` scales them; for D the probabilities.
    """

    def __init__(self, task: str = "A") -> None:
        super().__init__()
        if task not in TASKS:
            raise ValueError(f"task={task!r}: choose one of {', '.join(TASKS)}")
        self.task = task
        layers: list[nn.Module] = [nn.Conv2d(1, WIDTHS[0], kernel_size=4, stride=4), Block(WIDTHS[0])]
        for below, width in pairwise(WIDTHS):
            layers += [nn.GroupNorm(1, below), nn.Conv2d(below, width, kernel_size=2, stride=2), Block(width)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(WIDTHS[-1] * 16, 2 * HIDDEN), nn.GELU())
        self.heads = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(2 * HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, kind.n_outputs))
             for name, kind in TASKS.items()}
        )  # fmt: skip

    def forward(self, x: Float[Tensor, "n 1 64 64"]) -> Float[Tensor, "n J"]:
        y = self.heads[self.task](self.body(x))
        return F.softmax(y, 1) if self.task == "D" else y


def simulation_net(task: str = "A") -> SimulationNet:
    """The network of a task with its shipped weights, in evaluation mode. Raises ValueError for an unknown task."""
    model = SimulationNet(task)
    model.load_state_dict(load_file(NETWORK))
    return model.eval()
