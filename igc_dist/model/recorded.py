"""Gradients that are recorded once and replayed: CUDA graphs, for nets whose kernels are shorter than their launches.

A forward pass of a small net and its gradients are some hundred kernels of a few microseconds, and the host needs about
as long to launch each. A graph launches them all at once. What is recorded has fixed shapes and reads from fixed
memory, so points are copied there, and results are copied before the next replay.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from igc_dist.tensors import Tensors

log = logging.getLogger(__name__)

LARGEST_RECORDING = 64 * 2**20
"""Bytes of the gradients of a recording: all outputs' are kept at once. Larger ones are of nets that launches do not
slow down."""

MOST = 8
"""Recordings of a model: each keeps its memory."""

WARM_UPS = 3
"""Calls before a recording, in which libraries allocate what they keep (torch's own number)."""

Found = tuple[Tensor, list[Tensors]]
"""Predictions of the outputs, (n, L), and the gradients of each."""


Recorder = Callable[[Callable[[], Found]], tuple[Found, Callable[[], None]]]
"""What records work on a device: the results of the work, and what computes them again, in place, from the memory that
the work read."""


class CudaGraphs:
    """Graphs of the current CUDA device. They share the memory of what they compute on the way."""

    def __init__(self) -> None:
        self.pool: Any = None

    def __call__(self, work: Callable[[], Found]) -> tuple[Found, Callable[[], None]]:
        """Raises `RuntimeError` if an operator waits for the device, or memory does not suffice."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # other threads read ahead, and pin memory meanwhile
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            found = work()
        self.pool = graph.pool()
        graph.replay()  # what is captured is not computed
        return found, graph.replay


def recorder(device: torch.device) -> Recorder | None:
    """What records on this device; None if nothing does."""
    return CudaGraphs() if device.type == "cuda" else None


@dataclass(frozen=True)
class Recording:
    """Gradients at points of fixed shapes."""

    given: Tensors
    found: Found
    replay: Callable[[], None]

    def at(self, given: Tensors) -> Found:
        """The results of other points, as copies that later replays leave alone."""
        with torch.no_grad():
            for there, x in zip(self.given, given, strict=True):
                there.copy_(x)
        self.replay()
        return self.kept()

    def kept(self) -> Found:
        """Copies of the results."""
        values, gradients = self.found
        return values.clone(), [tuple(g.clone() for g in each) for each in gradients]


@dataclass
class Recordings:
    """The recordings of a model while it is borrowed: its weights stay where they are."""

    record: Recorder
    known: dict[Any, Recording] = field(default_factory=dict)
    refused: bool = False

    def fit(self, points: Tensors, outputs: Sequence[int] | Int64[Tensor, "n L"]) -> bool:
        """Whether the gradients of these outputs may be recorded."""
        size = (outputs.shape[1] if isinstance(outputs, Tensor) else len(outputs)) * sum(
            x.numel() * x.element_size() for x in points
        )
        return not self.refused and 0 < size <= LARGEST_RECORDING

    def gradients(self, key: Any, given: Tensors, work: Callable[[Tensors], Found]) -> Found | None:
        """``work(given)``, recorded at the first call with this key and these shapes; None if it cannot be recorded.

        `given`: the points, and what else changes. `key`: all other things that `work` depends on.
        """
        key = (key, *((x.shape, x.dtype, x.stride()) for x in given))
        if key in self.known:
            return self.known[key].at(given)
        if len(self.known) == MOST:
            return None
        there = tuple(x.detach().clone().requires_grad_(x.is_floating_point()) for x in given)
        try:
            found, replay = self.record(lambda: work(there))
        except RuntimeError as error:
            self.refused = True
            log.warning("gradients go on without CUDA graphs: %s", str(error).splitlines()[0])
            return None
        self.known[key] = Recording(there, found, replay)
        return self.known[key].kept()
