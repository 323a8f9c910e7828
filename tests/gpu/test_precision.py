"""Precisions on a card, and what a run sets and records of its numeric context."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import igc_dist
from tests.benchmarks.models import Transformer
from tests.card import Card
from tests.gpu.problems import maps, relative, values


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "32-tf32"])
def test_precisions_with_rounded_factors_are_close(precision: str, card: Card) -> None:
    """Four micro-batches are audited in float32. A CPU knows no TF32."""
    tree = maps(card.device, precision=precision, precision_tol=None)
    assert relative(values(tree), values(maps("cpu"))) < 0.1
    error = float(tree["precision_error"].max())
    assert 0 < error < 0.1 or (card.dry and precision == "32-tf32" and error == 0)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_of_attention_is_close(precision: str, card: Card) -> None:
    """The fused kernels of half precision."""
    torch.manual_seed(0)
    x, y = torch.rand(8, 3, 32, 32), torch.randn(8, 10)
    settings = {"n_steps": 2, "n_folds": 2, "precision_audit": 0, "target": [0, 3]}
    ours, theirs = (
        igc_dist.attribute(Transformer(size=32).to(card.device), (x, y), precision=one, **settings)
        for one in (precision, "32-true")
    )
    assert relative(values(ours), values(theirs)) < 0.1


class Steep(nn.Module):
    """A layer whose outputs are multiplied by `factor`, and their gradients with them."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.factor = nn.Linear(16, 10), factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).softmax(1) * self.factor


@pytest.mark.parametrize(("factor", "tolerance"), [(1e-6, 0.15), (40.0, 0.02)])
def test_float16_is_scaled_and_backs_off(factor: float, tolerance: float, card: Card) -> None:
    """Gradients of 1e-7 are not lost, and the cotangent of 4096 backs off where a product overflows."""
    torch.manual_seed(1)
    x, y = torch.randn(16, 16), torch.randn(16, 10)
    settings = {"n_steps": 2, "n_folds": 2, "precision_audit": 0}
    ours, theirs = (
        igc_dist.attribute(Steep(factor).to(card.device), (x, y), precision=one, **settings)
        for one in ("16-mixed", "32-true")
    )
    assert relative(values(ours), values(theirs)) < tolerance


def test_what_a_run_sets_is_handed_back(card: Card) -> None:
    """Settings of the caller, whatever they are, are as they were after a run."""
    before = (
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled(),
    )  # fmt: skip
    tree = maps(card.device, 8, n_folds=2)
    after = (
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled(),
    )  # fmt: skip
    assert after == before
    assert tree.attrs["provenance"]["numerics"]["matmul"] == "highest"
