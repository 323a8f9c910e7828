"""What a layer gives: read by its name during one forward, before what is done in place; what cannot be read is
refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from igc_dist.attributors import IG2
from igc_dist.model import Model
from igc_dist.records import ConfigError, ModelError
from tests import models


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


class Tree(nn.Module):
    """Layers of all kinds, some of which cannot be read."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True))
        self.twice, self.idle, self.pair, self.head = nn.Tanh(), nn.Tanh(), nn.LSTM(4, 4), nn.Linear(4, 2)
        self.double()

    def encode(self, x: Tensor) -> Tensor:
        return self.body(x)

    def steady(self, z: Tensor) -> Tensor:
        return z.detach() + 1

    def summed(self, z: Tensor) -> Tensor:
        return z.sum()

    def forward(self, x: Tensor) -> Tensor:
        z = self.encode(x)
        z = z + 1e-3 * self.pair(z)[0]
        self.steady(z)
        self.summed(z)
        return self.head(input=self.twice(self.twice(z)))


def test_layers_by_name() -> None:
    """A submodule, its input, by position or by keyword, and methods; before what is done in place; in the precision
    that sums need."""
    tree, x = Tree(), torch.from_numpy(random(2, 3))
    with torch.no_grad():
        linear = tree.body[0](x)
        hidden = torch.relu(linear)
        body = hidden + 1e-3 * tree.pair(hidden)[0]
        head = torch.tanh(torch.tanh(body))
    layers = {
        "body": hidden,
        "body.0": linear,
        "body.0.input": x,
        "body.1.input": linear,
        "encode": hidden,
        "head.input": head,
    }
    for layer, expected in (layers | {"head": tree(x).detach(), "body.0.forward": linear}).items():
        y, z = Model(tree).represent((x,), layer)
        torch.testing.assert_close(z, expected, rtol=1e-14, atol=1e-15)
        assert torch.equal(y, tree(x))
        assert not z.requires_grad
    image = torch.from_numpy(random(2, 1, 6, 6))
    assert Model(models.conv()).represent((image,), "0")[1].shape == (2, 108)
    half = Model(models.mlp(nn.GELU).float(), precision="bf16-mixed").represent((x.float(),), "2.input")[1]
    assert half.dtype is torch.float32
    assert torch.equal(half, half.bfloat16().float())


@pytest.mark.parametrize(
    ("layer", "kind", "message"),
    [
        ("", ConfigError, "name the layer whose representation leads the path"),
        ("haed", ConfigError, r"Tree has no layer or method 'haed' \(did you mean 'head'\?\): give the dotted name"),
        ("heed.input", ConfigError, r"did you mean 'head.input'"),
        ("encod", ConfigError, r"did you mean 'encode'"),
        ("input", ConfigError, "has no layer or method 'input'"),
        ("idle", ModelError, "calls the layer 'idle' 0 times"),
        ("twice", ModelError, "calls the layer 'twice' 2 times"),
        ("pair", ModelError, "gives tuple for 1 inputs"),
        ("summed", ModelError, r"gives torch.float64 of shape \(\) for 1 inputs"),
        ("steady", ModelError, "no gradient with respect to the inputs"),
    ],
)
def test_layers_that_cannot_be_read(layer: str, kind: type[Exception], message: str) -> None:
    """Before anything is computed, with the way out."""
    with pytest.raises(kind, match=message):
        IG2(layer).prove(Model(Tree()), (torch.from_numpy(random(1, 3)),))
