"""Laws of the final linear layer: attributions through the latents equal those without, and what is not ``W z + c`` is
refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import igc_dist
from igc_dist import inputs
from igc_dist.attributors import Attributor, Gradients, GradientXInput, PathIntegral, Task
from igc_dist.model import Model
from igc_dist.paths import rule
from igc_dist.records import ConfigError, ModelError
from tests import models

X = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(4, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
ALL = ("inside", "after")


def mlp() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 6), nn.GELU(), nn.Linear(6, 4), nn.Tanh())


def body() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(1, 3, 3, stride=2), nn.GELU())


def sequence() -> nn.Module:
    """(n, 3) to (n, 3, 2): a token of width 2 per feature."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Unflatten(1, (3, 2)))


def pooled() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


Case = tuple[Callable[[], nn.Module], dict[str, Any], Tensor]
CASES: dict[str, Case] = {
    "linear": (lambda: models.Head(mlp(), nn.Linear(4, 11)), {}, X),
    "no bias": (lambda: models.Head(mlp(), nn.Linear(4, 11, bias=False)), {}, X),
    "linear after": (lambda: models.Head(mlp(), nn.Linear(4, 11)), {"forward": "latent"}, X),
    "1x1 and flatten": (lambda: models.Head(body(), nn.Conv2d(3, 11, 1), nn.Flatten()), {}, IMAGES),
    "1x1, flattened by us": (lambda: models.Head(body(), nn.Conv2d(3, 11, 1)), {"output": "flatten"}, IMAGES),
    "1x1 after": (lambda: models.Head(body(), nn.Conv2d(3, 11, 1)), {"forward": "latent", "output": "flatten"}, IMAGES),
    "1x1 and average": (lambda: models.Head(body(), nn.Conv2d(3, 11, 1), pooled()), {}, IMAGES),
    "1x1 in one dimension": (lambda: models.Head(sequence(), nn.Conv1d(3, 11, 1), nn.Flatten()), {}, X),
    "tokens": (lambda: models.Head(sequence(), nn.Linear(2, 7), nn.Flatten()), {}, X),
    "of a dict": (lambda: models.Head(mlp(), nn.Linear(4, 11), Named()), {"output": "logits"}, X),
}


class Named(nn.Module):
    def forward(self, y: Tensor) -> dict[str, Tensor]:
        return {"logits": y, "loss": y.sum()}


every = pytest.mark.parametrize("name", CASES)
FAMILY: list[Attributor] = [Gradients(), GradientXInput(), PathIntegral(rule("midpoint", 4))]


def attributed(model: Model, attributor: Attributor, x: Tensor, outputs: list[int]) -> np.ndarray:
    kind = inputs.ensure(model)
    with model.borrowed("cpu"):
        kind.predict((x,))
        start = (torch.full_like(x, 0.3)[None, :1],) if attributor.baselines else ()
        return kind.attribute(attributor, Task(model, (x,), start, outputs, 1.0, 3))[0].numpy()


def plain(make: Callable[[], nn.Module], settings: dict[str, Any]) -> Model:
    return Model(make(), **{name: value for name, value in settings.items() if name != "forward"})


@every
@pytest.mark.parametrize("attributor", FAMILY, ids=lambda a: a.name)
def test_equals_the_way_without(name: str, attributor: Attributor) -> None:
    """To 1e-12 in float64: predictions and attributions, of all outputs and of some, by fewer gradients where that is
    possible."""
    make, settings, x = CASES[name]
    model, twin = Model(make(), final_layer="layer", **settings), plain(make, settings)
    torch.testing.assert_close(model.predict((x,)), twin.predict((x,)), rtol=0, atol=0)
    n = model.predict((x[:1],)).shape[1]
    for outputs in (list(range(n)), list(range(n))[::-2], [n - 1, 0], [1]):
        np.testing.assert_allclose(
            attributed(model, attributor, x, outputs), attributed(twin, attributor, x, outputs), rtol=1e-12, atol=1e-13
        )


@every
def test_as_many_backwards_as_latents(name: str) -> None:
    """All outputs cost the gradients of the latents of their positions; where that is no less, the outputs' own."""
    make, settings, x = CASES[name]
    model = Model(make(), final_layer="layer", **settings)
    n = model.predict((x,)).shape[1]
    latents, layer = model.n_latents, model.final.layer
    assert latents == n // layer.weight.shape[0] * layer.weight.shape[1]
    latent = model.latent(range(n))
    assert latent is not None
    assert len(latent.outputs) == latents < n
    assert len(list(latent.model.gradients((x,), latent.outputs))) == latents
    assert model.latent([0]) is None
    assert model.latent(range(layer.weight.shape[1] if latents == layer.weight.shape[1] else 2)) is None


