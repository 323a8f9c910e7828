"""Guided Integrated Gradients: each output has its own path, along the features that it hardly depends on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from igc_dist.attributors.base import Task
from igc_dist.attributors.walk import Step, Walk
from igc_dist.baselines import check_positive
from igc_dist.records import ConfigError, Price
from igc_dist.tensors import Tensors

NEAR = 1e-12
"""Fraction of a feature's way that may remain by rounding; such a feature does not count as movable."""

TICKS = 2.0**60
"""Units in the way of a sample: whole numbers, whose sums are the same in any order, on any device."""


@dataclass(frozen=True)
class GuidedIG(Walk):
    """``GIG_i = mean_b sum_s (x^(s+1)_i - x^(s)_i) * d f(x^(s)) / d x_i``.

    Source: Kapishnikov et al. 2021, arXiv:2106.09788, algorithm 1.

    The path starts at the baseline. Step s = 0 .. S - 1 of S = `n_steps` takes one gradient. After it, ``1 - a`` of
    ``||x - x0||_1`` remains, with a = (s + 1) / S. A step has two phases. First, each feature that has gone less than
    ``a - max_dist`` of its own way goes to that point. Then the features with the smallest gradient magnitudes go: a
    `fraction` of all features to ``a + max_dist`` of their ways, or to x, then the next part of that size, until one
    part goes only as far as is needed. A part ends at a quantile of all features, and includes all equal magnitudes;
    features that may go no further rank last. Features of all inputs count together.

    Complete to first order, ``sum_i GIG_i = f(x) - mean_b f(x0_b) + O(1 / S)``, as a gradient stands for a whole step.
    But a path may slide along a kink, as of ReLU, and cross it at each step; then more steps do not reduce the error.
    With max_dist 0 it is Integrated Gradients by the left rule; with 1 the order is free. The path depends on the
    output, so each output costs S forward passes; walks of several outputs and baselines run side by side. If two
    magnitudes are equal except for rounding, rounding decides which feature goes first. A step looks at 1 / fraction
    parts at most.

    Raises `ConfigError` if `n_steps` is less than 1, `fraction` not in (0, 1], or `max_dist` not in [0, 1].
    """

    n_steps: int = 200
    fraction: float = 0.25
    max_dist: float = 0.02

    name = "guided_ig"
    complete = True
    baselines = True
    linear = False
    # starts, ways, weights, progress before and after, remainder; magnitudes and their order, half each; ranks;
    # lengths, twice
    held = 10
    labels = {"correlation": "guided_igc"}  # noqa: RUF012 - a class constant of the base

    def __post_init__(self) -> None:
        check_positive("method.attributor.n_steps", self.n_steps)
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"method.attributor.fraction={self.fraction!r}: give a number above 0, and at most 1")
        if not 0 <= self.max_dist <= 1:
            raise ConfigError(f"method.attributor.max_dist={self.max_dist!r}: give a number from 0 to 1")

    @property
    def doubled(self) -> GuidedIG:
        return replace(self, n_steps=2 * self.n_steps)

    def points(self, features: Sequence[tuple[int, ...]]) -> int:
        return self.n_steps

    def price(self, features: Sequence[tuple[int, ...]]) -> Price:
        return Price(rows_per_output=self.n_steps, gradients_per_output=self.n_steps)

    def steps(self, task: Task, ends: bool = False) -> Iterator[Step]:
        n = task.n
        end, starts = _joined(tuple(x[None] for x in task.inputs)).double(), _joined(task.baselines).double()
        walks = [(b, j) for b in range(len(starts)) for j in range(len(task.outputs))]
        for first in range(0, len(walks), task.size):
            some = walks[first : first + task.size]
            start = starts[[b for b, _ in some]]
            column = torch.tensor([task.outputs[j] for _, j in some], device=end.device).repeat_interleave(n)[:, None]
            for values, gradients, move in self._walk(task, start, end - start, column):
                moves = tuple(
                    m.to(x.dtype) for m, x in zip(_parted(move.mul_(task.share), task.inputs), task.inputs, strict=True)
                )
                for w, (_, j) in enumerate(some):
                    at = slice(w, w + 1)
                    yield Step(j, values[at], tuple(g[at] for g in gradients), tuple(m[at] for m in moves))
        if ends:
            yield from self.arrived(task)

    def _walk(
        self,
        task: Task,
        start: Float64[Tensor, "w _ P"],
        delta: Float64[Tensor, "w n P"],
        column: Int64[Tensor, "rows 1"],
    ) -> Iterator[tuple[Float[Tensor, "w n"], Tensors, Float64[Tensor, "w n P"]]]:
        """The steps of w walks of n samples: predictions, gradients (w, n, *P) per input, and how far the walks go."""
        values, (n_walks, n, _) = delta, delta.shape
        weight = delta.abs()
        weight /= weight.sum(-1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
        gone = torch.zeros_like(delta)

        def see(y: Tensor) -> None:
            nonlocal values
            values = y.reshape(n_walks, n)

        for s in range(self.n_steps):
            points = _parted(torch.addcmul(start, gone, delta), task.inputs)
            rows = tuple(p.flatten(0, 1).to(x.dtype) for p, x in zip(points, task.inputs, strict=True))
            ((_, flat),) = task.model.gradients(rows, column, see)
            task.watch(len(column))
            gradients = tuple(g.unflatten(0, (n_walks, n)) for g in flat)
            further = self._further(gone, weight, _joined(gradients), s)
            yield values, gradients, (further - gone).mul_(delta)
            gone = further

    def _further(
        self, gone: Float64[Tensor, "w n P"], weight: Float64[Tensor, "w n P"], gradient: Float[Tensor, "w n P"], s: int
    ) -> Float64[Tensor, "w n P"]:
        """How far each feature has gone after step s, from 0 at x0 to 1 at x.

        `weight` is its part of ``||x - x0||_1``.
        """
        if s == self.n_steps - 1:
            return torch.ones_like(gone)
        a, n_features = (s + 1) / self.n_steps, gone.shape[-1]
        gone = gone.clamp(min=a - self.max_dist)
        left = min(a + self.max_dist, 1.0) - gone
        need = (a - (weight * gone).sum(-1, keepdim=True)).mul_(TICKS)
        rank = gradient.abs().masked_fill_((left <= NEAR) | (weight == 0), torch.inf)
        ranked, order = rank.sort(-1)
        covered = (left * weight).mul_(TICKS).long().gather(-1, order).cumsum(-1)
        place = int(self.fraction * (n_features - 1))
        first = torch.zeros_like(order[..., :1])
        for _ in range(ceil(n_features / (place + 1))):
            last = _part(ranked, first, place)[1]
            first = torch.where(covered.gather(-1, last - 1) < need, last, first)
        upper, last = _part(
            ranked, first, place
        )  # the part that goes only as far as needed; the parts before it go all the way
        lower = ranked.gather(-1, first.clamp(max=n_features - 1))
        before = torch.where(first > 0, covered.gather(-1, (first - 1).clamp(min=0)), 0)
        pace = (need - before).div_(covered.gather(-1, last - 1) - before).clamp_(0, 1).nan_to_num_(0)
        return gone.addcmul_(left, torch.where(rank < lower, 1.0, torch.where(rank > upper, 0.0, pace)))


def _part(
    ranked: Float[Tensor, "w n P"], first: Int64[Tensor, "w n 1"], place: int
) -> tuple[Float[Tensor, "w n 1"], Int64[Tensor, "w n 1"]]:
    """The largest magnitude of the part that starts at rank `first`, and the first rank after all equal magnitudes."""
    upper = ranked.gather(-1, (first + place).clamp(max=ranked.shape[-1] - 1))
    return upper, torch.searchsorted(ranked, upper, right=True)


def _joined(parts: Tensors) -> Float[Tensor, "a b P"]:
    """The features of all inputs, (a, b, *P_i), in one row."""
    flat = [part.reshape(*part.shape[:2], part.shape[2:].numel()) for part in parts]
    return flat[0] if len(flat) == 1 else torch.cat(flat, -1)


def _parted(joined: Float64[Tensor, "a b P"], inputs: Tensors) -> Tensors:
    """The inverse of `_joined`: (a, b, *P_i) per input."""
    parts = joined.split([x.shape[1:].numel() for x in inputs], -1)
    return tuple(part.reshape(*joined.shape[:2], *x.shape[1:]) for part, x in zip(parts, inputs, strict=True))
