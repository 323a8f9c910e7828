"""Which kind of function a model is: every activation alone, as a module and as a function; and what `quadrature=auto`
makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import _disable_current_modes

import igc_dist
from igc_dist.attributors import PathIntegral
from igc_dist.model import activations
from igc_dist.paths import Auto, ensure_rule, rule
from igc_dist.records import ConfigError, ModelError
from tests import models

PIECEWISE: dict[str, Callable[[Tensor], Tensor]] = {
    **{
        kind.__name__: kind() for kind in (
            nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.PReLU, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish,
        )
    },
    **{kind.__name__: kind() for kind in (nn.Hardshrink, nn.Softshrink)},
    "Threshold": nn.Threshold(0.1, 0.0), "ReLU in place": nn.Sequential(nn.Tanh(), nn.ReLU(inplace=True)),
    "MaxPool1d": nn.MaxPool1d(2), "MaxPool2d": nn.MaxPool2d(2), "MaxPool3d": lambda x: nn.MaxPool3d(2)(x[:, None]),
    "AdaptiveMaxPool2d": nn.AdaptiveMaxPool2d(2),
    "torch.relu": torch.relu, "clamp": lambda x: x.clamp(min=0), "clamp_min": lambda x: x.clamp_min(0),
    "abs": torch.abs,
    "maximum": lambda x: torch.maximum(x, -x), "amax": lambda x: x.amax(-1), "max": lambda x: x.max(-1).values,
    "one among smooth ones": nn.Sequential(nn.GELU(), nn.LayerNorm(4), nn.LeakyReLU(), nn.Tanh()),
}  # fmt: skip
SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    **{kind.__name__: kind() for kind in (nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.LogSigmoid)},
    **{kind.__name__: kind() for kind in (nn.ELU, nn.CELU, nn.SELU, nn.Identity)},
    "Softmax": nn.Softmax(-1), "LayerNorm": nn.LayerNorm(4), "AvgPool2d": nn.AvgPool2d(2),
    "normalize": lambda x: F.normalize(x, dim=-1),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x),
    "integers": lambda x: x * torch.arange(4).clamp(min=1).max(),
    "BatchNorm": nn.BatchNorm2d(3).eval(), "Dropout": nn.Dropout().eval(),
    "logsumexp": lambda x: torch.logsumexp(x, -1),
}  # fmt: skip


@pytest.mark.parametrize("name", PIECEWISE)
def test_kinks_are_seen(name: str) -> None:
    x = torch.randn(2, 3, 4, 4)
    assert activations.piecewise(lambda: PIECEWISE[name](x[:, 0] if name == "MaxPool1d" else x))


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_functions_have_none(name: str) -> None:
    assert not activations.piecewise(lambda: SMOOTH[name](torch.randn(2, 3, 4, 4)))


def chosen(model: nn.Module, data: Any = None, **settings: Any) -> Any:
    x, y = models.data(model) if data is None else data
    return igc_dist.attribute(model, (x, y), n_folds=2, threads=1, **settings)


def test_auto_takes_the_rule_of_the_activations() -> None:
    """The numbers are those of the rule given by name, which is in the provenance and the spec."""
    gelu, relu = models.mlp(nn.GELU), models.mlp(nn.ReLU)
    for model, name, steps, n_steps in ((gelu, "gauss_legendre", 8, None), (relu, "midpoint", 5, 5)):
        auto, named = (chosen(model, quadrature=q, n_steps=n) for q, n in (("auto", n_steps), (name, steps)))
        np.testing.assert_array_equal(auto["x/igc"], named["x/igc"])
        assert auto.attrs["spec_hash"] == named.attrs["spec_hash"]
        assert (
            auto.attrs["spec"]["attributor"]["quadrature"]["name"]
            == auto.attrs["provenance"]["rule"]
            == f"{name}-{steps}"
        )


def test_auto_sees_functions_and_what_is_called() -> None:
    """A ReLU in a method that is not the forward counts if that is what is called, and one that nothing calls does
    not."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused, self.body = nn.ReLU(), nn.Linear(3, 2).double()

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.body(x))

        def other(self, x: Tensor) -> Tensor:
            return F.relu(self.body(x))

    data = torch.randn(8, 3).double(), torch.randn(8, 2).double()
    rules = [
        chosen(Two(), data, quadrature="auto", n_steps=8, forward=name).attrs["provenance"]["rule"]
        for name in (None, "other")
    ]
    assert rules == ["gauss_legendre-8", "midpoint-8"]


def test_auto_looks_behind_a_compiled_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose operators nobody sees."""

    def hiding(call: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def compiled(*inputs: Tensor) -> Any:
            with _disable_current_modes():
                return call(*inputs)

        return compiled

    monkeypatch.setattr(torch, "compile", hiding)
    found = chosen(models.mlp(nn.ReLU), quadrature="auto", n_steps=8, compiled=True)
    assert found.attrs["provenance"]["rule"] == "midpoint-8"


def test_auto_leaves_errors_to_the_first_look() -> None:
    """A forward that fails fails as it does with any rule."""
    data = torch.randn(8, 3), torch.randn(8, 2)
    with pytest.raises(ModelError, match="the model failed on inputs of shapes"):
        chosen(nn.Linear(4, 2), data, quadrature="auto")


def test_auto_of_settings() -> None:
    """Nothing is chosen before the model is asked; a drawn design has no rule to choose; a wrong number of steps is
    refused at once."""
    assert ensure_rule("auto", None) == Auto()
    assert (Auto().rule(True), Auto(4).rule(False)) == (rule("midpoint", 32), rule("gauss_legendre", 4))
    assert ensure_rule("midpoint", None) == rule("midpoint", 32)
    with pytest.raises(ConfigError, match="n_steps=0"):
        ensure_rule("auto", 0)
    with pytest.raises(TypeError, match="call suited"):
        PathIntegral(Auto()).points([(3,)])
    model = models.mlp(nn.GELU)
    drawn = [chosen(model, quadrature=q, n_steps=2, design="shifted") for q in ("auto", "midpoint")]
    np.testing.assert_array_equal(drawn[0]["x/igc"], drawn[1]["x/igc"])
    assert drawn[0].attrs["provenance"]["rule"] == "shifted-2"
