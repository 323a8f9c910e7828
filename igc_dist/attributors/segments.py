"""Segments of paths, and forward passes along them: the integrals over each by two rules, and their errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from igc_dist.attributors.walk import column
from igc_dist.model import Model
from igc_dist.paths import Nested, Path
from igc_dist.tensors import Tensors

ROUNDING = 16
"""An error below this number of units in the last place of its operands is rounding, and counts as 0."""


@dataclass(frozen=True)
class Segments:
    """S segments of paths: pair number ``b * n + sample``, `left` and `right` ends, and the outputs at both ends."""

    pair: Int64[np.ndarray, " S"]
    left: Float64[np.ndarray, " S"]
    right: Float64[np.ndarray, " S"]
    before: Float64[np.ndarray, "S J"]
    after: Float64[np.ndarray, "S J"]
    open: Bool[np.ndarray, "S J"]
    """The outputs that still use the segment; for other outputs a larger segment is already done."""

    def __len__(self) -> int:
        return len(self.pair)

    def take(self, rows: slice | Int64[np.ndarray, " s"]) -> Segments:
        return Segments(
            self.pair[rows], self.left[rows], self.right[rows], self.before[rows], self.after[rows], self.open[rows]
        )

    def parts(self, size: int) -> Iterator[tuple[slice, Segments]]:
        for start in range(0, len(self), size):
            at = slice(start, min(start + size, len(self)))
            yield at, self.take(at)


@dataclass(frozen=True)
class Lines:
    """The paths of all (baseline, sample) pairs of a call, and forward passes of at most `rows` rows along them."""

    model: Model
    inputs: Tensors
    baselines: Tensors
    outputs: list[int]
    path: Path
    nested: Nested
    rows: int
    watch: Callable[[int], None]

    def start(self, n_start: int) -> Segments:
        """All paths, each in `n_start` equal segments."""
        b, n = len(self.baselines[0]), len(self.inputs[0])
        own = self.baselines[0].shape[1]
        ends = self._predicted(self.inputs, np.arange(n))
        starts = self._predicted(tuple(x0.flatten(0, 1) for x0 in self.baselines), np.tile(np.arange(own), b)).reshape(
            b, own, -1
        )
        cuts = np.linspace(0, 1, n_start + 1)
        pairs = np.arange(b * n)
        inner = self.predictions(pairs.repeat(n_start - 1), np.tile(cuts[1:-1], b * n)).reshape(
            b * n, n_start - 1, len(self.outputs)
        )
        whole = (np.broadcast_to(values, (b, n, len(self.outputs))).reshape(b * n, 1, -1) for values in (starts, ends))
        known = np.concatenate((next(whole), inner, next(whole)), axis=1)
        before, after = (known[:, cut].reshape(b * n * n_start, -1) for cut in (slice(None, -1), slice(1, None)))
        left, right = np.tile(cuts[:-1], b * n), np.tile(cuts[1:], b * n)
        return Segments(pairs.repeat(n_start), left, right, before, after, np.ones(before.shape, bool))

    def bisect(self, wave: Segments, open_: Bool[np.ndarray, "S J"]) -> Segments:
        """Both halves of each segment, used by the outputs of `open_`."""
        middle = (wave.left + wave.right) / 2
        between = self.predictions(wave.pair, middle)
        halves = (
            (wave.pair, wave.pair),
            (wave.left, middle),
            (middle, wave.right),
            (wave.before, between),
            (between, wave.after),
            (open_, open_),
        )
        return Segments(*(np.stack(two, axis=1).reshape(2 * len(wave), *two[0].shape[1:]) for two in halves))

    def predictions(self, pair: Int64[np.ndarray, " S"], t: Float64[np.ndarray, " S"]) -> Float64[np.ndarray, "S J"]:
        """Outputs at the places t of paths."""
        found = [
            self._predicted(self._points(pair[at], t[at])[0], pair[at] % len(self.inputs[0]))
            for at in self._passes(len(pair))
        ]
        return np.concatenate(found) if found else np.zeros((0, len(self.outputs)))

    def _passes(self, number: int) -> list[slice]:
        return [slice(start, min(start + self.rows, number)) for start in range(0, number, self.rows)]

    def _of(self, sample: Int64[np.ndarray, " R"]) -> Model:
        return self.model.of_rows(torch.from_numpy(sample).to(self.inputs[0].device))

    def _predicted(self, points: Tensors, sample: Int64[np.ndarray, " S"]) -> Float64[np.ndarray, "S J"]:
        found = []
        for at in self._passes(len(points[0])):
            found.append(
                self._of(sample[at]).predict(tuple(p[at] for p in points))[:, self.outputs].double().cpu().numpy()
            )
            self.watch(len(found[-1]))
        return np.concatenate(found)

    def _points(self, pair: Int64[np.ndarray, " R"], t: Float64[np.ndarray, " R"]) -> tuple[Tensors, Tensors]:
        """Points at the places t of paths, and velocities there: (R, *P) per input."""
        n = len(self.inputs[0])
        b, sample = (torch.from_numpy(values).to(self.inputs[0].device) for values in (pair // n, pair % n))
        points, velocities = [], []
        for x, x0 in zip(self.inputs, self.baselines, strict=True):
            start, end = x0[b, sample if x0.shape[1] > 1 else 0][:, None], x[sample][:, None]  # (R, 1, *P), for paths
            at = column(torch.from_numpy(t), end)
            points.append(self.path.point(start, end, at)[:, 0])
            velocities.append(self.path.velocity(start, end, at)[:, 0])
        return tuple(points), tuple(velocities)

    def integrals(self, part: Segments) -> Iterator[tuple[int, Float64[np.ndarray, " S"], Tensors]]:
        """The integrals for each open output: its number, the error of each segment, and (S, *P) integrals per input.

        `part` fits into one forward pass, or is one segment, whose nodes may need several.
        """
        width = part.right - part.left
        t = (part.left[:, None] + width[:, None] * self.nested.fine.nodes).reshape(-1)
        pair, columns = part.pair.repeat(len(self.nested.fine)), np.flatnonzero(part.open.any(0)).tolist()
        like = self.inputs[0]
        weights = (
            torch.from_numpy(np.stack((self.nested.fine.weights, self.nested.coarse))).to(like.dtype).to(like.device)
        )
        wide = torch.from_numpy(width).to(like.dtype).to(like.device)[:, None, None]
        held: dict[int, list[Tensor]] = {}
        for at in (passes := self._passes(len(t))):
            points, velocities = self._points(pair[at], t[at])
            nodes = slice(None) if len(passes) == 1 else at  # nodes of all segments, or some nodes of the only segment
            for position, grads in self._of(pair[at] % len(like)).gradients(points, [self.outputs[j] for j in columns]):
                both = [
                    (weights[:, nodes] @ (grad * velocity).reshape(len(part), -1, velocity[0].numel())) * wide
                    for grad, velocity in zip(grads, velocities, strict=True)
                ]
                if len(passes) == 1:
                    yield self._judged(part, columns[position], both)
                else:
                    before = held.get(position)
                    held[position] = (
                        both if before is None else [a.add_(value) for a, value in zip(before, both, strict=True)]
                    )
            self.watch(len(points[0]))
        for position, both in held.items():
            yield self._judged(part, columns[position], both)

    def _judged(self, part: Segments, j: int, both: list[Tensor]) -> tuple[int, Float64[np.ndarray, " S"], Tensors]:
        """The error of each segment for output j, from the integrals by both rules, (S, 2, P) per input."""
        sums = torch.zeros(3, len(part), dtype=torch.float64, device=both[0].device)
        for value in both:
            fine, coarse = value[:, 0], value[:, 1]
            for kept, parts in zip(sums, (fine, (fine - coarse).abs(), fine.abs()), strict=True):
                kept += parts.sum(1, dtype=torch.float64)
        total, apart, size = sums.cpu().numpy()
        before, after = part.before[:, j], part.after[:, j]
        with np.errstate(invalid="ignore", over="ignore"):  # the engine refuses NaN and infinity
            error = np.maximum(abs(after - before - total), apart)  # NaN for NaN
        noise = ROUNDING * float(torch.finfo(both[0].dtype).eps) * (size + abs(before) + abs(after))
        return j, np.where((error <= noise) & np.isfinite(noise), 0.0, error), tuple(value[:, 0] for value in both)

    def add(
        self,
        totals: Tensors,
        j: int,
        sample: Int64[np.ndarray, " S"],
        good: Bool[np.ndarray, " S"],
        values: Tensors,
        share: float,
    ) -> None:
        """Add the integrals of the good segments to their samples.

        No sample occurs twice in one addition, so sums have one order on any device.
        """
        rows = np.flatnonzero(good)
        while len(rows):
            _, first = np.unique(sample[rows], return_index=True)
            now = torch.from_numpy(rows[first]).to(values[0].device)
            to = torch.from_numpy(sample[rows[first]]).to(values[0].device)
            for total, value in zip(totals, values, strict=True):
                total[j, to] += share * value[now].reshape(len(now), *total.shape[2:])
            rows = np.delete(rows, first)
