"""Attributions to the activations of a layer (`model.layer`): Captum's numbers, a literal twin, sums, and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import igc_dist
from igc_dist.baselines import Mean
from igc_dist.config import from_config
from igc_dist.features import Heads, Tokens, Units
from igc_dist.model import Cut
from igc_dist.records import ConfigError, ModelError
from tests.config.test_conf import composed
from tests.model.nets import ConvNeXt, ViT
from tests.models import ML

SETTINGS: dict[str, Any] = {"n_folds": 3, "precision": "64-true"}


def relus() -> nn.Module:
    """Captum's model, with its ReLU as a layer."""
    own = ML()
    return nn.Sequential(own.linear0, own.linear1, nn.ReLU(), own.linear2)


@pytest.mark.parametrize(
    ("layer", "target", "expected"),
    [("2", 0, [90, 100, 100, 100]), ("2", 1, [90, 100, 100, 100]), ("3", 0, [390, 0]), ("0", 0, [0, 390, 0])],
)
def test_captums_numbers(layer: str, target: int, expected: list[int]) -> None:
    """Of its tests of layers, x = [0, 100, 0]. At linear0, which is the identity, as of the inputs."""
    x = torch.tensor([[0, 100, 0], [0, 0, 0.0]], dtype=torch.float64)
    tree = igc_dist.attribute(
        relus(), (x, torch.eye(2)), layer=layer, method="ig", target=target, n_steps=500, **SETTINGS | {"n_folds": 2}
    )
    found = tree["samples/x/attribution"].sel(output=target).values[tree["samples/index"].values == 0][0]
    np.testing.assert_allclose(found, expected, atol=0.1)


class Twice(nn.Module):
    """Captum's model of two ReLUs, which are added; `more` leads around them."""

    def __init__(self, more: bool = False) -> None:
        super().__init__()
        own = ML()
        self.linear0, self.linear1, self.linear2, self.more = own.linear0, own.linear1, own.linear2, more
        self.one, self.two = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear1(self.linear0(x))
        return self.linear2(self.one(z) + self.two(z) + (z if self.more else 0))


def test_captums_numbers_of_two_layers() -> None:
    """They move together, as two inputs; one of them alone leaves a way around it."""
    x = torch.tensor([[0, 100, 0], [0, 0, 0.0]], dtype=torch.float64)
    settings: dict[str, Any] = {"target": 0, "n_steps": 8, **SETTINGS, "n_folds": 2, "method": "ig"}
    tree = igc_dist.attribute(Twice(), (x, torch.eye(2)), layer=["one", "two"], **settings)
    row = tree["samples/index"].values == 0
    for name in ("x", "x1"):
        found = tree[f"samples/{name}/attribution"].sel(output=0).values[row][0]
        np.testing.assert_allclose(found, [90, 100, 100, 100], atol=0.1)
    np.testing.assert_allclose(tree["samples/delta"], 0, atol=1e-9)
    with pytest.raises(ModelError, match=r"the layer 'one'.*or all layers that it passes"):
        igc_dist.attribute(Twice(), (x, torch.eye(2)), layer="one", **settings)
    with pytest.raises(ModelError, match="the layer 'one' and 'two'"):
        igc_dist.attribute(Twice(more=True), (x, torch.eye(2)), layer=["one", "two"], **settings)
    with pytest.raises(ConfigError, match="each once"):
        igc_dist.attribute(Twice(), (x, torch.eye(2)), layer=["one", "one"], **settings)


@pytest.mark.parametrize(("net", "layer"), [(ViT, "blocks.0"), (ViT, "blocks"), (ConvNeXt, "stem")])
def test_equals_captum(net: type[nn.Module], layer: str) -> None:
    """Of a block of a transformer, and of a convolution, about baselines of 0, at the same points of the path."""
    captum = pytest.importorskip("captum.attr")
    torch.manual_seed(0)
    model, x = net().double().eval(), torch.rand(5, 3, 16, 16, dtype=torch.float64)
    y = torch.randn(5, 5)
    tree = igc_dist.attribute(
        model, (x, y), layer=layer, method="ig", quadrature="gauss_legendre", n_steps=6, target=2, **SETTINGS
    )
    found = tree["samples/x/attribution"].isel(output=0).values[np.argsort(tree["samples/index"].values)]
    peer = captum.LayerIntegratedGradients(model, model.get_submodule(layer))
    expected = peer.attribute(x, torch.zeros_like(x), target=2, n_steps=6, method="gausslegendre").detach()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)  # of Captum's nodes


