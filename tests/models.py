"""Tiny models with known answers, in float64, and the tiny data set D4. The named ones (M1, ML, ...) are those of
captum's tests."""
# ruff: noqa: N802 - they keep their names

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import relu


class Function(nn.Module):
    """A module without parameters from a function of its inputs; counts its forward passes and their rows."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function, self.calls, self.rows = function, 0, 0

    def forward(self, *inputs: Tensor) -> Any:
        self.calls += 1
        self.rows += len(inputs[0])
        return self.function(*inputs)


class Counted(nn.Module):
    """A module that counts the rows of its forward passes, and of its backward passes, whatever these differentiate."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.forwards, self.backwards, self.calls = module, 0, 0, 0

    def forward(self, *inputs: Tensor) -> Any:
        self.calls += 1
        self.forwards += len(inputs[0])
        first = inputs[0].clone()
        if first.requires_grad:
            first.register_hook(self._count)
        return self.module(first, *inputs[1:])

    def _count(self, grad: Tensor) -> None:
        self.backwards += len(grad)


def M1() -> nn.Module:
    return Function(lambda x: 1 - relu(1 - x))


def M2() -> nn.Module:
    return Function(lambda x1, x2: relu(relu(x1) - 1 - relu(x2)))


def M3() -> nn.Module:
    return Function(lambda x1, x2: relu(relu(x1 - 1) - relu(x2)))


def M6() -> nn.Module:
    return Function(lambda x1, x2: (1 - relu(1 - (x1 + x2)))[:, 1])


class ML(nn.Module):
    """3 -> 3 identity -> 4 (ones; bias -10, 1, 1, 1) -> relu -> 2 (ones; bias -1, 1); a second input is added to the
    first."""

    def __init__(self) -> None:
        super().__init__()
        self.linear0, self.linear1, self.linear2 = nn.Linear(3, 3, bias=False), nn.Linear(3, 4), nn.Linear(4, 2)
        with torch.no_grad():
            self.linear0.weight.copy_(torch.eye(3))
            self.linear1.weight.fill_(1)
            self.linear1.bias.copy_(torch.tensor([-10.0, 1, 1, 1]))
            self.linear2.weight.fill_(1)
            self.linear2.bias.copy_(torch.tensor([-1.0, 1]))
        self.double()

    def forward(self, x: Tensor, more: Tensor | None = None) -> Tensor:
        return self.linear2(relu(self.linear1(self.linear0(x if more is None else x + more))))


def L123() -> nn.Module:
    return Function(lambda x: x @ x.new_tensor([1, 2, 3]))


def RL() -> nn.Module:
    return Function(lambda x1, x2: relu(3 * x1[:, 0] + x1[:, 1]) + relu(2 * x2[:, 0] + 3 * x2[:, 1]))


def RD() -> nn.Module:
    return Function(lambda x1, x2: 2 * relu(x1) + 2 * relu(x2 - 1.5))


def TD() -> nn.Module:
    return Function(lambda x1, x2: 2 * torch.tanh(x1) + 2 * torch.tanh(x2 - 1.5))


def SG() -> nn.Module:
    return Function(lambda x: torch.sigmoid(relu(x @ x.new_ones(20, 5)) @ x.new_ones(5, 1)))


def SQ() -> nn.Module:
    return Function(lambda x: (x**2).sum(1))


def CU() -> nn.Module:
    return Function(lambda x: (x**3).sum(1))


D4 = torch.tensor([[0, 1, 2], [1, 0, 1], [2, 2, 0], [3, 1, 1]], dtype=torch.float64)
Y4 = torch.tensor([0, 1, 2, 4], dtype=torch.float64)


def linear4() -> nn.Module:
    """The linear model of the D4 cases."""
    return Function(lambda x: x @ x.new_tensor([2, -1, 0.5]) + 0.25)


def product4() -> nn.Module:
    """The nonlinear model of the D4 cases."""
    return Function(lambda x: x[:, 0] ** 2 + x[:, 0] * x[:, 1] + x[:, 2])


def linear(n_in: int = 3, n_out: int = 2) -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(n_in, n_out).double()


class Quadratic(nn.Module):
    """``f_k(x) = 0.5 x' Q_k x`` with symmetric Q_k."""

    def __init__(self, n_in: int = 3, n_out: int = 2) -> None:
        super().__init__()
        q = np.random.default_rng(2).standard_normal((n_out, n_in, n_in))
        self.Q = nn.Parameter(torch.from_numpy(q + q.transpose(0, 2, 1)))

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * torch.einsum("ni,kij,nj->nk", x, self.Q, x)


def mlp(activation: type[nn.Module], n_in: int = 3, n_out: int = 2, width: int = 8) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(n_in, width), activation(), nn.Linear(width, n_out)).double()


