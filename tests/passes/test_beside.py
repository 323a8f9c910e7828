"""Folds beside the walk: on a second stream, whose order is kept by waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import igc_dist
from igc_dist.passes import SecondStream
from tests.ranks import arrays


class Stream:
    def __init__(self, cuda: Streams, name: str) -> None:
        self.cuda, self.name = cuda, name

    def wait_stream(self, other: Stream) -> None:
        self.cuda.said.append(f"{self.name} waits for {other.name}")


class Streams:
    """In the place of `torch.cuda`: what is started where, and what waits for what."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.at = self.walk = Stream(self, "walk")

    def Stream(self) -> Stream:  # noqa: N802 - torch's name
        return Stream(self, "fold")

    def current_stream(self) -> Stream:
        return self.at

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        self.at = stream
        yield
        self.at = self.walk


def test_a_fold_follows_its_walk_and_precedes_the_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each micro-batch; memory of its attributions is kept until then; the bits are the same."""
    cuda, kept = Streams(), []

    def record_stream(tensor: Tensor, stream: Stream) -> None:
        kept.append((tuple(tensor.shape), stream.name))

    monkeypatch.setattr(Tensor, "record_stream", record_stream)
    module, x, y = nn.Linear(3, 2), torch.randn(8, 3), torch.randn(8, 2)
    settings: dict[str, Any] = {"n_steps": 2, "n_folds": 2, "micro_batch": 2}
    expected = arrays(igc_dist.attribute(module, (x, y), **settings))
    folded = igc_dist.passes.attribute.of

    def of(*arguments: Any) -> Any:
        cuda.said.append(f"{cuda.at.name} adds")
        return folded(*arguments)

    monkeypatch.setattr("igc_dist.passes.attribute.of", of)
    monkeypatch.setattr("igc_dist.passes.attribute.beside", lambda device: SecondStream(cuda))
    assert arrays(igc_dist.attribute(module, (x, y), **settings)) == expected
    batches = cuda.said.count("fold adds")
    assert batches > 2
    per_shard = ["fold waits for walk", "fold adds"] * (batches // 2) + ["walk waits for fold"]
    assert cuda.said == per_shard * 2
    assert {name for _, name in kept} == {"fold"}
    n = 8 // batches
    assert {(n, 2, 3), (n, 2)} == {shape for shape, _ in kept}
