"""What can only be seen on a CUDA device: the same results as on CPU, in float32 and in mixed precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

import igc_dist
from igc_dist.demo import Digits, digits_cnn

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def maps(**changes: object) -> np.ndarray:
    """IGC of 96 digits, computed where the model is."""
    device = changes.pop("device")
    tree = igc_dist.attribute(digits_cnn().to(device), Subset(Digits(), range(96)), n_steps=4, baseline=2, n_folds=4, **changes)
    return np.asarray(tree["x/igc"].values)


def relative(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.sqrt(((one - two) ** 2).sum() / (two**2).sum()))


def test_float32_equals_cpu() -> None:
    """Device-agnostic code: TF32 aside, only the rounding of convolutions differs."""
    assert relative(maps(device="cuda"), maps(device="cpu")) < 1e-2


def test_float64_equals_cpu() -> None:
    """In float64 nothing is left of it."""
    assert relative(maps(device="cuda", precision="64-true"), maps(device="cpu", precision="64-true")) < 1e-10


def test_twice_gives_the_same_bits() -> None:
    """Deterministic kernels: the store can be resumed and verified by recomputing."""
    assert maps(device="cuda").tobytes() == maps(device="cuda").tobytes()


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_is_close(precision: str) -> None:
    """Autocast round the forward only: path points and sums stay float32 and float64."""
    assert relative(maps(device="cuda", precision=precision), maps(device="cpu")) < 0.1


def test_model_is_handed_back_on_its_device() -> None:
    """A run leaves the user's module where it was, with its flags."""
    model = digits_cnn().train().to("cuda")
    igc_dist.attribute(model, Subset(Digits(), range(8)), n_steps=1)
    assert model.training
    assert {p.device.type for p in model.parameters()} == {"cuda"}
    assert all(p.requires_grad for p in model.parameters())
