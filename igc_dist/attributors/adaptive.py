"""Integrated Gradients to a tolerance that is asked for, sample by sample: segments of the path are bisected where the rule is bad."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from igc_dist.attributors.base import Attributor, Task
from igc_dist.attributors.path_integral import PathIntegral
from igc_dist.attributors.walk import column
from igc_dist.model import Model
from igc_dist.paths import Path, Straight
from igc_dist.quadrature import KRONROD, TRIPLED, Nested
from igc_dist.records import ConfigError, Tensors

KINDS: dict[str, tuple[Nested, int]] = {"smooth": (KRONROD, 1), "piecewise": (TRIPLED, 4)}
"""The rule of a segment, and how many segments a path starts with: both begin with 17 rows."""

ROUNDING = 16
"""Errors below this many units in the last place of what they are differences of are rounding, and count as 0."""


@dataclass(frozen=True)
class AdaptiveIG(Attributor):
    """Integrated Gradients, ``IG_i = mean_b integral_0^1 d f(gamma_b(t)) / d x_i * gamma_b'(t)_i dt``, to a tolerance.

    Each path is cut into segments. A segment k has a rule with a coarser one at some of its nodes, and for each output

        error_k = max( |f(end_k) - f(start_k) - sum_i a_ki| , sum_i |a_ki - coarse_ki| )

    in the units of the output: what is missing in the sum over features, which is known, as f is evaluated at both ends; and
    the difference of the two rules feature by feature, since errors of features may cancel in their sum. Segments are bisected,
    for each (sample, baseline, output) by its own errors alone, until

        sum_k error_k <= max(tol * |f(x) - f(x0)|, atol).

    Guaranteed for what has not failed, up to rounding: ``|sum_i a_i - (f(x) - mean_b f(x0_b))|`` is at most the mean of
    these bounds over the baselines, and so is the sum of the residuals of all segments without regard to their signs.
    The error of a single feature is estimated, not bounded: what all nodes of a segment miss, and its sum too, is not seen.

    How: in waves. Of m segments of a wave each may have 1/m of what is left of the tolerance, or is bisected; so nothing but
    the sums is held. A wave is the last for a (sample, baseline) if bisecting all of its segments could take more than
    `max_evaluations` rows of forward passes, those at the ends of segments included; what is then above the tolerance has
    failed: its attributions are the best there are, and it is said to have failed. NaN and infinity fail at once.

    `kind`: smooth (Gauss and Kronrod, 7 and 15 nodes; Kronrod 1964, Piessens et al. 1983), piecewise (linear: midpoint rules of
    1 and of 3 nodes, which kinks hurt least, starting with 4 segments), or auto, by the activations of the model. Under mixed
    precision, tolerances below its rounding cannot be reached, and samples fail. Raises `ConfigError` for settings out of range.
    """

    tol: float = 1e-3
    atol: float = 1e-6
    max_evaluations: int = 512
    kind: str = "auto"
    path: Path = field(default_factory=Straight)

    name = "ig"
    complete = True
    baselines = True
    linear = False
    certified = True
    labels = PathIntegral.labels

    def __post_init__(self) -> None:
        for name in ("tol", "atol"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ConfigError(f"method.attributor.{name}={value!r}: give a number of at least 0")
        if not self.tol and not self.atol:
            raise ConfigError("method.attributor.tol and atol are both 0, which no rule can reach: give one of them")
        number = self.max_evaluations
        if isinstance(number, bool) or not isinstance(number, int) or number < 17:
            raise ConfigError(
                f"method.attributor.max_evaluations={number!r}: give an integer of at least 17, the rows that a path starts with"
            )
        if self.kind not in ("auto", *KINDS):
            raise ConfigError(f"method.attributor.kind={self.kind!r}: choose one of auto, {', '.join(KINDS)}")

    @property
    def rule(self) -> str:
        name = "by the activations" if self.kind == "auto" else KINDS[self.kind][0].name
        return f"adaptive, {name}, tol {self.tol:g}, atol {self.atol:g}"

    def suited(self, piecewise: Callable[[], bool]) -> AdaptiveIG:
        return replace(self, kind="piecewise" if piecewise() else "smooth") if self.kind == "auto" else self

    def points(self, features: Sequence[tuple[int, ...]]) -> int:
        """The most that there can be."""
        return self.max_evaluations

    def of(self, task: Task) -> Tensors:
        """As the base says; `kind` must have been decided (`suited`)."""
        if self.kind == "auto":
            raise TypeError("AdaptiveIG needs the kind of the activations: give kind, or call suited")
        nested, n_start = KINDS[self.kind]
        n, n_pairs, k = task.n, len(task.baselines[0]) * task.n, len(nested.fine)
        lines = _Lines(task.model, task.inputs, task.baselines, list(task.outputs), self.path, nested, task.size * n, task.watch)
        totals = task.zeros()
        wave = lines.start(n_start)
        with np.errstate(invalid="ignore"):
            rise = wave.after[n_start - 1 :: n_start] - wave.before[::n_start]
        bound = np.maximum(self.tol * abs(rise), self.atol)
        error, spent = np.zeros((n_pairs, len(task.outputs))), np.full(n_pairs, n_start + 1)
        evaluations = np.zeros((n_pairs, len(task.outputs)), dtype=np.int64)
        while len(wave):
            number = np.bincount(wave.pair, minlength=n_pairs)
            mine = np.zeros_like(evaluations)
            np.add.at(mine, wave.pair, wave.open)
            spent, evaluations = spent + k * number, evaluations + k * mine
            last = spent + (2 * k + 1) * number > self.max_evaluations
            allowed = np.where(last[:, None], np.inf, (bound - error) / np.maximum(mine, 1))
            bad = np.zeros_like(wave.open)
            for at, part in wave.parts(max(1, task.size * n // k)):
                for j, found, values in lines.integrals(part):
                    bad[at, j] = part.open[:, j] & np.isfinite(found) & (found > allowed[part.pair, j])
                    good = part.open[:, j] & ~bad[at, j]
                    np.add.at(error[:, j], part.pair[good], found[good])
                    lines.add(totals, j, part.pair % n, good, values, task.share)
            again = np.flatnonzero(bad.any(1))
            halved = wave.take(again)
            spent = spent + np.bincount(halved.pair, minlength=n_pairs)
            wave = lines.bisect(halved, bad[again])
        failed = ~(error <= bound * (1 + 1e-9))  # of NaN, True
        by_sample = (len(task.baselines[0]), n, len(task.outputs))
        task.note(failed=failed.reshape(by_sample).any(0), evaluations=evaluations.reshape(by_sample).sum(0))
        return tuple(total.transpose(0, 1) for total in totals)


@dataclass(frozen=True)
class _Segments:
    """S segments of paths: of pair number ``b * n + sample``, from `left` to `right`, with the outputs at both ends."""

    pair: Int64[np.ndarray, " S"]
    left: Float64[np.ndarray, " S"]
    right: Float64[np.ndarray, " S"]
    before: Float64[np.ndarray, "S J"]
    after: Float64[np.ndarray, "S J"]
    open: Bool[np.ndarray, "S J"]
    """The outputs that the segment counts for: others are done here, with a segment that holds it."""

    def __len__(self) -> int:
        return len(self.pair)

    def take(self, rows: slice | Int64[np.ndarray, " s"]) -> _Segments:
        return _Segments(self.pair[rows], self.left[rows], self.right[rows], self.before[rows], self.after[rows], self.open[rows])

    def parts(self, size: int) -> Iterator[tuple[slice, _Segments]]:
        for start in range(0, len(self), size):
            at = slice(start, min(start + size, len(self)))
            yield at, self.take(at)


@dataclass(frozen=True)
class _Lines:
    """The paths of all (baseline, sample) of a call, and forward passes of at most `rows` rows along them."""

    model: Model
    inputs: Tensors
    baselines: Tensors
    outputs: list[int]
    path: Path
    nested: Nested
    rows: int
    watch: Callable[[int], None]

    def start(self, n_start: int) -> _Segments:
        """All paths, each in `n_start` equal segments."""
        b, n = len(self.baselines[0]), len(self.inputs[0])
        own = self.baselines[0].shape[1]
        ends = self._predicted(self.inputs, np.arange(n))
        starts = self._predicted(tuple(x0.flatten(0, 1) for x0 in self.baselines), np.tile(np.arange(own), b)).reshape(b, own, -1)
        cuts = np.linspace(0, 1, n_start + 1)
        pairs = np.arange(b * n)
        inner = self.predictions(pairs.repeat(n_start - 1), np.tile(cuts[1:-1], b * n)).reshape(b * n, n_start - 1, len(self.outputs))
        whole = (np.broadcast_to(values, (b, n, len(self.outputs))).reshape(b * n, 1, -1) for values in (starts, ends))
        known = np.concatenate((next(whole), inner, next(whole)), axis=1)
        before, after = (known[:, cut].reshape(b * n * n_start, -1) for cut in (slice(None, -1), slice(1, None)))
        left, right = np.tile(cuts[:-1], b * n), np.tile(cuts[1:], b * n)
        return _Segments(pairs.repeat(n_start), left, right, before, after, np.ones(before.shape, bool))

    def bisect(self, wave: _Segments, open_: Bool[np.ndarray, "S J"]) -> _Segments:
        """Both halves of each segment, for the outputs of `open_`."""
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
        return _Segments(*(np.stack(two, axis=1).reshape(2 * len(wave), *two[0].shape[1:]) for two in halves))

    def predictions(self, pair: Int64[np.ndarray, " S"], t: Float64[np.ndarray, " S"]) -> Float64[np.ndarray, "S J"]:
        """Outputs at t of paths."""
        found = [self._predicted(self._points(pair[at], t[at])[0], pair[at] % len(self.inputs[0])) for at in self._passes(len(pair))]
        return np.concatenate(found) if found else np.zeros((0, len(self.outputs)))

    def _passes(self, number: int) -> list[slice]:
        return [slice(start, min(start + self.rows, number)) for start in range(0, number, self.rows)]

    def _of(self, sample: Int64[np.ndarray, " R"]) -> Model:
        return self.model.of_rows(torch.from_numpy(sample).to(self.inputs[0].device))

    def _predicted(self, points: Tensors, sample: Int64[np.ndarray, " S"]) -> Float64[np.ndarray, "S J"]:
        found = []
        for at in self._passes(len(points[0])):
            found.append(self._of(sample[at]).predict(tuple(p[at] for p in points))[:, self.outputs].double().cpu().numpy())
            self.watch(len(found[-1]))
        return np.concatenate(found)

    def _points(self, pair: Int64[np.ndarray, " R"], t: Float64[np.ndarray, " R"]) -> tuple[Tensors, Tensors]:
        """Points at t of paths, and velocities there: (R, *P) per input."""
        n = len(self.inputs[0])
        b, sample = (torch.from_numpy(values).to(self.inputs[0].device) for values in (pair // n, pair % n))
        points, velocities = [], []
        for x, x0 in zip(self.inputs, self.baselines, strict=True):
            start, end = x0[b, sample if x0.shape[1] > 1 else 0][:, None], x[sample][:, None]  # (R, 1, *P), as paths expect
            at = column(torch.from_numpy(t), end)
            points.append(self.path.point(start, end, at)[:, 0])
            velocities.append(self.path.velocity(start, end, at)[:, 0])
        return tuple(points), tuple(velocities)

    def integrals(self, part: _Segments) -> Iterator[tuple[int, Float64[np.ndarray, " S"], Tensors]]:
        """For each output that is open: its number, the error of each segment, and the integrals over these, (S, *P) per input.

        `part` fits into one forward pass, or is one segment, whose nodes may take several.
        """
        width = part.right - part.left
        t = (part.left[:, None] + width[:, None] * self.nested.fine.nodes).reshape(-1)
        pair, columns = part.pair.repeat(len(self.nested.fine)), np.flatnonzero(part.open.any(0)).tolist()
        like = self.inputs[0]
        weights = torch.from_numpy(np.stack((self.nested.fine.weights, self.nested.coarse))).to(like.dtype).to(like.device)
        wide = torch.from_numpy(width).to(like.dtype).to(like.device)[:, None, None]
        held: dict[int, list[Tensor]] = {}
        for at in (passes := self._passes(len(t))):
            points, velocities = self._points(pair[at], t[at])
            nodes = slice(None) if len(passes) == 1 else at  # of all segments, or some of the only one
            for position, grads in self._of(pair[at] % len(like)).gradients(points, [self.outputs[j] for j in columns]):
                both = [
                    (weights[:, nodes] @ (grad * velocity).reshape(len(part), -1, velocity[0].numel())) * wide
                    for grad, velocity in zip(grads, velocities, strict=True)
                ]
                if len(passes) == 1:
                    yield self._judged(part, columns[position], both)
                else:
                    before = held.get(position)
                    held[position] = both if before is None else [a.add_(value) for a, value in zip(before, both, strict=True)]
            self.watch(len(points[0]))
        for position, both in held.items():
            yield self._judged(part, columns[position], both)

    def _judged(self, part: _Segments, j: int, both: list[Tensor]) -> tuple[int, Float64[np.ndarray, " S"], Tensors]:
        """The error of each segment for output j from both of its integrals, (S, 2, P) per input."""
        sums = torch.zeros(3, len(part), dtype=torch.float64, device=both[0].device)
        for value in both:
            fine, coarse = value[:, 0], value[:, 1]
            for kept, parts in zip(sums, (fine, (fine - coarse).abs(), fine.abs()), strict=True):
                kept += parts.sum(1, dtype=torch.float64)
        total, apart, size = sums.cpu().numpy()
        before, after = part.before[:, j], part.after[:, j]
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are for the engine to refuse
            error = np.maximum(abs(after - before - total), apart)  # of NaN, NaN
        noise = ROUNDING * float(torch.finfo(both[0].dtype).eps) * (size + abs(before) + abs(after))
        return j, np.where((error <= noise) & np.isfinite(noise), 0.0, error), tuple(value[:, 0] for value in both)

    def add(
        self, totals: Tensors, j: int, sample: Int64[np.ndarray, " S"], good: Bool[np.ndarray, " S"], values: Tensors, share: float
    ) -> None:
        """Add the integrals of the good segments to their samples; none is met twice at a time: sums have one order on any device."""
        rows = np.flatnonzero(good)
        while len(rows):
            _, first = np.unique(sample[rows], return_index=True)
            now = torch.from_numpy(rows[first]).to(values[0].device)
            to = torch.from_numpy(sample[rows[first]]).to(values[0].device)
            for total, value in zip(totals, values, strict=True):
                total[j, to] += share * value[now].reshape(len(now), *total.shape[2:])
            rows = np.delete(rows, first)