def test_only_the_latents_of_the_positions_needed() -> None:
    """Of a flattened map, outputs at one pixel need the channels there."""
    make, settings, x = CASES["1x1 and flatten"]
    model = Model(make(), final_layer="layer", **settings)
    positions = model.predict((x,)).shape[1] // 11
    latent = model.latent([j * positions + 2 for j in range(11)])
    assert latent is not None
    assert latent.outputs == [2, 2 + positions, 2 + 2 * positions]


@every
def test_nothing_is_kept_or_changed(name: str) -> None:
    """Weights to the bit, and the layer's forward; calls with other outputs in any order give what fresh ones give
    (IGC-07)."""
    make, settings, x = CASES[name]
    module = make()
    model = Model(module, final_layer=module.layer, **settings)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    one, two = list(range(9)), [10, 3, 4, 5, 6, 7, 8]
    fresh = [
        attributed(Model(make(), final_layer="layer", **settings), FAMILY[2], x, outputs) for outputs in (one, two)
    ]
    for number in (0, 1, 0):
        assert np.array_equal(attributed(model, FAMILY[2], x, (one, two)[number]), fresh[number])
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert "forward" not in module.layer.__dict__
    with torch.no_grad():  # a changed weight is seen by the next run
        module.layer.weight.mul_(2)
    twin = make()
    with torch.no_grad():
        twin.layer.weight.mul_(2)
    np.testing.assert_allclose(
        attributed(model, FAMILY[2], x, one),
        attributed(plain(lambda: twin, settings), FAMILY[2], x, one),
        rtol=1e-12,
        atol=1e-13,
    )


def test_a_layer_that_is_no_part_of_the_module() -> None:
    """It is borrowed with it: frozen, in the run's type, handed back."""
    module, layer = mlp(), nn.Linear(4, 9)
    model = Model(module, final_layer=layer, precision="64-true")
    with model.borrowed("cpu"):
        assert model.predict((X,)).dtype is layer.weight.dtype is torch.float64
        assert not layer.weight.requires_grad
        assert model.latent(range(9)) is not None
    assert layer.weight.dtype is torch.float32
    assert layer.weight.requires_grad


class Skip(models.Head):
    def forward(self, *x: Tensor) -> Tensor:
        return self.layer(self.body(*x)) + x[0].sum(1, keepdim=True)


class Twice(models.Head):
    def forward(self, *x: Tensor) -> Tensor:
        return self.layer(self.body(*x)) + self.layer(-self.body(*x))


def open_relu() -> nn.Module:
    """A ReLU after the layer that is open for every sample."""
    head = models.Head(nn.Sequential(mlp(), nn.Softplus()), nn.Linear(4, 9), nn.ReLU())
    with torch.no_grad():
        head.layer.weight.abs_(), head.layer.bias.abs_()
    return head


