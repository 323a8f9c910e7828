"""Where models, samples and new tensors are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import igc_dist
from igc_dist.demo import Digits, digits_cnn
from tests.card import Card
from tests.gpu.problems import maps, relative, values


def test_a_model_is_handed_back_on_its_device(card: Card) -> None:
    """With its flags."""
    model = digits_cnn().train().to(card.device)
    igc_dist.attribute(model, torch.utils.data.Subset(Digits(), range(8)), n_steps=1)
    assert model.training
    assert {p.device.type for p in model.parameters()} == {card.kind}
    assert all(p.requires_grad for p in model.parameters())


def test_a_model_on_the_host_is_run_where_the_run_is_asked_to(card: Card) -> None:
    model = digits_cnn()
    tree = igc_dist.attribute(model, torch.utils.data.Subset(Digits(), range(8)), n_steps=1, accelerator=card.kind)
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    if not card.dry:
        assert tree.attrs["provenance"]["device"] == card.name


class Fresh(nn.Module):
    """Makes a tensor where the default device is, as code does that was written under `set_default_device`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh() @ torch.arange(12.0).reshape(6, 2)


def test_default_device(card: Card) -> None:
    """A model that relies on `set_default_device` works, and the setting is as it was."""
    x, y = torch.randn(12, 6), torch.randn(12, 2)
    torch.set_default_device(card.device)
    try:
        model = nn.Sequential(nn.Linear(6, 6), Fresh())
        tree = igc_dist.attribute(model, (x, y), n_steps=2, n_folds=2)
        assert torch.get_default_device().type == card.kind
    finally:
        torch.set_default_device(None)
    assert np_finite(tree)


def np_finite(tree: object) -> bool:
    return bool(torch.from_numpy(values(tree)).isfinite().all())  # type: ignore[arg-type]


def test_the_second_card(card: Card) -> None:
    """A model on cuda:1 is run there."""
    if card.dry or torch.cuda.device_count() < 2:
        pytest.skip("needs two cards")
    assert relative(values(maps("cuda:1")), values(maps("cuda:0"))) < 1e-6


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Images that are made as they are read, so that a thread or workers read ahead."""

    def __init__(self, n: int = 32) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(index)
        return torch.rand(1, 8, 8, generator=generator), torch.randn(10, generator=generator)


@pytest.mark.parametrize("workers", [0, 2])
def test_pinned_prefetch(workers: int, card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches come in page-locked memory, are copied beside the walk, and are the right ones."""
    pinned: list[bool] = []
    original = torch.utils.data.DataLoader.__init__

    def noted(self: object, *arguments: object, **given: object) -> None:
        pinned.append(bool(given.get("pin_memory")))
        original(self, *arguments, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.utils.data.DataLoader, "__init__", noted)
    settings = {"n_steps": 2, "n_folds": 2, "micro_batch": 4, "precision": "64-true"}
    ours = igc_dist.attribute(digits_cnn().to(card.device), Images(), num_workers=workers, **settings)
    assert card.dry or True in pinned
    assert relative(values(ours), values(igc_dist.attribute(digits_cnn(), Images(), prefetch=False, **settings))) < 1e-9


def test_channels_last_auto(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial on the device chooses a layout, and remembers it for this device."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ours = maps(card.device, 16, n_folds=2, channels_last="auto", plan=igc_dist.Limits(n_folds=2, trial=True))
    (kept,) = json.loads((tmp_path / "igc-dist" / "trials.json").read_text()).values()
    assert kept["micro_batch"] >= 1
    assert relative(values(ours), values(maps("cpu", 16, n_folds=2))) < 1e-4


def test_compiled_once(card: Card) -> None:
    """Every pass has one shape, so there are at most two graphs: with gradients and without."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    with card.compiling():
        ours = maps(card.device, 18, n_folds=2, compiled=True, micro_batch=8, n_steps=2)
    assert counters["stats"]["unique_graphs"] <= 2
    assert relative(values(ours), values(maps("cpu", 18, n_folds=2, n_steps=2))) < 1e-4
    torch._dynamo.reset()
