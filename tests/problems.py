"""Small data sets with all that settings can name, for runs on several ranks and by the command, beside the models of
`models.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tests import models
from tests.ranks import Rows


class Parted(Rows):
    """The tiny problem in float32 with a weight and a site for every sample, and some missing targets."""

    def __init__(self, n: int = 24, missing: bool = True) -> None:
        super().__init__(n)
        if missing:
            self.y[::5, 0] = torch.nan
        generator = torch.Generator().manual_seed(n)
        self.weight = torch.rand(n, generator=generator) + 0.25
        self.site = ["north", "south", "east"] * (n // 3) + ["north"] * (n % 3)


class Made(Dataset[tuple[Any, Tensor]]):
    """Inputs drawn once, and targets that follow a model with noise."""

    def __init__(self, model: nn.Module, x: tuple[Tensor, ...]) -> None:
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            y = model(*x).reshape(len(x[0]), -1)
        self.x, self.y = x, y + 0.5 * torch.randn(y.shape, generator=generator, dtype=y.dtype)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        x = tuple(part[index] for part in self.x)
        return (x if len(x) > 1 else x[0]), self.y[index]


def drawn(n: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Random inputs in float64."""
    generator = torch.Generator().manual_seed(n)
    return [torch.randn(n, *shape, generator=generator, dtype=torch.float64) for shape in shapes]


class Coded(Made):
    """A float input and two columns of categories, for `models.Lookup`."""

    def __init__(self, n: int = 13) -> None:
        ids = torch.stack((torch.arange(n) % 5, torch.arange(n) * 3 % 4), 1)
        super().__init__(models.Lookup(), (drawn(n, (3,))[0], ids))


class Tokens(Made):
    """Four tokens of six, for `models.Sequence`."""

    def __init__(self, n: int = 13) -> None:
        super().__init__(models.Sequence(), (torch.randint(0, 6, (n, 4), generator=torch.Generator().manual_seed(n)),))


class Images(Made):
    """Images (1, 6, 6), for `models.conv`."""

    def __init__(self, n: int = 13) -> None:
        super().__init__(models.conv(), tuple(drawn(n, (1, 6, 6))))


class Wide(Made):
    """For `wide`."""

    def __init__(self, n: int = 13) -> None:
        super().__init__(wide(), tuple(drawn(n, (3,))))


class Mixed(Made):
    """A vector in float32, a number per sample in float64, an image in float16, for `Mixture`."""

    def __init__(self, n: int = 13) -> None:
        vector, number, image = drawn(n, (3,), (), (2, 2))
        super().__init__(Mixture(), (vector.float(), number, image.half()))


def wide() -> nn.Module:
    """Nine outputs of four latents."""
    torch.manual_seed(9)
    return models.Head(nn.Sequential(nn.Linear(3, 4), nn.Tanh()), nn.Linear(4, 9))


class Mixture(models.TwoInputs):
    """A number that acts on both inputs of `TwoInputs`."""

    def forward(self, x: Tensor, number: Tensor, image: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(
            x.double() * torch.sin(number.double())[:, None], image.double() + number.double()[:, None, None]
        )


class Rest(Parted):
    """Some rows of `Parted` in float64, inputs far from 0. The first nine are of two sites, the others of three."""

    def __init__(self, rows: range) -> None:
        super().__init__()
        self.x, self.y, self.rows = self.x.double() + 3.0, self.y.double(), rows
        self.weight = self.weight[rows.start : rows.stop]
        self.site = ["north" if site == "east" and row < 9 else site for row, site in enumerate(self.site)][
            rows.start : rows.stop
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return super().__getitem__(self.rows[index])