REFUSED: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], type[Exception], str]] = {
    "softmax": (lambda: models.Head(mlp(), nn.Linear(4, 9), nn.Softmax(1)), {}, ModelError, r"off by .* of their size"),
    "open relu": (open_relu, {}, ModelError, "no softmax or other activation.*off by"),
    "scale": (
        lambda: models.Head(mlp(), nn.Linear(4, 9), models.Function(lambda y: 3 * y)),
        {},
        ModelError,
        "scale.*off by",
    ),
    "skip": (lambda: Skip(mlp(), nn.Linear(4, 9)), {}, ModelError, "skip connection.*off by"),
    "norm": (
        lambda: models.Head(mlp(), nn.Linear(4, 9), nn.BatchNorm1d(9).double()),
        {},
        ModelError,
        "fails when the layer hands on",
    ),
    "twice": (lambda: Twice(mlp(), nn.Linear(4, 9)), {}, ModelError, "calls it 2 times"),
    "unrelated": (
        lambda: models.Head(mlp(), nn.Linear(5, 9)),
        {"forward": "latent"},
        ModelError,
        "does not call it, and gives no input",
    ),
    "index": (
        lambda: models.Head(body(), nn.Conv2d(3, 11, 1)),
        {"output": [1, 0, 0]},
        ModelError,
        "1 outputs and 1 latents",
    ),
    "name": (
        lambda: models.Head(mlp(), nn.Linear(4, 9)),
        {"final_layer": "layr"},
        ConfigError,
        "'layr'.*did you mean 'layer'",
    ),
    "kind": (
        lambda: models.Head(mlp(), nn.Linear(4, 9)),
        {"final_layer": "body.3"},
        ConfigError,
        "of type Tanh: give an nn.Linear",
    ),
    "3x3": (lambda: models.Head(body(), nn.Conv2d(3, 9, 3)), {}, ConfigError, r"kernel \(3, 3\)"),
    "groups": (lambda: models.Head(body(), nn.Conv2d(3, 9, 1, groups=3)), {}, ConfigError, "3 groups"),
    "padded": (lambda: models.Head(body(), nn.Conv2d(3, 9, 1, padding=1)), {}, ConfigError, r"padding \(1, 1\)"),
    "compiled": (lambda: models.Head(mlp(), nn.Linear(4, 9)), {"compiled": True}, ConfigError, "compiled"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_layers_that_are_not_the_last(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are refused with how far off they are, and what is expected; the module is as it was."""
    make, settings, kind, text = REFUSED[name]
    monkeypatch.setattr(torch, "compile", lambda call: call)
    module, x = make(), IMAGES if name in ("index", "3x3", "groups", "padded") else X
    with pytest.raises(kind, match=text):
        Model(module.eval(), **{"final_layer": "layer", **settings}).predict((x,))
    assert "forward" not in module.layer.__dict__


@pytest.mark.parametrize("settings", [{}, {"forward": "latent"}], ids=ALL)
def test_end_to_end(settings: dict[str, Any]) -> None:
    """The results of a run without the layer, in any cut of the outputs; bias once in predictions (IGC-08); with
    categories too."""
    x = torch.randn(20, 3, dtype=torch.float64)
    make = lambda: models.Head(mlp(), nn.Linear(4, 9))  # noqa: E731
    y = make()(x).detach() + torch.randn(20, 9)
    keywords: dict[str, Any] = {"n_folds": 4, "baseline": 3, "samples": True, "statistics": ["correlation", "moments"]}
    expected = igc_dist.attribute(make(), (x, y), **keywords)
    for block in (None, 6, 2):
        tree = igc_dist.attribute(make(), (x, y), final_layer="layer", output_block=block, **settings, **keywords)
        for name in (
            "x/igc",
            "x/igc_se",
            "x/ig_std",
            "correlation",
            "quadrature_error",
            "samples/prediction",
            "samples/x/attribution",
        ):
            np.testing.assert_allclose(tree[name], expected[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_end_to_end_with_categories() -> None:
    """Latents of a relaxed forward: the same map with and without."""
    make = lambda: models.Lookup(n_out=9)  # noqa: E731
    x = torch.randn(12, 3, dtype=torch.float64), torch.randint(4, (12, 2))
    keywords: dict[str, Any] = {"n_folds": 3, "baseline": 2, "categories": 4}
    data = x, make()(*x).detach() + torch.randn(12, 9)
    one, two = (igc_dist.attribute(make(), data, final_layer=layer, **keywords) for layer in ("last", None))
    for name in ("x/igc", "x1/igc"):
        np.testing.assert_allclose(one[name], two[name], rtol=1e-9, atol=1e-12)


def test_attributors_that_are_not_linear_take_outputs() -> None:
    """One that takes no gradients, or whose walk depends on the output, gets the model itself."""
    make, settings, x = CASES["linear"]
    model = Model(make(), final_layer="layer", **settings)
    model.predict((x,))
    for name, flag, through in (("gradients", False, 11), ("linear", False, 11), ("linear", True, 4)):
        seen: list[int] = []

        class Seen(Gradients):
            def of(self, task: Task, seen: list[int] = seen) -> Any:
                seen.append(len(task.outputs))
                return super().of(task)

        setattr(Seen, name, flag)
        inputs.ensure(model).attribute(Seen(), Task(model, (x,), (), list(range(11)), 1.0, 4))
        assert seen == [through]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_lower_precision_is_let_through(precision: str) -> None:
    """Rounding is no reason to refuse a layer."""
    model = Model(models.Head(mlp(), nn.Linear(4, 9)).float(), final_layer="layer", precision=precision)
    with model.borrowed("cpu"):
        model.predict((X.float(),))
        assert model.latent(range(9)) is not None


def test_a_forward_that_changed_is_looked_at_again() -> None:
    """What holds of the layer in one run is proven anew in the next."""
    module = models.Head(mlp(), nn.Linear(4, 9))
    model = Model(module, final_layer="layer")
    attributed(model, FAMILY[0], X, list(range(9)))
    module.after = nn.Softmax(1)
    with pytest.raises(ModelError, match="off by"):
        attributed(model, FAMILY[0], X, list(range(9)))
