"""Draws: a flat list of any mix of samples, baselines, nodes and outputs, folded in forward passes of one size.

Statistics that are linear in the attribution need only draws. A draw is a pair of points and a node between them, with
a weight of its gradient for each output and each sum of a state. Different draws may ask for different outputs. So a
draw needs only as many gradients as it has outputs with a weight: two for a pair of samples with labels, or its own
output and a few of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from igc_dist.attributors import column
from igc_dist.faults import fault
from igc_dist.model import Model
from igc_dist.paths import Path
from igc_dist.tensors import Tensors, there


@dataclass(frozen=True)
class Draws:
    """R draws. The gradient at `node` between two points, times the velocity there, counts with `weight` in T sums.

    `end`, `start`: row numbers in the current ends and starts; `weight`: for each of T sums and J outputs; `cell`: the
    cell of each draw, per output.
    """

    end: Int64[np.ndarray, " R"]
    start: Int64[np.ndarray, " R"]
    node: Float64[np.ndarray, " R"]
    weight: Float64[np.ndarray, "T R J"]
    cell: Int64[np.ndarray, "R J"]

    def used(self) -> Draws:
        """The draws that have a weight."""
        return self.at(np.flatnonzero((self.weight != 0).any((0, 2))))

    def at(self, rows: Int64[np.ndarray, " r"] | slice) -> Draws:
        """Some of the draws."""
        return Draws(self.end[rows], self.start[rows], self.node[rows], self.weight[:, rows], self.cell[rows])

    def packed(self) -> Int64[np.ndarray, "R L"]:
        """The outputs that each draw asks for, those with a weight first; L is the largest number of them.

        The samples of a batch are independent, so one backward pass serves any choice of one output for each.
        """
        asked = (self.weight != 0).any(0)
        return np.argsort(~asked, axis=1, kind="stable")[:, : int(asked.sum(1).max(initial=0))]


@dataclass(frozen=True)
class Lines:
    """The lines of draws: from rows of `starts` to rows of `ends` along a path, in forward passes of `size` draws.

    `watch(rows)` is called after each forward pass. `broken(end)` is called for a draw whose gradient is not finite,
    and raises.
    """

    model: Model
    path: Path
    ends: Tensors
    starts: Tensors
    size: int
    watch: Callable[[int], None]
    broken: Callable[[int], None]

    def at(self, draws: Draws) -> tuple[Tensors, Tensors]:
        """Points of draws, and velocities there."""
        points, velocities = [], []
        for x, x0 in zip(self.ends, self.starts, strict=True):
            one, two = (v[there(rows, v.device)] for v, rows in ((x0, draws.start), (x, draws.end)))
            at = column(torch.from_numpy(draws.node), two)
            points.append(self.path.point(one, two, at))
            velocities.append(self.path.velocity(one, two, at))
        return tuple(points), tuple(velocities)


def fold(lines: Lines, draws: Draws, outputs: Sequence[int], into: Tensors) -> None:
    """Add ``weight * velocity * d f / d x`` of all draws to the sums `into`, one (T, C, J, *P_i) in float64 per input.

    The number of backward passes per forward pass is the largest number of outputs that one of its draws asks for.
    Whether all gradients are finite is asked once, at the end, as the host waits for the device then.
    """
    draws, numbers = draws.used(), np.asarray(outputs)
    lost: list[tuple[np.ndarray, Tensor]] = []
    for begin in range(0, len(draws.end), lines.size):
        part = draws.at(slice(begin, begin + lines.size))
        picks = part.packed()
        points, velocities = lines.at(part)
        wanted = there(numbers[picks], lines.ends[0].device)
        for slot, grads in lines.model.gradients(points, wanted):
            fault("gradient", *grads)
            lost += [(part.end, flags) for flags in _added(grads, velocities, part, picks[:, slot], into)]
        lines.watch(len(part.end))
    if lost:
        which = torch.cat([flags for _, flags in lost]).cpu().numpy()
        ends = np.concatenate([end for end, _ in lost])[which]
        if len(ends):
            lines.broken(int(ends[0]))


def _added(
    grads: Tensors, velocities: Sequence[Tensor], part: Draws, pick: np.ndarray, into: Tensors
) -> Iterator[Bool[Tensor, " R"]]:
    """Add the product of one gradient per draw, of the output `pick`, with its weights.

    One matrix product serves all outputs that occur. Yields for each input which draws are not finite.
    """
    rows = np.arange(len(pick))
    weight, n_outputs = part.weight[:, rows, pick], part.weight.shape[2]  # T R
    used = there((weight != 0).any(0), grads[0].device)
    places, which = np.unique(part.cell[rows, pick] * n_outputs + pick, return_inverse=True)
    spread = np.zeros((len(weight), len(places), len(rows)))
    spread[:, which, rows] = weight
    matrix = there(spread.reshape(-1, len(rows)), grads[0].device)
    at = there(places, grads[0].device)
    for grad, velocity, sums in zip(grads, velocities, into, strict=True):
        product = (grad * velocity).double().reshape(len(rows), -1)
        # an unused slot of a draw may be NaN, and 0 * NaN is NaN
        product = torch.where(used[:, None], product, 0.0)
        yield ~torch.isfinite(product.sum(1))
        flat = sums.view(len(weight), -1, product.shape[1])
        flat[:, at] += (matrix @ product).view(len(weight), len(places), -1)


def asked(
    keys: Float64[np.ndarray, "R J"], label: Int64[np.ndarray, " R"], n_others: int
) -> Float64[np.ndarray, "R J"]:
    """Draw outputs, and return how often each counts: 0 if it is not drawn (Horvitz and Thompson 1952).

    On average each output counts once. The output of the label counts once (a label of -1 is none of these outputs).
    `n_others` of the other outputs are drawn, those with the smallest random `keys`. Each of them counts as often as
    the number of others over the number of drawn ones.
    """
    own = np.arange(keys.shape[1]) == label[:, None]
    others = keys.shape[1] - own.sum(1, keepdims=True)
    drawn = np.minimum(n_others, others)
    often = np.zeros(keys.shape)
    if (k := min(n_others, keys.shape[1])) > 0:  # if k is their number, all are chosen, including the label
        chosen = np.argpartition(np.where(own, np.inf, keys), k - 1, axis=1)[:, :k]
        np.put_along_axis(often, chosen, others / np.maximum(drawn, 1), axis=1)
    return np.where(own, 1.0, often)
