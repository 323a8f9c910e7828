"""The four tasks of the IGC paper's benchmark: what is true of an image, a model that says it, and where it looks.

Positions are in units of the image, from -1/2 to 1/2, y upwards. A *disc* of width s is where a Gaussian density of
standard deviation s exceeds 1: the radius is ``s sqrt(-2 ln(2 pi s^2))``.

| task | truth | mask |
|---|---|---|
| A | ``sum_i m_i x_i`` | m: a Gaussian density (s = .18) less half of a narrower one (s = .10), per pixel |
| B | the largest mean of three overlapping discs | how many discs a pixel is in |
| C | the larger cosine of two pairs of discs, where the second pair is 0 in half of the images, at random | the discs |
| D | which of four patches is most like the one in the centre (cosine), one-hot; the squares inside the outer patches
    change places at random | the patches without their squares |

The models of A and B are the truth; that of C does not drop the second pair; that of D is the softmax of 100 times the
cosines, with all squares in place. So what C and D cannot know is in the targets, and not in the predictions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, one_hot

SCALES = {"A": (0.0, 0.260), "B": (0.254, 0.574), "C": (0.265, 0.268), "D": (0.0, 1.0)}
"""Mean and standard deviation of the truth over 20,000 images; the one-hot D stays as it is."""


def _places(side: int) -> tuple[Float[Tensor, "1 side"], Float[Tensor, "side 1"]]:
    """x and y of each column and row."""
    place = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) / side
    return place[None], -place[:, None]


def gaussian(side: int, spread: float, at: tuple[float, float] = (0.0, 0.0)) -> Float[Tensor, "side side"]:
    """A Gaussian density."""
    x, y = _places(side)
    squares = (x - at[0]).square() + (y - at[1]).square()
    return torch.exp(-squares / (2 * spread**2)) / (2 * math.pi * spread**2)


def disc(side: int, spread: float, at: tuple[float, float]) -> Bool[Tensor, "side side"]:
    return gaussian(side, spread, at) > 1


def square(side: int, size: float, at: tuple[float, float]) -> Bool[Tensor, "side side"]:
    x, y = _places(side)
    return ((x - at[0]).abs() <= size / 2) & ((y - at[1]).abs() <= size / 2)


def indices(masks: list[Tensor]) -> Int64[Tensor, "masks pixels"]:
    """The pixels of masks of one size, in their order."""
    return torch.stack([mask.flatten().nonzero()[:, 0] for mask in masks])


class Task(nn.Module, ABC):
    """A statistic of an image as a model without trained weights.

    `n_outputs`: J. `mask`: (J, side, side), where the truth comes from. `scale`: mean and standard deviation of the
    truth, which the model takes off as the data do.
    """

    name: ClassVar[str]
    n_outputs: ClassVar[int] = 1
    mask: Tensor

    def __init__(self, side: int = 64) -> None:
        super().__init__()
        self.scale = SCALES[self.name]

    def forward(self, x: Float[Tensor, "n 1 side side"]) -> Float[Tensor, "n J"]:
        return self.scaled(self.said(x.flatten(1)))

    def scaled(self, y: Float[Tensor, "n J"]) -> Float[Tensor, "n J"]:
        """Values of the statistic or of the truth in standard deviations of the truth, about its mean."""
        return (y - self.scale[0]) / self.scale[1]

    @abstractmethod
    def said(self, x: Float[Tensor, "n P"]) -> Float[Tensor, "n J"]:
        """The statistic, from all pixels."""

    def true(self, x: Float[Tensor, "n 1 side side"], draws: np.random.Generator) -> Float[Tensor, "n J"]:
        """The truth: the statistic, with what is drawn."""
        return self.said(x.flatten(1))


class WeightedSum(Task):
    """A: ``sum_i m_i x_i``."""

    name = "A"

    def __init__(self, side: int = 64) -> None:
        super().__init__(side)
        weights = (gaussian(side, 0.18) - 0.5 * gaussian(side, 0.10)) / side**2
        self.register_buffer("mask", weights.float()[None])

    def said(self, x: Float[Tensor, "n P"]) -> Float[Tensor, "n J"]:
        return x @ self.mask.flatten(1).T


class LargestMean(Task):
    """B: the largest of the means of three discs, which overlap."""

    name = "B"
    weights: Tensor

    def __init__(self, side: int = 64) -> None:
        super().__init__(side)
        places = ((0.0, 0.1300079387), (-0.15625, -0.140625), (0.15625, -0.140625))
        discs = torch.stack([disc(side, 0.125, at) for at in places]).float()
        self.register_buffer("mask", discs.sum(0, keepdim=True))
        self.register_buffer("weights", (discs / discs.sum((1, 2), keepdim=True)).flatten(1))

    def said(self, x: Float[Tensor, "n P"]) -> Float[Tensor, "n J"]:
        return (x @ self.weights.T).amax(1, keepdim=True)


class DroppedPair(Task):
    """C: the larger of the cosines of two pairs of discs; in the truth, the second is 0 in half of the images."""

    name = "C"
    pixels: Tensor

    def __init__(self, side: int = 64) -> None:
        super().__init__(side)
        corners = ((-0.25, 0.21875), (0.25, 0.21875), (-0.25, -0.21875), (0.25, -0.21875))
        discs = [disc(side, 0.078125, at) for at in corners]
        self.register_buffer("mask", torch.stack(discs).sum(0, keepdim=True).float())
        self.register_buffer("pixels", indices(discs))

    def cosines(self, x: Float[Tensor, "n P"]) -> Float[Tensor, "n 2"]:
        """Of the pair on the left, and of the pair on the right."""
        parts = x[:, self.pixels]
        return cosine_similarity(parts[:, :2], parts[:, 2:], dim=2)

    def said(self, x: Float[Tensor, "n P"]) -> Float[Tensor, "n J"]:
        return self.cosines(x).amax(1, keepdim=True)

    def true(self, x: Float[Tensor, "n 1 side side"], draws: np.random.Generator) -> Float[Tensor, "n J"]:
        there = torch.from_numpy(draws.random(len(x)) < 0.5)
        left, right = self.cosines(x.flatten(1)).unbind(1)
        return torch.maximum(left, right * there)[:, None]


class MostAlike(Task):
    """D: which outer patch is most like the patch in the centre."""

    name = "D"
    rings: Tensor
    squares: Tensor
    n_outputs = 4
    sharpness = 100.0

    def __init__(self, side: int = 64) -> None:
        super().__init__(side)
        far = 0.28125
        places = ((0.0, 0.0), (-far, far), (far, far), (-far, -far), (far, -far))
        squares = [square(side, 0.125, at) for at in places]
        rings = [disc(side, 0.07, at) & ~inner for at, inner in zip(places, squares, strict=True)]
        self.register_buffer("mask", torch.stack(rings).sum(0).float().expand(self.n_outputs, -1, -1).clone())
        self.register_buffer("rings", indices(rings))
        self.register_buffer("squares", indices(squares))

    def cosines(self, x: Float[Tensor, "n P"], order: Int64[Tensor, "n 4"] | None = None) -> Float[Tensor, "n 4"]:
        """Of the centre and each outer patch, which may have the square of another one."""
        rings, squares = x[:, self.rings], x[:, self.squares]
        others = squares[:, 1:] if order is None else squares[:, 1:].take_along_dim(order[..., None], 1)
        centre = torch.cat((rings[:, :1], squares[:, :1]), 2)
        return cosine_similarity(centre, torch.cat((rings[:, 1:], others), 2), dim=2)

    def said(self, x: Float[Tensor, "n P"]) -> Float[Tensor, "n J"]:
        return (self.sharpness * self.cosines(x)).softmax(1)

    def true(self, x: Float[Tensor, "n 1 side side"], draws: np.random.Generator) -> Float[Tensor, "n J"]:
        order = torch.from_numpy(draws.permuted(np.tile(np.arange(self.n_outputs), (len(x), 1)), axis=1))
        return one_hot(self.cosines(x.flatten(1), order).argmax(1), self.n_outputs).float()


TASKS: dict[str, type[Task]] = {"A": WeightedSum, "B": LargestMean, "C": DroppedPair, "D": MostAlike}


def statistic(task: str = "A", side: int = 64) -> Task:
    """The statistic of a task as a model: what the paper explains before it trains one. Raises ValueError."""
    if task not in TASKS:
        raise ValueError(f"task={task!r}: choose one of {', '.join(TASKS)}")
    return TASKS[task](side).eval()
