"""Where attributions are folded: in the order of the walk, or on a second CUDA stream while the walk goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from igc_dist.tensors import Attribution


class Beside:
    """The fold in the order of the walk."""

    @contextmanager
    def folding(self, attribution: Attribution) -> Iterator[None]:
        """What the block does with the attribution follows what was started before."""
        yield

    def join(self) -> None:
        """What is started from now on follows all folds."""


class SecondStream(Beside):
    """The fold on a stream of its own. The attributions of a micro-batch then live while the next one is walked.

    `cuda`: torch's module of this name.
    """

    def __init__(self, cuda: Any = torch.cuda) -> None:
        self.cuda, self.stream = cuda, cuda.Stream()

    @contextmanager
    def folding(self, attribution: Attribution) -> Iterator[None]:
        self.stream.wait_stream(self.cuda.current_stream())
        with self.cuda.stream(self.stream):
            yield
        for tensor in _tensors(attribution):
            tensor.record_stream(self.stream)  # its memory is not given to the walk before the fold is done

    def join(self) -> None:
        self.cuda.current_stream().wait_stream(self.stream)


def beside(device: torch.device) -> Beside:
    """Where a run on this device folds.

    In the walk's own order: what a second stream gains was not measured on a card yet (`tests.benchmarks gpu`, fold).
    """
    return Beside()


def _tensors(attribution: Attribution) -> Iterator[Tensor]:
    for field in fields(attribution):
        value = getattr(attribution, field.name)
        yield from (one for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, Tensor))
    yield attribution.delta
