"""What a run asks of a card's kernels: to add in one order, and to round to TF32 only if that is asked for. Flags of
torch are there without a card, so the CPU stands for one here."""

from __future__ import annotations

import logging
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import igc_dist
from igc_dist.model import Model, numerics

X, Y = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), torch.randn(12, 2)
SEEN: list[dict[str, bool]] = []


def flags() -> dict[str, bool]:
    return {
        "one order": torch.are_deterministic_algorithms_enabled()
        and not torch.is_deterministic_algorithms_warn_only_enabled(),
        "products": torch.backends.cuda.matmul.allow_tf32,
        "convolutions": torch.backends.cudnn.allow_tf32,
    }


class Watched(torch.autograd.Function):
    """The identity; notes the flags of each backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        SEEN.append(flags())
        return grad


class Unordered(Watched):
    """As an operator that has no kernel that adds in one order."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        if flags()["one order"]:
            raise RuntimeError("some_backward_cuda does not have a deterministic implementation, but you set ...")
        return Watched.backward(ctx, grad)


class Net(nn.Module):
    def __init__(self, through: Any = Watched, forward: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.through, self.before = nn.Linear(3, 2), through, forward

    def forward(self, x: Tensor) -> Tensor:
        if self.before is not None:
            self.before()
        return torch.tanh(self.layer(self.through.apply(x)))


@pytest.fixture(autouse=True)
def fresh() -> None:
    """As a user's program starts: tests of this project ask for one order themselves."""
    torch.use_deterministic_algorithms(False)
    SEEN.clear()


def attribute(model: nn.Module, **settings: Any) -> Any:
    return igc_dist.attribute(model, (X, Y), n_steps=2, n_folds=2, **settings)


@pytest.fixture
def as_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "CARDS", ("cpu",))


@pytest.mark.usefixtures("as_card")
def test_backward_passes_of_a_card_add_in_one_order() -> None:
    """With errors, not warnings: with those fused attention would not. The setting is as it was afterwards."""
    tree = attribute(Net())
    assert SEEN
    assert all(seen["one order"] for seen in SEEN[1:])  # but the first look, whose numbers are not kept
    assert tree.attrs["provenance"]["numerics"]["in_one_order"] is True
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_cpu_is_not_asked() -> None:
    tree = attribute(Net())
    assert not any(seen["one order"] for seen in SEEN)
    assert tree.attrs["provenance"]["numerics"]["in_one_order"] is None


@pytest.mark.usefixtures("as_card")
def test_a_backward_pass_that_has_no_order_is_walked_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        tree = attribute(Net(Unordered))
    assert tree.attrs["provenance"]["numerics"]["in_one_order"] is False
    assert caplog.text.count("the last bits may differ from run to run") == 1
    np.testing.assert_array_equal(tree["x/igc"].values, attribute(Net())["x/igc"].values)


@pytest.mark.usefixtures("as_card")
def test_a_forward_pass_that_has_no_order_is_walked_and_said() -> None:
    def refuse() -> None:
        if flags()["one order"]:
            raise RuntimeError("scatter_add_cuda does not have a deterministic implementation, but you set ...")

    tree = attribute(Net(forward=refuse))
    assert tree.attrs["provenance"]["numerics"]["in_one_order"] is False


@pytest.mark.parametrize("callers", [False, True])
@pytest.mark.parametrize("precision", ["32-true", "32-tf32"])
def test_tf32_is_taken_where_it_is_asked_for(precision: str, callers: bool) -> None:
    """And never else, whatever the caller has set, which is as it was afterwards."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = callers
    try:
        attribute(Net(), precision=precision, precision_audit=0)
        assert SEEN
        assert {(seen["products"], seen["convolutions"]) for seen in SEEN} == {(precision == "32-tf32",) * 2}
        assert (matmul.allow_tf32, cudnn.allow_tf32) == (callers, callers)
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch before 2.9 has no such API"
)
@pytest.mark.parametrize("by", ["old API", "new API"])
def test_precisions_of_products_are_handed_back(by: str) -> None:
    """Those of other devices too: torch's function for all of them sets more than its caller did."""
    matmul, host = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    if by == "old API":
        matmul.allow_tf32 = True
    else:
        matmul.fp32_precision = "tf32"
    try:
        set_by_caller = matmul.fp32_precision, host.fp32_precision
        attribute(Net())
        assert not any(seen["products"] for seen in SEEN)
        assert (matmul.fp32_precision, host.fp32_precision) == set_by_caller
    finally:
        matmul.allow_tf32 = False
        matmul.fp32_precision = before


def test_tf32_is_audited_in_float32() -> None:
    """By default, as mixed precisions are. A CPU knows no TF32: no error there, and the bits of float32."""
    tree = attribute(Net(), precision="32-tf32")
    assert {True, False} == {seen["products"] for seen in SEEN}
    np.testing.assert_array_equal(tree["precision_error"].values, 0.0)
    np.testing.assert_array_equal(tree["x/igc"].values, attribute(Net())["x/igc"].values)
    assert Model(Net(), precision="32-tf32").above == "32-true"


def test_a_run_with_tf32_has_the_process_for_itself() -> None:
    """Flags are those of the process: a run in another thread waits."""
    order: list[str] = []

    def other() -> None:
        with numerics.owned(torch.float32):
            order.append("other")

    with numerics.owned(torch.float32, alone=True):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join(5.0)
    assert order == ["first", "other"]