def conv(n_out: int = 2) -> nn.Module:
    """For images (1, 6, 6)."""
    torch.manual_seed(4)
    layers = (
        nn.Conv2d(1, 3, 3, padding=1),
        nn.GELU(),
        nn.AvgPool2d(2),
        nn.Conv2d(3, 4, 2),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(16, n_out),
    )
    return nn.Sequential(*layers).double()


class TwoInputs(nn.Module):
    """A vector (3,) and an image (2, 2) that act on each other."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.one, self.two, self.last = nn.Linear(3, 4).double(), nn.Linear(4, 4).double(), nn.Linear(4, 2).double()

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        return self.last(torch.tanh(self.one(x)) * torch.sigmoid(self.two(image.flatten(1))))


SMOOTH: dict[str, Callable[[], nn.Module]] = {"linear": linear, "quadratic": Quadratic, "gelu": lambda: mlp(nn.GELU)}
MODELS: dict[str, Callable[[], nn.Module]] = {**SMOOTH, "relu": lambda: mlp(nn.ReLU)}
"""Models from 3 features to 2 outputs, by name."""


def data(
    model: nn.Module, n: int = 12, shapes: tuple[tuple[int, ...], ...] = ((3,),), seed: int = 7
) -> tuple[Any, Tensor]:
    """n random samples for a model: inputs of these shapes, and targets that agree with its outputs in part."""
    rng = np.random.default_rng(seed)
    xs = tuple(torch.from_numpy(rng.standard_normal((n, *shape))) for shape in shapes)
    with torch.no_grad():
        outputs = model(*xs).reshape(n, -1)
    y = outputs + 0.5 * torch.from_numpy(rng.standard_normal(outputs.shape))
    return (xs if len(xs) > 1 else xs[0]), y


class Lookup(nn.Module):
    """Categories of two columns (n, 2) with a table each, beside a float input: ``f = last(tanh(x A + sum_s
    V_s[c_s]))``."""

    def __init__(self, n_float: int = 3, sizes: tuple[int, int] = (5, 4), n_out: int = 2) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.one, self.two = nn.Embedding(sizes[0], 4, padding_idx=0), nn.Embedding(sizes[1], 4)
        self.mix, self.last = nn.Linear(n_float, 4), nn.Linear(4, n_out)
        self.double()

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.body(x, self.one(ids[:, 0]), self.two(ids[:, 1]))

    def body(self, x: Tensor, one: Tensor, two: Tensor) -> Tensor:
        return self.last(torch.tanh(self.mix(x) + one * two + two))

    def relaxed(self, x: Tensor, code: Tensor) -> Tensor:
        """The same of one-hot codes (n, 2, 5)."""
        return self.body(x, code[:, 0, :5] @ self.one.weight, code[:, 1, :4] @ self.two.weight)


class Shared(nn.Module):
    """One table for two inputs: a scalar category each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.table, self.last = nn.Embedding(5, 3), nn.Linear(3, 2)
        self.double()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.body(self.table(a), self.table(b))

    def body(self, a: Tensor, b: Tensor) -> Tensor:
        return self.last(torch.sigmoid(a) * torch.tanh(b + 0.5 * a))

    def relaxed(self, a: Tensor, b: Tensor) -> Tensor:
        return self.body(a @ self.table.weight, b @ self.table.weight)


class Sequence(nn.Module):
    """Tokens (n, L) with learned places and a leading token of the model's own, a convolution and a linear layer."""

    def __init__(self, max_norm: float | None = None) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.token, self.place = nn.Embedding(6, 4, max_norm=max_norm), nn.Embedding(5, 4)
        self.conv, self.last = nn.Conv1d(4, 3, 2), nn.Linear(3, 2)
        self.double()

    def forward(self, ids: Tensor) -> Tensor:
        lead = torch.full_like(ids[:, :1], 5)
        return self.body(self.token(torch.cat((lead, ids), 1).int()))

    def body(self, embedded: Tensor) -> Tensor:
        places = self.place(torch.arange(embedded.shape[1]))
        return self.last(torch.tanh(self.conv((embedded + places).transpose(1, 2))).mean(2))

    def embed(self, ids: Tensor, scale: float = 1.0) -> Tensor:
        return scale * self.token(ids)

    def relaxed(self, code: Tensor) -> Tensor:
        lead = self.token.weight[5].expand(len(code), 1, 4)
        return self.body(torch.cat((lead, code @ self.token.weight), 1))


class Head(nn.Module):
    """A body, and a layer at its end: inside the forward, or for the caller to apply to what `latent` gives."""

    def __init__(self, body: nn.Module, layer: nn.Module, after: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.layer, self.after = body.double(), layer.double(), after or nn.Identity()

    def forward(self, *x: Tensor) -> Tensor:
        return self.after(self.layer(self.body(*x)))

    def latent(self, *x: Tensor) -> Tensor:
        return self.body(*x)