def test_units_of_a_layer_below_a_linear_head_are_known() -> None:
    """``IGC_u = Cov(w_u z_u, y) / (std y std f)`` whatever the baselines; they add up to the correlation."""
    torch.manual_seed(1)
    body = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(36, 6), nn.SiLU())
    model, x = nn.Sequential(body, nn.Linear(6, 2)).double(), torch.rand(30, 3, 8, 8, dtype=torch.float64)
    y = torch.randn(30, 2, dtype=torch.float64)
    tree = igc_dist.attribute(model, (x, y), layer="0", **SETTINGS)
    with torch.no_grad():
        z, f = body(x).numpy(), model(x).numpy()
    w = model[1].weight.detach().numpy()
    for j in range(2):
        covariance = np.array([np.cov(w[j, u] * z[:, u], y[:, j], bias=True)[0, 1] for u in range(6)])
        np.testing.assert_allclose(tree["x/igc"][j], covariance / (y.numpy()[:, j].std() * f[:, j].std()), rtol=1e-9)
    np.testing.assert_allclose(tree["igc_sum"], tree["correlation"], rtol=1e-9)
    assert tree["x/igc"].dims == ("output", "unit")


@pytest.mark.parametrize(
    ("reduce", "dims"), [(None, ("token", "unit")), (Tokens(), ("token",)), (Units(), ("unit",)), (Heads(4), ("head",))]
)
def test_a_transformer_by_tokens_units_and_heads(reduce: Any, dims: tuple[str, ...]) -> None:
    """All are sums of the same map, and add up to the correlation less the baseline's term."""
    torch.manual_seed(0)
    data = torch.rand(12, 3, 16, 16), torch.arange(12) % 5
    settings = {"layer": "blocks.0", "target": "one_hot", "baseline": 2, "quadrature": "gauss_legendre", **SETTINGS}
    net = ViT().eval()
    tree, whole = (igc_dist.attribute(net, data, reduce=one, n_steps=12, **settings) for one in (reduce, None))
    assert tree["x/igc"].dims == ("output", *dims)
    gone = [dim for dim in ("token", "unit") if dim not in dims and "head" not in dims]
    expected = whole["x/igc"].sum(gone)
    if reduce == Heads(4):
        expected = whole["x/igc"].sum("token").values.reshape(5, 4, 4).sum(2)
    np.testing.assert_allclose(tree["x/igc"], expected, rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(
        torch.tensor(tree["quadrature_error"].values), torch.zeros(5).double(), atol=1e-4, rtol=0
    )


def test_a_table_of_words_is_a_layer() -> None:
    """Inputs are integers, and the baseline is a word: ``a = w (e(x) - e(0)) / n``, as of Captum's embeddings."""
    torch.manual_seed(2)
    words = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 2)).double()
    x, y = torch.randint(0, 7, (9, 3)), torch.randn(9, 2)
    tree = igc_dist.attribute(words, (x, y), layer="0", method="ig", **SETTINGS)
    found = tree["samples/x/attribution"].values[np.argsort(tree["samples/index"].values)]
    e, w = words[0].weight.detach().numpy(), words[2].weight.detach().numpy().reshape(1, 2, 3, 4)
    np.testing.assert_allclose(found, w * (e[x] - e[0])[:, None], rtol=1e-9)


def test_baselines_are_those_of_the_inputs() -> None:
    """The mean of the data is one of pixels; for what is linear above, its activations are the start of the walk."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    x, y = torch.randn(8, 4, dtype=torch.float64), torch.randn(8, 1)
    tree = igc_dist.attribute(model, (x, y), layer="1", method="ig", baseline=Mean(), **SETTINGS)
    found = tree["samples/x/attribution"].values[np.argsort(tree["samples/index"].values), 0]
    with torch.no_grad():
        z, start = model[:2](x), model[:2](x.mean(0, keepdim=True))
    np.testing.assert_allclose(found, (model[2].weight * (z - start)).detach(), rtol=1e-9)


class Pair(nn.Module):
    """Two inputs of different sizes meet before the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.act, self.last = nn.Linear(3, 4), nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.last(self.act(self.one(x) + self.two(z)))


