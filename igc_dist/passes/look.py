"""A first look at model and data: what cannot be attributed is refused, and what a plan needs is measured."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from igc_dist.data import Source, input_names
from igc_dist.inputs import Inputs, Walk
from igc_dist.model import PRECISIONS, Vision, derivatives, footprint, memory, passes
from igc_dist.records import IgcError, ModelError, Passes, Shapes
from igc_dist.targets import Targets
from igc_dist.tensors import Batch, Tensors

log = logging.getLogger(__name__)


def probe(inputs: Inputs, few: Batch, device: torch.device, baselines: bool) -> Walk:
    """A walk of one sample for measuring shapes and memory; it ends where it starts, or has no baselines.

    The model is not called.
    """
    one = tuple(x[:1].nan_to_num() for x in inputs.take(few.inputs, device))
    return inputs.walk(one, tuple(x[None] for x in one) if baselines else ())


def first_look(
    inputs: Inputs,
    walk: Walk,
    few: Batch,
    n_samples: int,
    targets: Targets,
    device: torch.device,
    gradients: bool = True,
) -> Shapes:
    """Check the model on a few of the `n_samples` samples, and measure what a plan needs for walks like the probe.

    Raises `DataError` if y does not fit the outputs. Raises `ModelError` if the forward fails, is not repeatable,
    depends on other samples of the batch, or has lost its graph.
    """
    model, taken = inputs.model, inputs.take(few.inputs, device)
    if isinstance(model.module, Vision):
        for doubt in model.module.doubts(taken[0]):
            log.warning(doubt)
    try:
        y = inputs.predict(taken)
    except IgcError:
        raise
    except Exception as error:
        shapes = [tuple(x.shape) for x in taken]
        name = type(model.module).__name__
        own = ", the demo's, which a run takes that names no other (model=...)" if name == "DigitsCNN" else ""
        raise ModelError(
            f"the model failed on inputs of shapes {shapes}: {type(error).__name__}: {error}. It is {name}{own}; it "
            "must take batches of any size, and its inputs by position"
        ) from error
    targets.select(y.shape[1])
    targets.encode(few.target, y.shape[1])
    inputs.prove(taken)
    _check_function(inputs, taken, y, gradients)
    features = inputs.features(walk)
    return Shapes(
        n_samples,
        y.shape[1],
        input_names(len(features)),
        features,
        walk.inputs[0].element_size(),
        *footprint_of(walk, _gradients(walk) if gradients or _reached(walk) else walk.function.predict),
        memory.resident(),
        raw=tuple(tuple(x.shape[1:]) for x in few.inputs),
        walk=tuple(tuple(x.shape[1:]) for x in walk.inputs),
        n_latents=model.n_latents,
    )


def _check_function(kind: Inputs, inputs: Tensors, y: Tensor, gradients: bool) -> None:
    fine = torch.isfinite(y).all(1)
    fine &= torch.stack([torch.isfinite(x.flatten(1)).all(1) if x.ndim > 1 else torch.isfinite(x) for x in inputs]).all(
        0
    )
    rows = torch.nonzero(fine)[:, 0]
    inputs, y = tuple(x[rows] for x in inputs), y[rows]
    if not len(rows):
        return
    # a batch statistic moves outputs by about their spread; rounding by 1e-3 (TF32) or 1e-2 (bf16) of their size
    half = PRECISIONS[kind.model.precision] is not None
    tolerance = (0.1 if half else 1e-6 if y.dtype == torch.float64 else 1e-2) * float(y.abs().max()) + 1e-12
    again = kind.predict(inputs)
    if float((again - y).abs().max()) > tolerance:
        raise ModelError(
            "the model gives another output each time it sees the same batch, even in eval mode: make its forward "
            "deterministic"
        )
    if len(rows) > 1:
        part = max(1, len(rows) // 2)
        alone = kind.predict(tuple(x[:part] for x in inputs))
        if float((alone - y[:part]).abs().max()) > tolerance:
            raise ModelError(
                "the model's output for a sample depends on the other samples of its batch: give a BatchNorm running "
                "statistics (track_running_stats, no train() of its own), attention and recurrent layers "
                "batch_first=True, and keep nothing of a batch for the next"
            )
        walk = kind.walk(inputs, ())
        if gradients:
            _check_reach(walk, y, tolerance)


def _check_reach(walk: Walk, y: Tensor, tolerance: float) -> None:
    """Raise `ModelError` if the outputs change with the inputs without a gradient; warn if they do with one input."""
    reached = walk.function.reached(walk.inputs)
    if not any(reached) and float(y.std(0).max()) > 0:
        raise ModelError(
            f"the outputs change with the inputs, but their gradient does not reach them: {derivatives.LOST}"
        )
    for i, name in enumerate(input_names(len(reached))):
        if any(reached) and not reached[i]:
            others = tuple(x.roll(1, 0) if i == k else x for k, x in enumerate(walk.inputs))
            with suppress(Exception):  # values of two samples may not go together
                if float((walk.function.predict(others) - y).abs().max()) > tolerance:
                    log.warning(
                        "no gradient reaches the input %s, so its maps are 0, but the outputs change with it: %s",
                        name,
                        derivatives.LOST,
                    )


def _reached(walk: Walk) -> bool:
    return any(walk.function.reached(walk.inputs))


def _gradients(walk: Walk) -> Callable[[Tensors], None]:
    def work(points: Tensors) -> None:
        for _ in walk.function.gradients(points, [0, 0]):
            pass

    return work


def footprint_of(walk: Walk, work: Callable[[Tensors], Any]) -> tuple[int, int]:
    """Bytes of `work` on points of a walk of one sample: (fixed, per row), from 2 and 4 rows."""

    def peak(n_rows: int) -> int:
        points = tuple(x.expand(n_rows, *x.shape[1:]).contiguous() for x in walk.inputs)
        device = points[0].device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            work(points)
            return torch.cuda.max_memory_allocated(device) - before
        return footprint.peak_of(lambda: work(points))

    peak(2)  # first calls may build caches
    two, four = peak(2), peak(4)
    row = max(0, four - two) // 2
    return max(0, two - 2 * row), row


def reading(source: Source, seconds: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds to read a sample: of the first four, or of more if these take far less than `seconds`."""
    for n in (4, 64, 512):
        began = clock()
        few = source.look(range(min(n, len(source))))
        each = (clock() - began) / len(few.target)
        if 8 * n * each > seconds:
            break
    return each


def timed(
    walk: Walk, rows: int, rounds: int = 3, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
    """Seconds of a forward pass of `rows` rows, and of the gradient of an output: the least of `rounds`.

    The rows are those of a walk of one sample. Other work of the machine only ever adds to them.
    """
    points = tuple(x.expand(rows, *x.shape[1:]).contiguous() for x in walk.inputs)
    reached, times = _reached(walk), []
    for _ in range(rounds):
        began, marks = clock(), []
        for _ in walk.function.gradients(points, [0, 0, 0]) if reached else [walk.function.predict(points)]:
            if points[0].device.type == "cuda":
                torch.cuda.synchronize(points[0].device)
            marks.append(clock())
        gradient = min((after - before for before, after in pairwise(marks)), default=0.0)
        times.append((marks[0] - began - gradient, gradient))
    forward, gradient = (min(each) for each in zip(*times, strict=True))
    return max(forward, 0.0), gradient


def passes_of(walk: Walk) -> Passes:
    """The work of the model for one row, from a walk of one sample."""
    if _reached(walk):
        return passes(lambda: walk.function.gradients(walk.inputs, [0, 0]))
    return passes(lambda: (walk.function.predict(walk.inputs), None))  # nothing is computed after the first
