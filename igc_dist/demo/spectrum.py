"""Images with the spectrum of photographs, addressed by index: what the benchmark of the IGC paper draws from."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.utils.data import Dataset

from igc_dist.demo.tasks import TASKS

SLOPE = -1.2
"""Of the amplitude against the frequency, both logarithmic."""


class Simulation(Dataset[tuple[Tensor, Tensor]]):
    """One of the four tasks of the benchmark (see `tasks`): `x` is an image (1, side, side), `y` the task's truth (J,).

    ``x = Re IFFT2(G (a + i b))`` with standard normal a and b of each frequency, and the amplitude ``G = |f|^-1.2``,
    where the frequency 0 counts as half of the lowest one; ``mean G^2 = 1``, so pixels have variance 1. y is divided
    by its standard deviation after its mean is taken off, save for the one-hot D. Both are float32. An image is a
    function of `seed` and its index alone, the same for all tasks.

    Source: Lelièvre and Chen, arXiv:2404.13910, whose code draws another image at each access.

    Raises ValueError for an unknown task, and for numbers below 1.
    """

    def __init__(self, task: str = "A", n: int = 1000, seed: int = 0, side: int = 64) -> None:
        if task not in TASKS:
            raise ValueError(f"task={task!r}: choose one of {', '.join(TASKS)}")
        if n < 1 or side < 16:
            raise ValueError(f"n={n} images of side={side} pixels: give at least 1 image of at least 16 pixels")
        self.task, self.n, self.seed, self.side = task, n, seed, side
        self.truth = TASKS[task](side)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "1 side side"], Float[Tensor, "J"]]:
        if not 0 <= index < self.n:
            raise IndexError(f"image {index} of {self.n}")
        draws = np.random.Generator(np.random.Philox(key=[self.seed, index]))
        x = images(draws, 1, self.side)
        return x[0], self.truth.scaled(self.truth.true(x, draws))[0]

    @property
    def mask(self) -> Float[Tensor, "J 1 side side"]:
        """Where the truth comes from, for each output."""
        return self.truth.mask[:, None]

    @property
    def identity(self) -> dict[str, object]:
        """What the images are made of."""
        return {"task": self.task, "seed": self.seed, "side": self.side}


def images(draws: np.random.Generator, n: int, side: int) -> Float[Tensor, "n 1 side side"]:
    """Some images, from one generator."""
    noise = draws.standard_normal((n, 2, side, side))
    drawn = np.fft.ifft2(gain(side) * (noise[:, 0] + 1j * noise[:, 1]), norm="ortho").real
    return torch.from_numpy(drawn).float()[:, None]


@cache
def gain(side: int) -> Float64[np.ndarray, "side side"]:
    """The amplitude of each frequency."""
    frequency = np.fft.fftfreq(side)
    radius = np.hypot(frequency[:, None], frequency)
    radius[0, 0] = radius[0, 1] / 2
    amplitude = radius**SLOPE
    return amplitude / np.sqrt(np.square(amplitude).mean())
