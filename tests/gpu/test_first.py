"""What everything else stands on: exact sums of reducers, and the same bits each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import igc_dist
from igc_dist.features import Channels, Patches, Segments, Total
from tests.benchmarks.models import Transformer
from tests.card import Card
from tests.gpu.problems import convolutions, maps, relative, values
from tests.ranks import arrays as every_byte

LABELS = (np.add.outer(np.arange(12), np.arange(12)) // 3) % 5
"""Five stripes, whose features lie far apart in memory."""
REDUCERS = {"segments": Segments(LABELS), "patches": Patches(5), "channels": Channels(), "total": Total()}


@pytest.mark.parametrize("name", REDUCERS)
def test_reducers_sum_exactly(name: str, card: Card) -> None:
    """Integers have exact sums, whichever order a kernel adds them in: none is lost, and none counts twice."""
    a = torch.from_numpy(np.random.default_rng(0).integers(-99, 99, (64, 3, 12, 12))).double()
    assert torch.equal(REDUCERS[name].summed(a.to(card.device)).cpu(), REDUCERS[name].summed(a))


@pytest.mark.parametrize("name", REDUCERS)
def test_reducers_give_the_same_bits(name: str, card: Card) -> None:
    """Fractions do not: `index_put_` has to add them in one order, on any number of rows."""
    a = torch.randn(256, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(card.device)
    once = REDUCERS[name].summed(a)
    for _ in range(5):
        assert torch.equal(REDUCERS[name].summed(a), once)
    assert torch.equal(REDUCERS[name].summed(a[:100].contiguous()), once[:100])


def test_float32_equals_cpu(card: Card) -> None:
    """Only the rounding of convolutions differs: TF32 is off."""
    assert relative(values(maps(card.device)), values(maps("cpu"))) < 1e-4


def test_float64_equals_cpu(card: Card) -> None:
    """In float64 nothing is left of it."""
    ours, theirs = (values(maps(device, precision="64-true")) for device in (card.device, "cpu"))
    assert relative(ours, theirs) < 1e-10


NETS = {"convolutions": (convolutions, (3, 64, 64), 5), "attention": (Transformer, (3, 64, 64), 10)}


@pytest.mark.parametrize("precision", ["32-true", "32-tf32", "bf16-mixed"])
@pytest.mark.parametrize("name", NETS)
def test_twice_gives_the_same_bits(name: str, precision: str, card: Card) -> None:
    """Backward passes of convolutions and of fused attention add in one order, if they are asked to."""
    (make, shape, n_outputs), n = NETS[name], 4 if card.dry else 16
    x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))
    y = torch.randn(n, n_outputs, generator=torch.Generator().manual_seed(1))
    once, again = (
        igc_dist.attribute(
            make().to(card.device), (x, y), n_steps=2, n_folds=2, micro_batch=16, precision=precision,
            precision_audit=0, target=[0, 3],
        )
        for _ in range(2)
    )  # fmt: skip
    assert values(once).tobytes() == values(again).tobytes()
    assert card.dry or once.attrs["provenance"]["numerics"]["in_one_order"]


def test_resumed_gives_the_same_bits(tmp_path: Path, card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that fails in its third shard, and goes on, ends as one that did not fail."""
    settings = {"store": tmp_path / "a.zarr", "n_folds": 6}
    monkeypatch.setenv("IGC_FAULT", "compute:0:3:exception")
    with pytest.raises(RuntimeError, match="IGC_FAULT"):
        maps(card.device, **settings)
    monkeypatch.delenv("IGC_FAULT")
    resumed = every_byte(maps(card.device, **settings))
    assert resumed == every_byte(maps(card.device, **{**settings, "store": tmp_path / "b.zarr"}))
