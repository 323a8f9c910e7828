"""Laws of forward mode: the same attributions as in reverse mode, and never where the model has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import igc_dist
from igc_dist import baselines
from igc_dist.attributors import Gradients
from igc_dist.features import Channels, Function, Patches, Reduction, Segments, Sums, Total
from igc_dist.records import ConfigError
from tests import models

LABELS = np.arange(36).reshape(6, 6) % 5


def nets(name: str) -> tuple[nn.Module, Any]:
    """A float64 model with 13 outputs, and data for it."""
    torch.manual_seed(11)
    if name == "two inputs":
        module: nn.Module = models.TwoInputs()
        module.last = nn.Linear(4, 13).double()
        return module, models.data(module, 7, ((3,), (2, 2)))
    if name == "final layer":
        module = models.Head(nn.Sequential(nn.Flatten(), nn.Linear(36, 6), nn.GELU()), nn.Linear(6, 13))
        return module, models.data(module, 7, ((1, 6, 6),))
    if name == "attention":
        module = Attention()
        return module, models.data(module, 7, ((1, 6, 6),))
    return models.conv(13), models.data(models.conv(13), 7, ((1, 6, 6),))


class Attention(nn.Module):
    """Rows of an image as tokens: a layer with a fast path in eval mode, and a call of the fused kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)
        self.last = nn.Linear(6, 13)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.layer(x[:, 0])
        return self.last(scaled_dot_product_attention(tokens, tokens, tokens).mean(1))


