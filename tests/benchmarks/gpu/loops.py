"""Walks of the engine against a bare loop of forward passes and input gradients: gradients per second, memory, and the
share of what the card can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

import igc_dist
from igc_dist import run as composition
from igc_dist.demo import Digits
from igc_dist.model import passes
from igc_dist.passes import SecondStream
from igc_dist.statistics import Centre, State, empty
from igc_dist.tensors import Attribution
from tests.benchmarks.gpu.sizes import NETS, Size, images, net
from tests.benchmarks.measure import Report, report
from tests.card import Card

HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
LEAST = {"vit_large_patch16_224": 0.97}
"""Bound of engine over bare loop in bf16; 0.95 for other nets."""


@dataclass(frozen=True)
class Walk:
    """A net, its samples, and how it is called."""

    name: str
    module: nn.Module
    x: Tensor
    y: Tensor
    precision: str
    settings: tuple[tuple[str, Any], ...] = ()

    def bare(self, card: Card, size: Size, rows: int) -> None:
        """As many rows through the model and one gradient per output, in passes of `rows` rows; nothing else."""
        self.module.requires_grad_(False)
        there, half = self.x.to(card.device), HALF.get(self.precision)
        total = len(there) * size.steps
        for start in range(0, total, rows):
            points = there[torch.arange(start, min(start + rows, total), device=card.device) % len(there)]
            points.requires_grad_()
            with torch.autocast(card.kind, dtype=half) if half else nullcontext():
                y = self.module(points)
            columns = y.float().unbind(1)[: size.outputs]
            for k, column in enumerate(columns):
                torch.autograd.grad(column.sum(), points, retain_graph=k < len(columns) - 1)

    def engine(self, card: Card, size: Size, rows: int) -> float:
        """Seconds of pass 2 of a run."""
        seconds: list[float] = []
        whole = composition.Run.attribute

        def clocked(*arguments: Any) -> Any:
            found: list[Any] = []
            seconds.append(card.once(lambda: found.append(whole(*arguments))))
            return found[0]

        with patch.object(composition.Run, "attribute", clocked):
            igc_dist.attribute(
                self.module, (self.x, self.y), n_steps=size.steps, n_folds=2, target=list(range(size.outputs)),
                micro_batch=rows, precision=self.precision, precision_audit=0, host_memory=64.0, device_memory=70.0,
                **dict(self.settings),
            )  # fmt: skip
        return min(seconds)

    def flops(self, outputs: int) -> float:
        """Floating point operations of a gradient, with its part of the forward pass, by torch's own formulas."""

        def two() -> Iterator[None]:
            x = self.x[:1].to(next(self.module.parameters()).device).requires_grad_()
            y = self.module(x)
            for k, retain in ((0, True), (1, False)):
                torch.autograd.grad(y[:, k].sum(), x, retain_graph=retain)
                yield

        done = passes(two)
        return done.gradient.flops + done.forward.flops / outputs


