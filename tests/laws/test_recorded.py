"""Gradients that are recorded once and replayed are those of the eager walk. No card: what records here computes again,
into the memory of the first results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import igc_dist
from igc_dist.model import LARGEST_RECORDING, Model
from igc_dist.model.recorded import MOST, Found, Recordings
from tests.ranks import arrays

X = torch.randn(13, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(13) % 4


class Again:
    """In the place of a card: a replay computes again, and overwrites the earlier results."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, work: Callable[[], Found]) -> tuple[Found, Callable[[], None]]:
        self.recorded += 1
        values, gradients = found = work()

        def replay() -> None:
            self.replayed += 1
            again, others = work()
            values.copy_(again)
            for each, other in zip(gradients, others, strict=True):
                for g, o in zip(each, other, strict=True):
                    g.copy_(o)

        return found, replay


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch) -> Again:
    found = Again()
    monkeypatch.setattr("igc_dist.model.function.recorder", lambda device: found)
    return found


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 4))


WALKS: dict[str, dict[str, Any]] = {
    "igc": {},
    "some outputs": {"target": [2, 0]},
    "ragged": {"micro_batch": 7, "n_steps": 5},
    "final layer": {"final_layer": "2", "target": "one_hot"},
    "bf16": {"precision": "bf16-mixed"},
    "audited": {"precision_audit": 4},
    "guided": {"method": "guided_igc"},
    "samples": {"method": "ig"},
    "ig2": {"method": "idgi", "baseline": 0.0},
}


@pytest.mark.parametrize("walk", WALKS)
def test_a_replay_gives_the_bits_of_the_eager_walk(walk: str, again: Again) -> None:
    settings = {"target": "one_hot", "n_steps": 4, "n_folds": 3, "micro_batch": 8, **WALKS[walk]}
    torch.manual_seed(1)
    module = net()
    eager = arrays(igc_dist.attribute(module, (X, Y), **settings))
    assert again.recorded == 0
    assert arrays(igc_dist.attribute(module, (X, Y), cuda_graphs=True, **settings)) == eager
    assert again.recorded
    assert again.replayed > again.recorded


def gradients(model: Model, x: Tensor, outputs: list[int]) -> list[Tensor]:
    return [g for _, (g,) in model.gradients((x,), outputs)]


def test_results_outlive_later_replays(again: Again) -> None:
    """And a recording belongs to its shapes and its outputs."""
    with Model(net(), cuda_graphs=True).borrowed("cpu") as model:
        first = gradients(model, X, [0, 1])
        kept = [g.clone() for g in first]
        gradients(model, X + 1, [0, 1])
        assert all(map(torch.equal, first, kept))
        gradients(model, X, [1, 2])
        gradients(model, X[:5], [1, 2])
        assert (again.recorded, again.replayed) == (3, 1)


def test_what_holds_samples_is_not_recorded(again: Again) -> None:
    """A function in the module's place; the same module in another precision, whose weights do not stay."""
    module = net().requires_grad_(False)
    with Model(module, cuda_graphs=True).borrowed("cpu") as model:
        for shift in (0.0, 1.0):
            view = model.calling(lambda x, shift=shift: module(x).square() + shift * x[:, :1])
            expected = torch.autograd.functional.jacobian(
                lambda x, shift=shift: (module(x).square() + shift * x[:, :1])[:, 0].sum(), X
            )
            torch.testing.assert_close(gradients(view, X, [0])[0], expected)
        with model.higher() as higher:
            gradients(higher, X.double(), [0])
        assert again.recorded == 0


def test_recordings_end_with_the_loan(again: Again) -> None:
    """The weights may be others afterwards, at the same place or elsewhere."""
    module = net()
    model = Model(module, cuda_graphs=True)
    for scale in (1.0, 2.0):
        with torch.no_grad():
            module[2].weight.mul_(scale)
        with model.borrowed("cpu"):
            found = gradients(model, X, [0])[0]
        expected = torch.autograd.functional.jacobian(lambda x: module(x)[:, 0].sum(), X)
        torch.testing.assert_close(found, expected)
    assert again.recorded == 2


def test_what_cannot_be_recorded_goes_on(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An operator that waits for the device; it is tried once."""
    tried: list[Any] = []

    def record(work: Any) -> Any:
        tried.append(work)
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr("igc_dist.model.function.recorder", lambda device: record)
    module = net()
    with Model(module).borrowed("cpu") as model:
        eager = gradients(model, X, [0, 3])
    with Model(module, cuda_graphs=True).borrowed("cpu") as model:
        for _ in range(2):
            assert all(map(torch.equal, gradients(model, X, [0, 3]), eager))
    assert len(tried) == 1
    assert "gradients go on without CUDA graphs: operation not permitted" in caplog.text


def test_few_and_small_ones_are_recorded(again: Again) -> None:
    recordings = Recordings(again)
    rows = LARGEST_RECORDING // (2 * X[:1].nbytes)
    assert recordings.fit((X[:1].expand(rows, 3),), [0, 1])
    assert not recordings.fit((X[:1].expand(rows + 1, 3),), [0, 1])
    with Model(net(), cuda_graphs=True).borrowed("cpu") as model:
        for rows in range(1, 13):
            gradients(model, X[:rows], [0])
    assert again.recorded == MOST


def test_only_a_card_records() -> None:
    """And nothing without the wish, or of float16, whose gradients the host looks at."""
    with Model(net(), cuda_graphs=True).borrowed("cpu") as model:
        assert model._recordings is None


def test_float16_is_not_recorded(again: Again) -> None:
    with Model(net(), cuda_graphs=True, precision="16-mixed").borrowed("cpu") as model:
        gradients(model, X, [0])
    assert again.recorded == 0
