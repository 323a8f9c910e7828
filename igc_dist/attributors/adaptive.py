"""Integrated Gradients to a given tolerance, per sample: segments of a path are bisected where errors are large."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from igc_dist.attributors.base import Attributor, Task
from igc_dist.attributors.path_integral import PathIntegral
from igc_dist.attributors.segments import Lines
from igc_dist.paths import KRONROD, TRIPLED, Nested, Path, Pilot, Straight
from igc_dist.records import ConfigError
from igc_dist.tensors import Tensors

KINDS: dict[str, tuple[Nested, int]] = {"smooth": (KRONROD, 1), "piecewise": (TRIPLED, 4)}
"""The rule of a segment, and the number of segments of a path at the start: both begin with 17 rows."""


@dataclass(frozen=True)
class AdaptiveIG(Attributor):
    """Integrated Gradients, ``IG_i = mean_b integral_0^1 d f(gamma_b(t)) / d x_i * gamma_b'(t)_i dt``, to a tolerance.

    Each path is cut into segments. A segment k has a rule, and a coarser rule at some of the same nodes. For each
    output its error is

        error_k = max( |f(end_k) - f(start_k) - sum_i a_ki| , sum_i |a_ki - coarse_ki| )

    in the units of the output. The first part is the error of the sum over features, which is known, as f is evaluated
    at both ends. The second part compares the two rules feature by feature, since errors of features may cancel in
    their sum. Segments are bisected, for each (sample, baseline, output) by its own errors alone, until

        sum_k error_k <= max(tol * |f(x) - f(x0)|, atol).

    Guarantee for samples that have not failed, up to rounding: ``|sum_i a_i - (f(x) - mean_b f(x0_b))|`` is at most the
    mean of these bounds over the baselines. The same bound holds for the sum of the absolute residuals of all segments.
    The error of a single feature is estimated, not bounded: an error that all nodes of a segment miss, and that does
    not change the sum, stays unknown.

    Segments are processed in waves. Each of the m segments of a wave may use 1/m of the remaining tolerance, otherwise
    it is bisected; so only sums are held. A wave is the last one for a (sample, baseline) if bisecting all of its
    segments could need more than `max_evaluations` rows of forward passes, including those at the ends of segments. If
    the error is then above the tolerance, the sample has failed: its attributions are the best available, and it is
    noted. NaN and infinity fail at once.

    `kind`: smooth (Gauss and Kronrod, 7 and 15 nodes; Kronrod 1964, Piessens et al. 1983), piecewise (linear: midpoint
    rules of 1 and of 3 nodes, which kinks disturb least, starting with 4 segments), or auto, by the activations of the
    model. Under mixed precision, tolerances below its rounding cannot be reached, and samples fail. Raises
    `ConfigError` for settings out of range.
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
                f"method.attributor.max_evaluations={number!r}: give an integer of at least 17, the rows that a path "
                "starts with"
            )
        if self.kind not in ("auto", *KINDS):
            raise ConfigError(f"method.attributor.kind={self.kind!r}: choose one of auto, {', '.join(KINDS)}")

    @property
    def rule(self) -> str:
        name = "by the activations" if self.kind == "auto" else KINDS[self.kind][0].name
        return f"adaptive, {name}, tol {self.tol:g}, atol {self.atol:g}"

    def suited(self, piecewise: Callable[[], bool], pilot: Pilot | None = None) -> AdaptiveIG:
        return replace(self, kind="piecewise" if piecewise() else "smooth") if self.kind == "auto" else self

    def points(self, features: Sequence[tuple[int, ...]]) -> int:
        """The largest possible number of points."""
        return self.max_evaluations

    def of(self, task: Task) -> Tensors:
        """As in the base class; `kind` must have been decided (`suited`)."""
        if self.kind == "auto":
            raise TypeError("AdaptiveIG needs the kind of the activations: give kind, or call suited")
        nested, n_start = KINDS[self.kind]
        n, n_pairs, k = task.n, len(task.baselines[0]) * task.n, len(nested.fine)
        lines = Lines(
            task.model, task.inputs, task.baselines, list(task.outputs), self.path, nested, task.size * n, task.watch
        )
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
        failed = ~(error <= bound * (1 + 1e-9))  # True for NaN
        by_sample = (len(task.baselines[0]), n, len(task.outputs))
        task.note(failed=failed.reshape(by_sample).any(0), evaluations=evaluations.reshape(by_sample).sum(0))
        return tuple(total.transpose(0, 1) for total in totals)