def best(measure: Callable[[int], float], rows: tuple[int, ...], repeats: int) -> tuple[float, int]:
    """The median of some calls at the fastest number of rows, after one call to warm up, and that number."""
    times: dict[int, list[float]] = {}
    for size in rows:
        measure(size)
        times[size] = [measure(size)]
    least = min(times, key=lambda size: times[size][0])
    times[least] += [measure(least) for _ in range(repeats - 1)]
    return sorted(times[least])[len(times[least]) // 2], least


def compared(bench: str, walk: Walk, card: Card, size: Size, **bound: float) -> Report:
    """Engine over bare loop, in gradients per second, each at its best micro-batch."""
    few = replace(walk, x=walk.x[:4], y=walk.y[:4])
    few.engine(card, replace(size, steps=1), size.rows[0])
    theirs, their_rows = best(lambda rows: card.once(lambda: walk.bare(card, size, rows)), size.rows, size.repeats)
    card.empty()
    ours, rows = best(lambda rows: walk.engine(card, size, rows), size.rows, size.repeats)
    gradients = len(walk.x) * size.steps * size.outputs
    flops = walk.flops(size.outputs)
    return report(
        bench, theirs / ours, **bound, gradients_per_s=round(gradients / ours),
        bare_gradients_per_s=round(gradients / theirs), flops_per_gradient=flops, flops_per_s=flops * gradients / ours,
        micro_batch=rows, bare_micro_batch=their_rows, precision=walk.precision, samples=len(walk.x), nodes=size.steps,
        outputs=size.outputs,
    )  # fmt: skip


def walk_of(name: str, precision: str, card: Card, size: Size, **settings: Any) -> Walk:
    """A net with its samples."""
    x, y = images(size.samples, size)
    if name == "digits":
        data = Digits()
        x, y = data.x[: size.small_samples], data.y[: size.small_samples]
    return Walk(name, net(name, card, size), x, y, precision, tuple(settings.items()))


def half(card: Card, size: Size) -> Iterator[Report]:
    """The four nets in bf16; the share of the bare matrix product's rate that ViT-L reaches; memory."""
    rate = product(card, size, torch.bfloat16)
    for name in NETS:
        walk = walk_of(name, "bf16-mixed", card, size)
        peak: list[int] = []
        if not card.dry:
            torch.cuda.reset_peak_memory_stats()
        line = compared(f"walk/{name}/bf16", walk, card, size, at_least=LEAST.get(name, 0.95))
        if not card.dry:
            peak.append(torch.cuda.max_memory_allocated())
        yield line | {"peak_GiB": round(peak[0] / 2**30, 2) if peak else None}
        least = 0.4 if name == "vit_large_patch16_224" else None
        yield report(
            f"share_of_matmul/{name}/bf16", line["flops_per_s"] / rate, at_least=least, matmul_flops_per_s=rate
        )
        del walk
        card.empty()


def product(card: Card, size: Size, dtype: torch.dtype) -> float:
    """FLOP/s of a bare product of square matrices."""
    a, b = (torch.randn(size.square, size.square, device=card.device, dtype=dtype) for _ in range(2))
    card.once(lambda: a @ b)
    return 2 * size.square**3 / card.seconds(lambda: a @ b, 3 * size.repeats)


def matmul(card: Card, size: Size) -> Iterator[Report]:
    """FLOP/s of bare matrix products, of which walks reach a share."""
    for name, dtype in (("bf16", torch.bfloat16), ("float32", torch.float32), ("float64", torch.float64)):
        part = size if name == "bf16" else replace(size, square=size.square // 2)
        yield report(f"matmul/{name}", product(card, part, dtype), n=part.square)


def small_nets(card: Card, size: Size) -> Iterator[Report]:
    """The digits, where launches of kernels take longer than the kernels."""
    small = replace(size, rows=size.small_rows)
    walk = walk_of("digits", "32-true", card, small)
    yield compared("walk/digits/float32", walk, card, small)
    graphs = replace(walk, settings=(("cuda_graphs", True),))
    fast, rows = best(lambda rows: graphs.engine(card, small, rows), small.rows, size.repeats)
    eager, eager_rows = best(lambda rows: walk.engine(card, small, rows), small.rows, size.repeats)
    yield report("graphs_over_eager/digits", eager / fast, at_least=3.0, micro_batch=rows, eager_micro_batch=eager_rows)
    with card.compiling():
        compiled = replace(walk, settings=(("compiled", True),))
        fast, rows = best(lambda rows: compiled.engine(card, small, rows), small.rows, size.repeats)
    yield report("compiled_over_eager/digits", eager / fast, micro_batch=rows)


def nothing(attribution: Attribution, centre: Centre, terms: Sequence[str], n_cells: int) -> State:
    """In the place of the fold."""
    features = [value.shape[2:] for value in attribution.values]
    return empty(centre, features, terms, attribution.target.device, n_cells)


def fold(card: Card, size: Size) -> Iterator[Report]:
    """What folding costs in a walk, and what a second stream gains: the time of a walk over that of one that folds
    nothing, and over that of one whose folds are beside it."""
    for name, part in (("digits", replace(size, rows=size.small_rows)), ("resnet50", size)):
        walk = walk_of(name, "32-true" if name == "digits" else "bf16-mixed", card, part)

        def seconds(walk: Walk = walk, part: Size = part) -> float:
            return best(lambda rows: walk.engine(card, part, rows), part.rows[-1:], part.repeats)[0]

        plain = seconds()
        with patch("igc_dist.passes.attribute.of", nothing):
            yield report(f"fold/{name}", plain / seconds(), rows=part.rows[-1])
        if not card.dry:
            with patch("igc_dist.passes.attribute.beside", lambda device: SecondStream()):
                yield report(f"fold_beside/{name}", plain / seconds(), rows=part.rows[-1])
        card.empty()


def precisions(card: Card, size: Size) -> Iterator[Report]:
    """ViT-B in float32, and in bf16 eager and compiled, against float32."""
    some = replace(size, samples=max(4, size.samples // 2), rows=size.rows[:1])
    name, rows = "vit_base_patch16_224", some.rows[0]
    times = {}
    for label, precision, settings in (
        ("bf16", "bf16-mixed", {}), ("float32", "32-true", {}), ("bf16_compiled", "bf16-mixed", {"compiled": True}),
    ):  # fmt: skip
        walk = walk_of(name, precision, card, some, **settings)
        with card.compiling():
            walk.engine(card, some, rows)
            times[label] = walk.engine(card, some, rows)
        least = 3.0 if label == "float32" else None
        if label != "bf16":
            over = times[label] / times["bf16"]
            yield report(f"bf16_over_{label}/{name}", over, at_least=least, seconds=times[label], micro_batch=rows)
        del walk
        card.empty()


def determinism(card: Card, size: Size) -> Iterator[Report]:
    """What deterministic convolutions cost the bare loop: time with them over time without."""
    for name in ("resnet50", "convnext_base"):
        walk, times = walk_of(name, "bf16-mixed", card, size), []
        for wanted in (False, True):
            with torch.backends.cudnn.flags(enabled=True, deterministic=wanted, benchmark=False):
                work = partial(walk.bare, card, size, size.rows[0])
                card.once(work)
                times.append(card.seconds(work, size.repeats))
        yield report(f"deterministic_convolutions/{name}", times[1] / times[0], seconds=times)
        del walk
        card.empty()
