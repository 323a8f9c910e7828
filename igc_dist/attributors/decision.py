"""Integrated Gradients on the part of a path where the output is decided; a probe without gradients finds that part."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from igc_dist.attributors.base import Task
from igc_dist.attributors.walk import Step, Walk, column
from igc_dist.paths import Straight
from igc_dist.records import ConfigError, Price
from igc_dist.tensors import Tensors

Nodes = Float64[Tensor, "n J K"]


@dataclass(frozen=True)
class Probed(Walk):
    """The straight path with nodes for each output of each sample, placed by predictions at equal distances.

    `n_steps` (K) is the number of predictions of the probe, from x0 to x for all outputs at once, and the number of
    gradients for each output. Points of several outputs share a forward pass. Raises `ConfigError` for fewer than 2
    steps.
    """

    n_steps: int = 50

    complete = False
    baselines = True
    linear = False

    def __post_init__(self) -> None:
        n = self.n_steps
        if isinstance(n, bool) or not isinstance(n, int) or n < 2:
            raise ConfigError(f"method.attributor.n_steps={n!r}: give an integer of at least 2")

    @property
    def doubled(self) -> Probed:
        return replace(self, n_steps=2 * self.n_steps)

    def points(self, features: Sequence[tuple[int, ...]]) -> int:
        return self.n_steps

    def price(self, features: Sequence[tuple[int, ...]]) -> Price:
        return Price(self.n_steps, rows_per_output=self.n_steps, gradients_per_output=self.n_steps)

    @abstractmethod
    def placed(self, values: Nodes) -> tuple[Nodes, Nodes]:
        """Nodes in [0, 1] and their weights, by the predictions at ``0, 1 / (K - 1), ..., 1``."""

    def steps(self, task: Task, ends: bool = False) -> Iterator[Step]:
        n, k, device = task.n, self.n_steps, task.inputs[0].device
        columns = torch.tensor(list(task.outputs), device=device)
        seen: list[Tensor] = []

        def predicted(starts: Tensors, t: Float64[Tensor, "c #n"]) -> Float64[Tensor, "c n J"]:
            found = []
            for some in t.split(task.size):
                values = task.model.predict(tuple(p.flatten(0, 1) for p in _along(starts, task.inputs, some)))[
                    :, columns
                ]
                task.watch(len(values))
                found.append(values.double().unflatten(0, (len(some), n)))
            return torch.cat(found)

        for starts in (one.baselines for one in task.alone()):
            uniform = torch.linspace(0, 1, k, dtype=torch.float64, device=device)[:, None]
            nodes, weights = self.placed(predicted(starts, uniform).permute(1, 2, 0))
            for start in range(0, len(columns) * k, task.size):
                stop = min(start + task.size, len(columns) * k)
                asked = columns[torch.arange(start, stop, device=device) // k].repeat_interleave(n)[:, None]
                points = tuple(p.flatten(0, 1) for p in _along(starts, task.inputs, nodes.flatten(1)[:, start:stop].T))
                for _, grads in task.model.gradients(points, asked, seen.append):
                    values, widths = (
                        seen.pop().reshape(stop - start, n),
                        task.share * weights.flatten(1)[:, start:stop].T,
                    )
                    for j in range(start // k, -(-stop // k)):
                        own = slice(max(j * k - start, 0), min((j + 1) * k, stop) - start)
                        moves = tuple(
                            column(widths[own], x[None]) * (x - x0) for x, x0 in zip(task.inputs, starts, strict=True)
                        )
                        yield Step(j, values[own], tuple(g.unflatten(0, (stop - start, n))[own] for g in grads), moves)
                task.watch(len(points[0]))
            if ends:
                last = predicted(starts, weights.sum(2).T)
                yield from (Step(j, last[j : j + 1, :, j]) for j in range(len(columns)))


def _along(starts: Tensors, inputs: Tensors, t: Float64[Tensor, "c #n"]) -> tuple[Float[Tensor, "c n ..."], ...]:
    """Points at t of the paths of n samples, from (1, n or 1, *P) to (n, *P)."""
    ends = [x.expand(len(t), *x.shape) for x in inputs]
    return tuple(Straight().point(x0.expand_as(x), x, column(t, x)) for x0, x in zip(starts, ends, strict=True))


@dataclass(frozen=True)
class LeftIG(Probed):
    """Integrated Gradients of the part of the path before the output saturates.

    ``(x_i - x0_i) integral_0^a d f(gamma(t)) / d x_i dt`` with ``gamma(t) = x0 + t (x - x0)`` (Miglani et al. 2020,
    arXiv 2010.12697; as a rival in Walker et al. 2024, arXiv 2305.20052).

    The output is taken as linear between the points of a probe. a is the first place where it has moved from f(x0)
    towards f(x) by `threshold` (0.9) of its farthest move in that direction. So neither the sign of an output nor a
    constant in it matters. If the output does not move, a = 1. The nodes are midpoints of equal parts of [0, a], and
    their weights sum to a. Not complete, but ``sum_i a_i = mean_b f(gamma_b(a_b)) - f(x0_b)`` up to the quadrature
    error.

    The original drops the nodes after a from a rule for [0, 1], and divides by the number of remaining nodes: its
    attributions are 1 / a times too large.

    Raises `ConfigError` for a threshold outside of (0, 1], and as `Probed`.
    """

    threshold: float = 0.9

    name = "left_ig"

    def __post_init__(self) -> None:
        super().__post_init__()
        level = self.threshold
        if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level <= 1:
            raise ConfigError(f"method.attributor.threshold={level!r}: give a number above 0 and at most 1")

    def placed(self, values: Nodes) -> tuple[Nodes, Nodes]:
        k = self.n_steps
        gone = (values - values[..., :1]) * (values[..., -1:] - values[..., :1]).sign()
        farthest = gone.amax(2, keepdim=True)
        level = self.threshold * farthest
        first = (gone >= level).int().argmax(2, keepdim=True).clamp(min=1)
        before, after = gone.gather(2, first - 1), gone.gather(2, first)
        a = (first - 1 + (level - before) / (after - before)) / (k - 1)
        a = torch.where(farthest == 0, 1.0, a)
        middles = (torch.arange(k, dtype=torch.float64, device=values.device) + 0.5) / k
        return a * middles, (a / k).expand(values.shape)


@dataclass(frozen=True)
class IDG(Probed):
    """Integrated Decision Gradients: gradients count where the output moves, and not where it is saturated.

    ``(x_i - x0_i) integral_0^1 d f(x0 + t (x - x0)) / d x_i F'(t) dt`` with ``F(t) = f(x0 + t (x - x0))`` (Walker et
    al. 2024, arXiv 2305.20052).

    ``F'(t) = sum_i (x_i - x0_i) d f / d x_i`` is computed from the gradient itself, without a finite difference. Not
    complete: ``sum_i a_i = mean_b integral F'(t)**2 dt``, in squared units of the output.

    Nodes follow the density ``p(t) = (|slope(t)| / integral |slope| + 1) / 2``, in equal shares: ``P(t_k) = (k + 1/2) /
    K``. The slopes are those between the points of a probe. So half of the nodes go where the output moves, and half
    are spread evenly. Their weights are ``1 / p(t_k)``, scaled so that they sum to 1; if the probe is flat, 1 / K each.
    Without the even half, no node would lie inside a plateau, and its steep end would get the weight of all of it.
    """

    name = "idg"
    held = 1

    def placed(self, values: Nodes) -> tuple[Nodes, Nodes]:
        k = self.n_steps
        slopes = values.diff(dim=2).abs()
        total = slopes.sum(2, keepdim=True)
        even = 1 / (k - 1)
        masses = (torch.where(total == 0, even, slopes / total) + even) / 2  # masses of the intervals of the probe
        after = masses.cumsum(2)
        wish = ((torch.arange(k, dtype=torch.float64, device=values.device) + 0.5) / k * after[..., -1:]).contiguous()
        interval = torch.searchsorted(after.contiguous(), wish).clamp(max=k - 2)
        mass = masses.gather(2, interval)
        nodes = (interval + 1 - (after.gather(2, interval) - wish) / mass) / (k - 1)
        weights = 1 / mass
        return nodes, weights / weights.sum(2, keepdim=True)

    def of(self, task: Task) -> Tensors:
        totals = task.zeros()
        for one in task.alone():
            ways = [x - x0 for x, x0 in zip(one.inputs, one.baselines, strict=True)]
            for step in self.steps(one):
                parts = [
                    (g * way).reshape(*g.shape[:2], -1).sum(2) for g, way in zip(step.gradients, ways, strict=True)
                ]
                slope = torch.stack(parts).sum(0)
                for total, move, grad in zip(totals, step.moves, step.gradients, strict=True):
                    total[step.output] += (column(slope, grad) * move * grad).sum(0)
        return tuple(total.transpose(0, 1) for total in totals)
