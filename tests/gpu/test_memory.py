"""Memory of a card: what the plan projects, what happens when there is too little."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn

import igc_dist
from tests.benchmarks.models import Task, Transformer, planned, resnet
from tests.card import Card
from tests.gpu.problems import convolutions, relative, values

CONFIGURATIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "one row": (convolutions, {"micro_batch": 1}),
    "8 rows": (convolutions, {"micro_batch": 8}),
    "64 rows": (convolutions, {"micro_batch": 64}),
    "256 rows": (convolutions, {"micro_batch": 256}),
    "residual": (lambda: resnet(5, 32), {"micro_batch": 64}),
    "attention": (lambda: Transformer(5, 128), {"micro_batch": 64}),
    "blocks of outputs": (convolutions, {"micro_batch": 64, "output_block": 2}),
    "recorded": (convolutions, {"micro_batch": 32, "cuda_graphs": True}),
    "float64": (convolutions, {"micro_batch": 32, "precision": "64-true"}),
}
LEAST = 64 * 2**20
"""Bytes below which the margins of the plan count more than the model, so that it may project more than 1.5 times."""


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_projected_memory_holds_what_is_measured(name: str, card: Card, record_property: Any) -> None:
    """At least the peak that the allocator saw, over what was held before, and at most 1.5 times it."""
    make, settings = CONFIGURATIONS[name]
    net, n, n_steps = make().to(card.device), *((4, 1) if card.dry else (64, 8))
    task = Task("device", net, torch.randn(n, 3, 64, 64), torch.randn(n, 5))
    precision = settings.get("precision", "32-true")
    limits = {key: value for key, value in settings.items() if key != "precision"} | {"n_folds": 2}
    if card.dry:
        limits["micro_batch"] = min(4, limits["micro_batch"])
    igc_dist.attribute(net, (task.x[:4], task.y[:4]), n_steps=1, precision=precision)  # the first call's workspaces
    projected = planned(task, n_steps, card.kind, precision=precision, **limits).memory()
    measured = card.peak_of(
        lambda: igc_dist.attribute(net, (task.x, task.y), n_steps=n_steps, precision=precision, **limits)
    )
    ratio = projected["host" if card.dry else "device"] / measured
    record_property("projected over measured", round(ratio, 3))
    record_property("measured MiB", round(measured / 2**20, 1))
    assert ratio >= 1
    assert card.dry or measured < LEAST or ratio <= 1.5


def test_out_of_memory_is_walked_again(card: Card, caplog: pytest.LogCaptureFixture) -> None:
    """The allocator refuses in the middle of a shard: the micro-batch is halved, the run ends, and says so."""
    torch.manual_seed(0)
    side = 16 if card.dry else 64
    net = nn.Sequential(
        nn.Conv2d(3, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 8, 3, padding=1),
        nn.Flatten(1),
        nn.Linear(8 * side * side, 2),
    ).to(card.device)
    n, rows = (8, 8) if card.dry else (64, 1024)
    x, y = torch.randn(n, 3, side, side), torch.randn(n, 2)
    settings = {"n_steps": 16, "n_folds": 2, "device_memory": 60.0}
    with caplog.at_level(logging.WARNING), card.limited(3 * 2**30):
        tree = igc_dist.attribute(net, (x, y), micro_batch=rows, **settings)
    assert len(tree.attrs["retried"])
    assert "out of memory" in caplog.text
    card.empty()
    whole = igc_dist.attribute(net, (x, y), micro_batch=rows // 32 or 1, **settings)
    assert relative(values(tree), values(whole)) < 1e-4


def test_the_plan_keeps_to_the_memory_that_is_given(card: Card) -> None:
    """Without a wish for a micro-batch it is the largest that fits into `device_memory`."""
    net = convolutions().to(card.device)
    task = Task("device", net, torch.randn(8, 3, 64, 64), torch.randn(8, 5))
    place = "host" if card.dry else "device"
    few, many = (planned(task, 8, card.kind, **{f"{place}_memory": size}) for size in (1.0, 4.0))
    assert few.memory()[place] <= 2**30
    assert few.samples_per_batch * few.points_per_batch <= many.samples_per_batch * many.points_per_batch
