"""What a plan measures of the machine: how long a sample, a forward pass and a gradient take."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
import torch

from igc_dist import data, inputs
from igc_dist.model import Model
from igc_dist.passes import probe, reading, timed


class Slow(torch.utils.data.Dataset[Any]):
    """Samples that take so many seconds each, by their own clock."""

    def __init__(self, n: int, seconds: float) -> None:
        self.n, self.seconds, self.now, self.read = n, seconds, 0.0, 0

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.now += self.seconds
        self.read += 1
        return torch.zeros(1), torch.zeros(1)


@pytest.mark.parametrize(("n", "seconds", "read"), [(1000, 0.5, 4), (1000, 1e-3, 68), (1000, 1e-6, 580), (3, 1e-6, 9)])
def test_the_faster_samples_are_read_the_more_are_timed(n: int, seconds: float, read: int) -> None:
    """A few that take next to nothing would tell the call only, and many that take long would hold up a plan."""
    slow = Slow(n, seconds)
    source = data.ensure(slow)
    slow.read = 0
    with source.opened():
        assert reading(source, 0.3, lambda: slow.now) == pytest.approx(seconds)
    assert slow.read == read


def test_a_forward_pass_and_a_gradient_are_timed_apart() -> None:
    """By a clock that ticks once for each look at it: a pass takes what is before the first gradient without one."""
    kind = inputs.ensure(Model(torch.nn.Linear(5, 2)))
    ticks = count()

    def clock() -> float:
        return [0.0, 10.0, 13.0, 15.0][next(ticks) % 4]

    with kind.model.borrowed("cpu"):
        few = data.ensure((torch.rand(2, 5), torch.zeros(2, 2))).fetch(range(1))
        assert timed(probe(kind, few, torch.device("cpu"), True), 7, 2, clock) == (8.0, 2.0)