class Cube(torch.autograd.Function):
    """x^3 with a backward and no forward rule."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "patches": ("conv", {"reduce": Patches(4)}),
    "segments": ("conv", {"reduce": Segments(LABELS), "method": "ig_mean_std"}),
    "total": ("conv", {"reduce": Total(), "baseline": 3, "output_block": 5, "micro_batch": 4}),
    "channels": (
        "conv",
        {"reduce": Channels(), "baseline": baselines.Resampled(3), "baseline_block": 1, "micro_batch": 4, "n_folds": 2},
    ),
    "not reduced": ("two inputs", {"baseline": 0.3, "names": ["a", "b"]}),
    "one of two": ("two inputs", {"reduce": [None, Total()], "names": ["a", "b"], "target": [3, 1, 7, 12]}),
    "gradients": ("conv", {"reduce": Patches((2, 3)), "attributor": Gradients(), "samples": True}),
    "drawn": ("conv", {"reduce": Patches(3), "design": "stratified", "baseline": 4}),
    "final layer": ("final layer", {"reduce": Total(), "final_layer": "layer"}),
    "attention": ("attention", {"reduce": Patches(3)}),
}


@pytest.mark.parametrize("case", CASES)
def test_forward_mode_equals_reverse_mode(case: str) -> None:
    """Every reducer, several inputs, baselines, blocks and batches, outputs, the final layer, attention: to 1e-12 of
    the largest value."""
    name, settings = CASES[case]
    module, data = nets(name)
    trees = [igc_dist.attribute(module, data, n_steps=3, mode=mode, **settings) for mode in ("forward", "reverse")]
    assert [tree.attrs["cost"]["mode"] for tree in trees] == ["forward", "reverse"]
    for group in settings.get("names", ["x"]):
        ours, theirs = (tree[group] for tree in trees)
        assert set(ours.data_vars) == set(theirs.data_vars)
        for variable in ours.data_vars:
            if not variable.endswith("_se"):
                one, two = (np.asarray(of[variable]) for of in (ours, theirs))
                assert np.isfinite(two).all()
                assert abs(one - two).max() <= 1e-12 * abs(two).max(), variable
    for variable in ("completeness_error", "igc_sum"):
        if variable in trees[1]:
            one, two = (np.asarray(tree[variable]) for tree in trees)
            assert abs(one - two).max() < 1e-12


def run(function: Callable[[Tensor], Tensor], **settings: Any) -> Any:
    """A run of 3 features and 9 outputs."""
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(3, 4), models.Function(function), nn.Linear(4, 9))
    return igc_dist.attribute(module, (x, torch.randn(5, 9)), n_steps=2, n_folds=1, **{"reduce": Total(), **settings})


def stopped(x: Tensor) -> Tensor:
    with torch.no_grad():
        gate = torch.sigmoid(x)
    return x * gate


@pytest.mark.parametrize("function", [Cube.apply, stopped], ids=["no rule", "no_grad"])
def test_reverse_mode_where_there_is_no_forward_mode(function: Any, caplog: pytest.LogCaptureFixture) -> None:
    """An operator without a forward rule, and a forward that stops gradients, which forward mode does not see: reverse
    mode, said so."""
    tree = run(function)
    assert tree.attrs["cost"]["mode"] == "reverse" == tree.attrs["spec"]["plan"]["mode"]
    assert "reverse mode, 9 gradients per point where forward mode would take 1" in caplog.text
    with pytest.raises(
        ConfigError, match=r"plan\.mode=forward is not possible: (an operator|forward and reverse mode disagree)"
    ):
        run(function, mode="forward")


def test_the_cheaper_mode() -> None:
    """auto: forward where 3 groups x 3.0 are less than the outputs of a block, or the latents; and its evaluations are
    counted."""
    for settings, mode, each in [
        ({}, "forward", 1),
        ({"reduce": None}, "reverse", 9),
        ({"output_block": 3}, "reverse", 9),
        ({"final_layer": "2", "output_block": None}, "forward", 1),
        ({"final_layer": "2", "reduce": Segments(np.arange(3) % 2)}, "reverse", 4),
        ({"reduce": Function(lambda a: a.sum(-1, keepdims=True))}, "reverse", 9),
        ({"mode": "reverse"}, "reverse", 9),
        ({"mode": "forward", "reduce": None, "output_block": 3}, "forward", 3 * 3),
        ({"method": "bsc"}, "none", 0),
    ]:
        tree = run(torch.tanh, **settings)
        assert (tree.attrs["cost"]["mode"], tree.attrs["cost"]["gradient_evaluations"]) == (mode, 5 * 2 * each), (
            settings
        )


class Halves(Sums):
    """A user's reducer that is no sum over groups."""

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def dims(self, dims: tuple[str, ...], n_dims: int) -> tuple[str, ...]:
        return dims

    def summed(self, a: Tensor) -> Tensor:
        return (a + a.flip(-1)) / 2


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"method": "bsc"}, "the attributor 'bs' is no plain sum of gradients"),
        ({"reduce": Halves()}, "no sum over groups|not a sum over groups"),
        ({"reduce": Function(lambda a: a)}, "not a sum over groups"),
        ({"mode": "sideways"}, "plan.mode='sideways': choose one of auto, forward, reverse"),
    ],
)
def test_refused_with_the_reason(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        run(torch.tanh, **{"mode": "forward", **settings})


@pytest.mark.parametrize("reducer", [Patches(4), Patches((2, 5)), Segments(LABELS), Channels(), Total(), None])
def test_groups_are_what_a_reducer_sums(reducer: Any) -> None:
    """Sums over the groups are the reduced features, in their order."""
    a = torch.randn(2, 3, 3, 6, 6, dtype=torch.float64)
    (groups,) = Reduction((reducer,)).groups(((3, 6, 6),)) or ()
    expected = a if reducer is None else reducer(a, a)
    found = [a[..., torch.from_numpy(groups == q)].sum(-1) for q in range(groups.max() + 1)]
    torch.testing.assert_close(torch.stack(found, -1), expected.reshape(2, 3, -1), rtol=1e-12, atol=1e-12)


def test_the_fast_path_is_left_as_it_was() -> None:
    """Attention has its fast path and its kernels back after the run."""
    module, data = nets("attention")
    igc_dist.attribute(module, data, n_steps=1, n_folds=1, reduce=Total(), mode="forward")
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