def test_the_mean_of_several_inputs_is_a_baseline_of_a_layer() -> None:
    """There are more means than groups of activations."""
    torch.manual_seed(4)
    model, x, z = Pair().double(), torch.randn(9, 3).double(), torch.randn(9, 2).double()
    tree = igc_dist.attribute(model, ((x, z), torch.randn(9, 2)), layer="act", method="ig", baseline=Mean(), **SETTINGS)
    found = tree["samples/x/attribution"].values[np.argsort(tree["samples/index"].values)]
    with torch.no_grad():
        end, start = (model.act(model.one(a) + model.two(b)) for a, b in ((x, z), (x.mean(0), z.mean(0))))
    np.testing.assert_allclose(found, (model.last.weight * (end - start)[:, None]).detach(), rtol=1e-9)


class Batched(nn.Module):
    """It gives the batch the shape of its inputs, as some transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).tanh().reshape(x.shape[0], 6))


def test_what_is_below_the_layer_sees_one_row_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it costs next to nothing; a forward that asks its inputs for the size of the batch gets all rows."""
    x = torch.rand(9, 4)

    def rows() -> int:
        seen: list[int] = []
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
        model[0].register_forward_hook(lambda module, args, z: seen.append(len(z)))
        igc_dist.attribute(model, (x, torch.rand(9, 2)), layer="1", n_steps=40, n_folds=3)
        return sum(seen)

    few = rows()
    with monkeypatch.context() as patched:
        patched.setattr(Cut, "prove", lambda self, model, inputs: setattr(self, "rows", 0))
        assert rows() > few + 9 * 39
    one, two = (
        igc_dist.attribute(net, (x, x[:, :2]), layer=layer, n_steps=4, n_folds=3)
        for net, layer in zip(_alike(Batched()), ("first", "0"), strict=True)
    )
    np.testing.assert_allclose(one["x/igc"], two["x/igc"], rtol=1e-5)


def _alike(net: Batched) -> tuple[nn.Module, nn.Module]:
    return net, nn.Sequential(net.first, nn.Tanh(), net.last)


def test_a_layer_of_a_vision_model_is_called_as_in_its_library() -> None:
    """Without the wrapper's name before it; the words of the command line say the same."""
    job = from_config(composed("model.layer=features.3", "reduce=units"), None)
    assert job.inputs.layer == "features.3"
    assert from_config(composed("model.layer=[features.1,features.3]"), None).inputs.layer == [
        "features.1",
        "features.3",
    ]
    with pytest.raises(
        ConfigError, match="no layer or method '7'"
    ):  # a name, which the command line takes for a number
        from_config(composed("model.layer=7"), None)
    from igc_dist import models

    vision = models.module(ViT(), size=16, mean=[0.5] * 3, std=[0.5] * 3)
    assert Cut(igc_dist.model.Model(vision), ["blocks.1"]).modules[0] is vision.net.blocks[1]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"layer": "block.1"}, ConfigError, r"no layer or method 'block\.1' \(did you mean 'blocks\.1'"),
        ({"layer": "forward"}, ConfigError, r"model\.layer='forward' is no submodule of ViT"),
        ({"layer": []}, ConfigError, r"model\.layer=\[\]: name a layer"),
        ({"layer": ["blocks.0", "_a__b"]}, ConfigError, r"no layer or method '_a__b'"),
        ({"layer": "blocks.0.mlp"}, ModelError, "a connection leads around it"),
        ({"layer": "blocks.0", "compiled": True}, ConfigError, "cannot be replaced in a compiled forward"),
        ({"layer": "blocks.0", "categories": 3}, ConfigError, "layer with embedding or categories"),
    ],
)
def test_refusals(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(error, match=message):
        igc_dist.attribute(ViT().eval(), (torch.rand(6, 3, 16, 16), torch.rand(6, 5)), n_folds=2, **settings)
