"""What a pass does is counted: equal to what is known of a linear layer, a convolution and an attention."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from igc_dist.model import passes
from igc_dist.records import Passes, Tally


def counted(module: nn.Module, x: Tensor) -> Passes:
    """Of the module's frozen forward and of gradients of two outputs, as `Model.gradients` takes them."""
    module.requires_grad_(False)

    def gradients() -> Iterator[Tensor]:
        points = x.detach().requires_grad_()
        y = module(points).flatten(1)
        for k in (0, 1):
            yield torch.autograd.grad(y[:, k].sum(), points, retain_graph=k == 0)[0]

    return passes(gradients)


class Attending(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


@pytest.mark.parametrize(
    ("module", "shape", "forward", "gradient"),
    [
        (nn.Linear(10, 5), (1, 10), 2 * 10 * 5, 2 * 10 * 5),
        (nn.Conv2d(3, 4, 3, padding=1), (1, 3, 8, 8), 2 * 3 * 4 * 9 * 64, 2 * 3 * 4 * 9 * 64),
        # two products; backward the scores again, and four
        (Attending(), (1, 2, 6, 8), 2 * 2 * 2 * 6 * 6 * 8, 5 * 2 * 2 * 6 * 6 * 8),
        (nn.Flatten(), (1, 2, 3), 0, 0),
    ],
)  # fmt: skip
def test_arithmetic(module: nn.Module, shape: tuple[int, ...], forward: int, gradient: int) -> None:
    """Two operations for each multiplication and addition; the gradient to the inputs alone, not to the weights."""
    found = counted(module, torch.rand(shape))
    assert (found.forward.flops, found.gradient.flops) == (forward, gradient)


def test_bytes_and_operators() -> None:
    """Each result is counted once, views are none."""
    found = counted(nn.Sequential(nn.ReLU(), nn.Unflatten(1, (2, 3)), nn.Flatten(), nn.Tanh()), torch.rand(1, 6))
    assert found.forward == Tally(2, 0, (6 + 6) * 4)  # the sum whose gradient is taken is with the gradient
    assert found.gradient.operators >= 4
    assert found.gradient.bytes >= (6 + 6) * 4


def test_rows_scale_arithmetic_but_not_operators() -> None:
    module = nn.Sequential(nn.Linear(7, 5), nn.GELU(), nn.Linear(5, 3))
    one, four = (counted(module, torch.rand(rows, 7)) for rows in (1, 4))
    assert four.forward.flops == 4 * one.forward.flops
    assert four.gradient.flops == 4 * one.gradient.flops
    assert (four.forward.operators, four.gradient.operators) == (one.forward.operators, one.gradient.operators)
